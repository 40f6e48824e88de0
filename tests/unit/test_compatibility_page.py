"""The conformance table has the cells that the tests have, and is read back as it was written."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from compatibility import (
    CERTIFICATE_CELLS,
    OTHERS,
    PAGE,
    REFUSED_AT_START,
    SERVERS,
    YES,
    Result,
    cases,
    is_served,
    keys,
    make_page,
    read_results,
    words_on,
)
from drivers import DRIVERS, Cell

from dbproxy import Mode
from dbproxy.protocols.choice import _PROTOCOLS


@pytest.fixture
def results() -> list[Result]:
    return [
        Result(
            driver.protocol,
            driver.name,
            "1.2.3-b4",
            mode,
            cell,
            YES if is_served(driver, mode) else REFUSED_AT_START,
        )
        for driver, mode, cell in cases()
    ]


def test_the_page_has_exactly_the_cells_that_the_tests_have() -> None:
    written = words_on(PAGE.read_text(encoding="utf-8"))
    assert set(written) == keys(), "run scripts/compatibility"


def test_the_page_has_the_words_around_the_table_that_it_would_have_now() -> None:
    """Everything but versions and outcomes."""
    written = PAGE.read_text(encoding="utf-8")
    words = words_on(written)
    now = make_page([Result(*key[:2], "", *key[2:], words[key]) for key in words if key in keys()])
    assert without_table(written) == without_table(now), "run scripts/compatibility"


def without_table(page: str) -> list[str]:
    return [line for line in page.splitlines() if not any(f"| {mode} |" in line for mode in Mode)]


def test_every_protocol_is_in_the_table_or_named_as_one_that_is_not() -> None:
    assert {driver.protocol for driver in DRIVERS} == set(SERVERS)
    assert {*SERVERS, *OTHERS} == set(_PROTOCOLS)
    assert len({*SERVERS, *OTHERS}) == len(SERVERS) + len(OTHERS)


def test_every_driver_has_every_mode_and_cell_but_certificates_in_a_tunnel() -> None:
    assert len(cases()) == len(keys())
    missing = len(DRIVERS) * len(CERTIFICATE_CELLS)
    assert len(cases()) == len(DRIVERS) * len(Mode) * len(Cell) - missing


def test_what_is_written_is_read_back(results: list[Result]) -> None:
    assert words_on(make_page(results)) == {result.key: result.word for result in results}


def test_a_run_that_left_cells_out_makes_no_page(results: list[Result]) -> None:
    with pytest.raises(KeyError):
        make_page(results[1:])


def test_results_are_read_from_a_report(results: list[Result], tmp_path: Path) -> None:
    suite = ElementTree.Element("testsuite")
    ElementTree.SubElement(suite, "testcase", name="another")
    for result in results:
        case = ElementTree.SubElement(suite, "testcase", name="test_cell")
        properties = ElementTree.SubElement(case, "properties")
        for name, value in result.properties():
            ElementTree.SubElement(properties, "property", name=name, value=value)
    report = tmp_path / "report.xml"
    ElementTree.ElementTree(suite).write(report)
    assert read_results(report) == results
