"""The registry of checks and the report."""

import re
from pathlib import Path
from typing import Any

from dbproxy.doctor import (
    IDENTITY,
    UPSTREAM,
    Area,
    Check,
    Evidence,
    Report,
    Verdict,
    outcomes_of,
)
from dbproxy.doctor.finding import failed, fine, skipped, warned
from dbproxy.errors import PROBLEMS, Code

AREAS: tuple[Area[Any], ...] = (IDENTITY, UPSTREAM)


def test_names_are_stable_looking_and_unique() -> None:
    names = [check.name for area in AREAS for check in area.checks]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", name) for name in names)


def test_a_report_keeps_the_order_and_counts(evidence: Evidence) -> None:
    area: Area[Evidence] = Area(
        "example",
        (
            Check("good", "it is good", lambda _: fine("yes")),
            Check("bad", "it is not bad", lambda _: failed(Code.USAGE, "no")),
            Check("odd", "it is not odd", lambda _: warned(Code.USAGE, "hm", next_step="Look.")),
            Check("unknown", "it is known", lambda _: skipped("dark")),
        ),
    )
    report = Report(outcomes_of(area, evidence))
    assert [outcome.check.name for outcome in report.outcomes] == ["good", "bad", "odd", "unknown"]
    assert [outcome.check.name for outcome in report.problems] == ["bad", "odd"]
    assert report.failed
    assert [report.count(verdict) for verdict in Verdict] == [1, 1, 1, 1]
    bad, odd = report.problems
    assert bad.finding.next_step == PROBLEMS[Code.USAGE].next_step
    assert odd.finding.next_step == "Look."


def test_a_warning_is_no_failure(evidence: Evidence) -> None:
    odd: Check[Evidence] = Check("odd", "it is not odd", lambda _: warned(Code.USAGE, "hm"))
    assert not Report(outcomes_of(Area("example", (odd,)), evidence)).failed


def test_the_guide_shows_each_check_in_order() -> None:
    guide = Path(__file__).resolve().parents[3] / "docs" / "guide.md"
    text = guide.read_text(encoding="utf-8")
    shown = re.findall(r"^(?:ok|warning) +([a-z-]+)  ", text, re.MULTILINE)
    assert shown == [check.name for area in AREAS for check in area.checks]
