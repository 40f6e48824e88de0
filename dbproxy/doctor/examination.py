"""Making every check, and what comes out of it."""

from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from dbproxy.doctor.evidence import Evidence
from dbproxy.doctor.finding import Check, Finding, Verdict
from dbproxy.doctor.identity_checks import IDENTITY_CHECKS
from dbproxy.doctor.upstream_checks import UPSTREAM_CHECKS
from dbproxy.doctor.upstream_evidence import UpstreamEvidence

__all__ = ["IDENTITY", "UPSTREAM", "Area", "Outcome", "Report", "examine", "outcomes_of"]


Seen = TypeVar("Seen")


@dataclass(frozen=True, slots=True)
class Area(Generic[Seen]):
    """Checks that belong together.

    Attributes:
        name: Stable.
        checks: In the order in which they are made and told.
    """

    name: str
    checks: tuple[Check[Seen], ...]


IDENTITY: Final = Area("identity", IDENTITY_CHECKS)
UPSTREAM: Final = Area("upstream", UPSTREAM_CHECKS)
"""The registry: a new check goes into the tuple of its area."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check that was made.

    Attributes:
        area: The area's name.
        check: What was looked at.
        finding: What was found.
    """

    area: str
    check: Check[Any]
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


def examine(evidence: Evidence, upstream: UpstreamEvidence | None = None) -> Report:
    """Make every check: of the identity, and of the way to Teleport if that was looked at."""
    outcomes = outcomes_of(IDENTITY, evidence)
    if upstream is not None:
        outcomes += outcomes_of(UPSTREAM, upstream)
    return Report(outcomes)


def outcomes_of(area: Area[Seen], seen: Seen) -> tuple[Outcome, ...]:
    """Make every check of an area."""
    return tuple(Outcome(area.name, check, check.judge(seen)) for check in area.checks)
