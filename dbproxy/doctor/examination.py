"""Making every check, and what comes out of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from dbproxy.doctor.evidence import Evidence
from dbproxy.doctor.finding import Check, Finding, Verdict
from dbproxy.doctor.identity_checks import IDENTITY_CHECKS

__all__ = ["AREAS", "Area", "Outcome", "Report", "examine"]


@dataclass(frozen=True, slots=True)
class Area:
    """Checks that belong together.

    Attributes:
        name: Stable.
        checks: In the order in which they are made and told.
    """

    name: str
    checks: tuple[Check[Evidence], ...]


AREAS: Final = (Area("identity", IDENTITY_CHECKS),)
"""The registry: a new check goes into the tuple of its area, a new area in here."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check that was made.

    Attributes:
        area: The area's name.
        check: What was looked at.
        finding: What was found.
    """

    area: str
    check: Check[Evidence]
    finding: Finding


@dataclass(frozen=True, slots=True)
class Report:
    """What all checks have found.

    Attributes:
        outcomes: One for each check, in order.
    """

    outcomes: tuple[Outcome, ...]

    @property
    def problems(self) -> tuple[Outcome, ...]:
        """The warnings and failures."""
        bad = {Verdict.WARNING, Verdict.FAILURE}
        return tuple(outcome for outcome in self.outcomes if outcome.finding.verdict in bad)

    @property
    def failed(self) -> bool:
        """Whether any check failed; a warning is no failure."""
        return self.count(Verdict.FAILURE) > 0

    def count(self, verdict: Verdict) -> int:
        """How many checks ended so."""
        return sum(outcome.finding.verdict is verdict for outcome in self.outcomes)


def examine(evidence: Evidence, areas: Iterable[Area] = AREAS) -> Report:
    """Make every check of the areas."""
    return Report(
        tuple(
            Outcome(area.name, check, check.judge(evidence))
            for area in areas
            for check in area.checks
        )
    )
