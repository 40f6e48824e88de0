"""How the proxies are started, and what the command line chooses."""

from pathlib import Path

import compare
import pytest
from comparison.certificates import Files
from comparison.figures import RUNS
from comparison.measure import Plan
from comparison.processes import BenchError
from comparison.programs import Programs
from comparison.results import Results
from comparison.rows import ROWS, Row, Site

UPSTREAM = "127.0.0.1:44444"
PORT = 55555


@pytest.fixture
def site(tmp_path: Path) -> Site:
    pair = (tmp_path / "web.crt", tmp_path / "web.key")
    files = Files(tmp_path / "machine-id", tmp_path / "ca.pem", pair, pair, tmp_path / "client.pem")
    programs = Programs(Path("/peer"), Path("/load"), Path("/upstream"), "go1.24")
    return Site(tmp_path, PORT, UPSTREAM, files, programs)


@pytest.mark.parametrize("row", [row for row in ROWS if row.command], ids=lambda row: row.name)
def test_every_proxy_is_told_port_upstream_authority_and_certificate(row: Row, site: Site) -> None:
    assert row.command is not None
    words = [str(word) for word in row.command(site)]
    configs = [path.read_text(encoding="utf-8") for path in site.directory.glob("*.c*")]
    told = "\n".join([*words, *configs])
    assert str(PORT) in told
    assert UPSTREAM in told
    assert str(site.files.web_ca) in told
    assert str(site.files.destination) in told or str(site.files.client_pem) in told


def test_names_are_unique() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert len({run.name for run in RUNS}) == len(RUNS)


def test_every_other_round_goes_backwards_and_without_rows_that_no_bar_is_about() -> None:
    runs = [run for run in RUNS if run.name in {"idle", "connect-8-full"}]
    rows = [row for row in ROWS if row.name in {"dbproxy", "go", "nginx", "go-resume", "direct"}]
    plan = Plan(rows, runs, rounds=3, idle_rounds=1)
    names = [[row.name for row in plan.rows_in(number)] for number in range(3)]
    assert names[0] == names[2] == ["dbproxy", "go", "nginx", "go-resume", "direct"]
    assert names[1] == ["nginx", "go", "dbproxy"]
    assert [len(plan.runs_in(number)) for number in range(3)] == [2, 1, 1]
    assert plan.steps() == (3 + 5) + 3 + 5  # direct and go-resume hold no connections


def test_a_row_whose_option_dbproxy_does_not_know_is_left_out_with_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unknown = Row("future", "dbproxy --future", None, flags=("--no-such-option",))
    monkeypatch.setattr(compare, "ROWS", (unknown,))
    results = Results("", 1, quick=True, machine={}, versions={})
    assert compare.usable_rows(compare.parse_arguments([]), results) == []
    assert results.notes == ["dbproxy --future: dbproxy has no --no-such-option yet"]


def test_a_row_whose_program_is_missing_says_which_package_has_it() -> None:
    row = Row("x", "X", None, needs=("no-such-program", "its-package"))
    assert row.missing() == "no-such-program is not installed (Debian package its-package)"


def test_names_may_be_patterns_and_a_wrong_one_is_refused() -> None:
    assert {run.name for run in compare.matching(RUNS, ["rt-64-*"])} == {
        "rt-64-1",
        "rt-64-32",
        "rt-64-256",
    }
    with pytest.raises(BenchError, match="nothing is called nosuch"):
        compare.check_names(ROWS, ["nosuch"])


def test_a_quick_run_is_not_written_into_the_documentation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        compare.parse_arguments(["--quick", "--write-docs"])
    assert "mean nothing" in capsys.readouterr().err
