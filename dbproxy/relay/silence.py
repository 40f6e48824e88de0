"""When an upstream that sends pings has been silent for too long.

Teleport sends a ping every 30 seconds unless the cluster is set up otherwise, on the clock and
whatever else it sends, and the client is not told how often. So the interval is what lies between
two pings; the first comes one interval after the handshake (Teleport, rfd/0081-tls-ping.md). A peer
from which not a byte has come for three intervals is gone, or something on the way is.

A server that has never sent a ping promises nothing, so nothing is concluded from its silence.
"""

from collections.abc import Callable
from math import inf
from typing import Final, Protocol

import trio

__all__ = ["PingWatch", "SilenceError"]

MISSED_PINGS: Final = 3
"""Intervals without a byte: one ping can be late, and the interval is measured, not known."""


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

    def __init__(self, ping: _CountsPings, clock: Callable[[], float]) -> None:
        self._ping = ping
        self._clock = clock
        self._seen = 0
        self._latest = clock()
        self._interval = 0.0

    def __call__(self) -> float:
        """Seconds to wait for the next byte; infinite before the first ping."""
        if self._ping.pings_received != self._seen:
            self._note_pings()
        return MISSED_PINGS * self._interval or inf

    def _note_pings(self) -> None:
        now = self._clock()
        # The longest counts: a ping that was held up on its way shortens the gap behind it.
        self._interval = max(self._interval, now - self._latest)
        self._latest = now
        self._seen = self._ping.pings_received
