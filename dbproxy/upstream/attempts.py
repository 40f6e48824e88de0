"""Whether to try again after a failure, and when. No clocks, no I/O: failures go in, pauses out.

The problem: Teleport Proxies are restarted and upgraded one after another, load balancers change
their minds, certificates are replaced. Clients that arrive meanwhile would fail, although a moment
later all is well. But a client that waits must be told in the end, and in time.

The choice: what may pass by itself is tried again with growing pauses until a grace is over; what
may have been an accident, once; what needs a newer identity, once there is one; what stays wrong,
never. An accident does not use up the attempt with the newer identity, nor the other way round: a
Teleport Proxy that restarts may come back with another opinion of the certificate.
"""

from dataclasses import dataclass
from typing import Final

from dbproxy.backoff import Backoff
from dbproxy.errors import Prospect

__all__ = ["Attempts", "Retry"]

FIRST_PAUSE: Final = 0.1
"""Seconds, before its cut: the next address or process may be there already."""
LONGEST_PAUSE: Final = 1.0
"""Seconds: a client should not wait much longer than the upstream is away."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again.

    Attributes:
        pause: Seconds to wait before; with `renewed`, to wait for a newer identity at most.
        renewed: Only if there is a newer identity by then.
    """

    pause: float
    renewed: bool = False


class Attempts:
    """The attempts for one client.

    Args:
        grace: Seconds in which attempts may begin.
        now: The time, in seconds of a clock that never jumps.
        backoff: The pauses.
    """

    __slots__ = ("_backoff", "_chances_used", "_deadline", "made")

    def __init__(self, grace: float, now: float, backoff: Backoff | None = None) -> None:
        self._deadline = now + grace
        self._backoff = backoff
        self._chances_used: frozenset[Prospect] = frozenset()
        self.made = 1

    def after(self, prospect: Prospect, now: float) -> Retry | None:
        """What to do after a failure at `now`; `None`: give up."""
        retry = self._consider(prospect, max(0.0, self._deadline - now))
        self.made += retry is not None
        return retry

    def afresh(self) -> Retry:
        """What to do when a connection failed that had been ready before the client came.

        That says little about the upstream as it is now, so the next attempt is due at once, grace
        or not, and no chance is used up.
        """
        self.made += 1
        return Retry(0)

    def _consider(self, prospect: Prospect, left: float) -> Retry | None:
        if prospect is Prospect.NONE or not left:
            return None
        if prospect is Prospect.SOON:
            # It is away: what looked like an accident was its going, and its next one is another.
            self._chances_used -= {Prospect.ONCE}
            # The last attempt is at the end of the grace: the upstream may be back just then.
            return Retry(min(self._pause(), left))
        if prospect in self._chances_used:
            return None
        self._chances_used |= {prospect}
        if prospect is Prospect.RENEWED:
            return Retry(left, renewed=True)
        return Retry(min(self._pause(), left))

    def _pause(self) -> float:
        if self._backoff is None:  # most clients need none
            self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        return self._backoff.next()
