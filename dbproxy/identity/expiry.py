"""When to say that tbot does not renew. No clocks, no I/O: moments go in, notices come out.

The problem: a certificate that is not renewed works until it expires, and then everything fails at
once. Whoever could have acted should have been told before, but not at every renewal that takes a
minute longer.

The choice: the first warning at the moment when tbot should have renewed and did not, the next ones
each time half of the remaining time has passed, so that they get more frequent as it gets urgent;
but no two within half a minute, which concerns certificates of minutes or less.
A machine that sleeps, or a clock that is corrected, can pass several moments at once; only the last
of them is told.
"""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

__all__ = ["ClockComparison", "Expired", "ExpirySchedule", "Overdue", "renewal_due"]

ISSUED_AFTER_BEGIN: Final = timedelta(minutes=1)
"""Teleport issues certificates that are valid from a minute before (lib/tlsca/ca.go)."""
DEFAULT_SHARE: Final = 2 / 3
"""The share of the lifetime after which a renewal is overdue, when the interval is not known. tbot
renews after a third by default (20 minutes of an hour, lib/tbot/config), so two have failed."""
SLACK_SHARE: Final = 0.1
"""How much later than planned a renewal may be: it takes time, and tbot retries."""
SHORTEST_SLACK: Final = timedelta(seconds=10)
MOST_WARNINGS: Final = 6
"""How often the remaining time is halved: the last warning comes when about 3 % of it are left."""
SHORTEST_SPACING: Final = timedelta(seconds=30)
"""Between a warning and the next one, and the end: nobody can do anything about it in less."""
SMALLEST_JUMP: Final = 1.0
"""Seconds by which two clocks may drift apart between two looks; NTP slews far more slowly."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """tbot should have renewed by now, and has not.

    Attributes:
        due: When it should have.
        remaining: How long the certificate is still valid.
    """

    due: datetime
    remaining: timedelta


@dataclass(frozen=True, slots=True)
class Expired:
    """The certificate's time is over."""


def renewal_due(
    not_before: datetime, not_after: datetime, renewal_interval: timedelta | None = None
) -> datetime:
    """The moment at which a missing renewal is worth a warning.

    Args:
        not_before: The first moment of the certificate's validity.
        not_after: The last one.
        renewal_interval: How often tbot renews, if that is known.

    Returns:
        A little after the renewal's time, if the interval is known and shorter than the
        certificate's lifetime; else two thirds of the lifetime after the issue.
    """
    issued = min(not_before + ISSUED_AFTER_BEGIN, not_after)
    lifetime = not_after - issued
    if renewal_interval is None or not timedelta() < renewal_interval < lifetime:
        return issued + lifetime * DEFAULT_SHARE
    slack = max(renewal_interval * SLACK_SHARE, SHORTEST_SLACK)
    return issued + renewal_interval + min(slack, (lifetime - renewal_interval) / 4)


class ExpirySchedule:
    """The warnings about one certificate.

    Args:
        not_before: The first moment of its validity.
        not_after: The last one.
        renewal_interval: How often tbot renews, if that is known.
    """

    def __init__(
        self,
        not_before: datetime,
        not_after: datetime,
        renewal_interval: timedelta | None = None,
    ) -> None:
        self.due = renewal_due(not_before, not_after, renewal_interval)
        self._not_after = not_after
        self._moments = (*_warnings(self.due, not_after), not_after + timedelta(microseconds=1))
        self._passed = 0

    def poll(self, now: datetime) -> Overdue | Expired | None:
        """What there is to say at `now` that has not been said.

        Moments that a clock set back makes come again are told again.
        """
        before, self._passed = self._passed, bisect_right(self._moments, now)
        if self._passed <= before:
            return None
        if self._passed == len(self._moments):
            return Expired()
        return Overdue(self.due, self._not_after - now)

    def until_next(self, now: datetime) -> timedelta | None:
        """How long after `now` there may be something to say; `None` when all has been said."""
        position = bisect_right(self._moments, now)
        return self._moments[position] - now if position < len(self._moments) else None


def _warnings(due: datetime, end: datetime) -> list[datetime]:
    """The first one in any case."""
    halves = ((end - due) / 2**halvings for halvings in range(1, MOST_WARNINGS))
    return [due, *(end - half for half in halves if half >= SHORTEST_SPACING)]


class ClockComparison:
    """Tells when the system's clock jumps: after a suspend, or when it is corrected.

    Args:
        wall: The system's clock, in seconds since the epoch.
        monotonic: A clock that never jumps, in seconds since any moment, read at the same time.
    """

    def __init__(self, wall: float, monotonic: float) -> None:
        self._offset = wall - monotonic

    def jump(self, wall: float, monotonic: float) -> float | None:
        """Seconds that the system's clock has gained on the other since the last call.

        Returns:
            Less than 0 when it was set back; `None` when it did not jump.
        """
        gained = wall - monotonic - self._offset
        self._offset += gained
        return gained if abs(gained) >= SMALLEST_JUMP else None
