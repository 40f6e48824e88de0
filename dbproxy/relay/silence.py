"""When an upstream that sends pings has been silent for too long.

Teleport sends a ping every 30 seconds unless the cluster is set up otherwise, on the clock and
whatever else it sends, and the client is not told how often. So the interval is what lies between
two pings; the first comes one interval after the handshake (Teleport, rfd/0081-tls-ping.md). A peer
from which not a byte has come for three intervals is gone, or something on the way is.

What is measured can be too short, when a ping was held up on its way, and too long, when nobody
read: while a client does not take what comes, the pings wait behind it, or the server has to leave
some out. So the longest of the latest few gaps counts, and one bad gap is forgotten after a while.
Where many pings have waited, behind the answer for a slow client or in a network that was cut, they
come shortly after one another, and then all gaps are too short. But no ping comes before it is due:
since the handshake, as many intervals as pings have gone by at least. Less than that is never
concluded, and never less than a second: nobody needs to know sooner, and a peer that sends pings
without a pause is not one that is looked after a million times a second.

A server that has never sent a ping promises nothing, so nothing is concluded from its silence.
"""

from collections.abc import Callable
from math import inf
from typing import Final, Protocol

import trio

__all__ = ["PingWatch", "SilenceError"]

MISSED_PINGS: Final = 3
"""Intervals without a byte: one ping can be late, and the interval is measured, not known."""
LEAST_PATIENCE: Final = 1.0
"""Seconds that silence lasts at least before anything is concluded from it."""
_REMEMBERED: Final = 3
"""Gaps that count: one that a held-up ping has shortened has a longer one beside it."""


class SilenceError(trio.BrokenResourceError):
    """The peer had promised to send something now and then, and has not.

    Attributes:
        limit: Seconds without a byte.
    """

    def __init__(self, limit: float) -> None:
        super().__init__(f"not a byte came for {limit:.1f} s")
        self.limit = limit


class _CountsPings(Protocol):
    pings_received: int


class PingWatch:
    """Says how long to wait for the next byte.

    Made when the handshake is done; asked before each wait.

    Args:
        ping: Counts the pings.
        clock: Seconds of a clock that never jumps.
    """

    __slots__ = ("_clock", "_gaps", "_latest", "_least", "_limit", "_ping", "_seen", "_start")

    def __init__(self, ping: _CountsPings, clock: Callable[[], float]) -> None:
        self._ping = ping
        self._clock = clock
        self._seen = 0
        self._start = self._latest = clock()
        self._least = inf
        self._gaps: tuple[float, ...] = ()
        self._limit = inf

    def __call__(self) -> float:
        """Seconds to wait for the next byte; infinite before the first ping."""
        if self._ping.pings_received != self._seen:
            self._note_pings()
        return self._limit

    def _note_pings(self) -> None:
        now, count = self._clock(), self._ping.pings_received
        # Pings that come together have waited together, one interval after the other.
        gap = (now - self._latest) / (count - self._seen)
        self._gaps = (*self._gaps, gap)[-_REMEMBERED:]
        self._least = min(self._least, (now - self._start) / count)
        self._latest, self._seen = now, count
        interval = max(self._least, *self._gaps)
        self._limit = max(MISSED_PINGS * interval, LEAST_PATIENCE) if interval else inf
