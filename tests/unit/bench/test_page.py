"""Results as JSON, verdicts, charts, and the page that is made of them."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from comparison.bars import BARS, Bar, judge
from comparison.charts import Item, bar_chart
from comparison.page import PAGE, RESULTS, pages, write_page
from comparison.results import Results, RowInfo
from comparison.terminal import show
from comparison.wording import bar_aim, bar_must, measured, outcome
from rich.console import Console

DOCS = Path(__file__).resolve().parents[3] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def results() -> Results:
    results = Results(
        began="2026-01-01T00:00+00:00",
        rounds=3,
        quick=False,
        machine={"processor": "example", "cores": "2"},
        versions={"dbproxy": "1.0", "Go": "1.24"},
        seconds=600,
        load_average=[0.1, 2.0],
        rows=[
            RowInfo("dbproxy", "dbproxy --tunnel, ping", peer=False),
            RowInfo("go", "Go peer, ping", peer=True),
            RowInfo("nginx", "nginx & <friends>", peer=True),
        ],
        runs={"bulk-up-1": "Bulk up, 1 stream", "idle": "Idle", "connect-8-resumed": "New"},
        notes=["stunnel: stunnel is not installed"],
    )
    for row, speed, cpu in (("dbproxy", 1000, 0.5), ("go", 800, 0.9), ("nginx", 1250, 0.6)):
        for change in (0.9, 1.0, 1.2):
            results.add(
                row,
                {
                    "bulk-up-1.mb_per_s": speed * change,
                    "bulk-up-1.cpu_s_per_gb": cpu * change,
                },
            )
    results.add("dbproxy", {"idle.kib_each_5000": 44, "idle.echoed": 5000})
    results.add("dbproxy", {"connect-8-resumed.per_s": 1300})
    results.add("go", {"connect-8-resumed.per_s": 1000})
    results.add("nginx", {"connect-8-resumed.per_s": 2000})
    return results


def verdict(results: Results, title: str, against: str | None = None) -> tuple[str, str]:
    bars = [bar for bar in BARS if bar.title == title and against in (None, bar.against)]
    found = next(judge(results.samples, results.peers, bars))
    return measured(found), outcome(found)


def test_results_are_read_as_they_were_written(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.json"
    results.write(path)
    assert Results.read(path) == results


def test_something_else_is_not_taken_for_results(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"format": 99}', encoding="utf-8")
    with pytest.raises(ValueError, match="format 1"):
        Results.read(path)


def test_a_bar_is_judged_against_the_best_peer(results: Results) -> None:
    cpu = verdict(results, "CPU s/GB, 1 stream up", "best peer")
    speed = verdict(results, "MB/s, 1 stream up", "best peer")
    assert cpu == ("0.83 × (0.500 to 0.600, nginx)", "passed")
    assert speed == ("0.80 × (1,000 to 1,250, nginx)", "missed")


def test_a_bar_is_judged_against_the_go_peer_whoever_is_best(results: Results) -> None:
    assert verdict(results, "CPU s/GB, 1 stream up", "Go peer") == (
        "0.56 × (0.500 to 0.900, go)",
        "passed, aim reached",
    )


def test_an_aim_may_be_about_somebody_else_than_the_bar(results: Results) -> None:
    title = "New connections/s, 8 at once, resumption possible"
    assert verdict(results, title) == ("1.30 × (1,300 to 1,000, go)", "passed")
    results.samples["dbproxy"]["connect-8-resumed.per_s"] = [2100]
    assert verdict(results, title)[1] == "passed, aim reached"


def test_an_absolute_bar_needs_no_peer(results: Results) -> None:
    title = "RSS for each of 5,000 idle connections, KiB"
    assert verdict(results, title) == ("44.0", "passed")
    assert verdict(results, "Connections held, all echo once") == ("5,000", "passed")
    results.samples["dbproxy"]["idle.echoed"] = [4999]
    assert verdict(results, "Connections held, all echo once") == ("4,999", "missed")


def test_what_was_not_measured_is_neither_passed_nor_missed(results: Results) -> None:
    assert verdict(results, "RSS at start, MiB") == ("not measured", "–")


def test_limits_say_whose_multiple_they_are() -> None:
    bar = Bar("x", "connect-8-resumed.per_s", "Go peer", 1.2, 1.0, aim_against="best peer")
    assert (bar_must(bar), bar_aim(bar)) == ("≥ 1.2 × Go peer", "≥ 1 × best peer")
    assert bar_must(Bar("x", "idle.start_mib", None, 60, 40)) == "≤ 60"


def test_a_chart_has_a_bar_of_the_right_length_for_each_item() -> None:
    items = [Item("a", 100, 90, 200, "100"), Item("b & <c>", 50, 50, 50, "50", ours=True)]
    root = ElementTree.fromstring(bar_chart("Speed < light", items))
    bars = root.findall(f"{SVG}rect")
    texts = [text.text for text in root.findall(f"{SVG}text")]
    assert float(bars[0].attrib["width"]) == 2 * float(bars[1].attrib["width"])
    assert [bar.attrib["class"] for bar in bars] == ["bar", "bar ours"]
    assert texts == ["Speed < light", "a", "100", "b & <c>", "50"]


def test_a_chart_of_nothing_is_a_picture_too() -> None:
    assert ElementTree.fromstring(bar_chart("Nothing", [])).tag == f"{SVG}svg"


def test_the_page_shows_machine_bars_figures_and_what_was_left_out(results: Results) -> None:
    page = pages(results)[PAGE]
    assert "| processor | example |" in page
    assert "| load average | 0.1, 2 |" in page
    assert "- stunnel: stunnel is not installed" in page
    assert "| dbproxy --tunnel, ping | 1,000 ±15 % (0.80 ×) | 0.500 ±15 % (0.83 ×) |" in page
    assert "| MB/s, 1 stream up | ≥ 0.95 × best peer | ≥ 1.2 × best peer |" in page
    assert "| **missed** |" in page


def test_the_page_links_every_chart_that_there_is(results: Results, tmp_path: Path) -> None:
    write_page(results, tmp_path)
    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    charts = sorted((tmp_path / "performance").glob("*.svg"))
    assert {chart.stem for chart in charts} == {"cpu-up", "speed-up", "connect", "memory"}
    assert all(f"(performance/{chart.name})" in page for chart in charts)
    assert Results.read(tmp_path / "performance" / RESULTS) == results


def test_a_quick_run_says_that_its_figures_mean_nothing(results: Results) -> None:
    results.quick = True
    console = Console(width=160)
    with console.capture() as capture:
        show(results, console)
    assert "the figures mean nothing" in capture.get()
    assert "Bars" not in capture.get()
    assert "Its figures mean nothing" in pages(results)[PAGE]


def test_what_failed_is_named_on_the_terminal_and_on_the_page(results: Results) -> None:
    results.failures.append("nginx, bulk: the payload is damaged after 5 bytes\nlog")
    console = Console(width=160)
    with console.capture() as capture:
        show(results, console)
    assert "Failed: nginx, bulk: the payload is damaged" in capture.get()
    assert "- nginx, bulk: the payload is damaged after 5 bytes log\n" in pages(results)[PAGE]


def test_the_terminal_shows_every_run_and_every_bar(results: Results) -> None:
    console = Console(width=160)
    with console.capture() as capture:
        show(results, console)
    said = capture.get()
    assert "Bulk up, 1 stream" in said
    assert all(bar.title in said for bar in BARS)
    assert "Left out: stunnel: stunnel is not installed" in said


def test_the_page_in_the_documentation_is_made_of_the_results_beside_it() -> None:
    results = Results.read(DOCS / "performance" / RESULTS)
    written = {name: (DOCS / name).read_text(encoding="utf-8") for name in pages(results)}
    assert written == pages(results), "run scripts/bench --from=… --write-docs"
    assert not results.quick
