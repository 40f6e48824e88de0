"""A good identity on disk and a way to look at it."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dbproxy.doctor import Evidence, Finding, examine, gather
from dbproxy.settings import Settings

Judge = Callable[[Evidence, str], Finding]


@pytest.fixture
def evidence(destination: Path) -> Evidence:
    """What there is to judge about a good identity."""
    return gather(Settings(destination_dir=destination), datetime.now(UTC))


@pytest.fixture
def judge() -> Judge:
    """What the check of a name finds."""

    def judge(evidence: Evidence, name: str) -> Finding:
        outcomes = examine(evidence).outcomes
        return next(outcome.finding for outcome in outcomes if outcome.check.name == name)

    return judge
