"""Whether to look for the next event again and again, or to sleep until it comes.

Problem: when a client asks, is answered and asks again, with nobody else at work, each message
finds the process asleep. Waking it costs 15 µs or more, above all on a virtual machine, whose
processor has gone to sleep as well: a third of what a small query spends in dbproxy.

Choice: look again and again for a moment, but only as long as that pays: after waits that were each
for one event, and shorter than the moment. A database that takes its time ends it at once, and
costs one moment in vain. So do many events at once, where there is nothing to wait for, and a
large batch of bytes, whose peers need the processors; and with one processor only, whoever looks
keeps others from work. Go's scheduler, under tsh and
others, looks around before it sleeps for the same reason.

Measured in `scripts/bench`, round trips of 64 bytes on one connection: 125 µs without, 87 µs with,
and 52 and 80 µs of processor time for each.

Tested in `tests/unit/relay/test_spinning.py`.
"""

import os
from typing import Final

__all__ = ["MOMENT", "Spinning"]

MOMENT: Final = 0.00008
"""Seconds to look for at most: about twice what a quick peer takes to answer."""
SHORT_WAITS: Final = 2
"""How many waits must have been short: one in each direction."""


def _processors() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Spinning:
    """Decides from the latest waits.

    Args:
        processors: How many this process may use; asked of the system by default.
    """

    def __init__(self, processors: int | None = None) -> None:
        self._possible = (processors or _processors()) > 1
        self._short = 0

    @property
    def pays(self) -> bool:
        """Whether the next event is likely to come within a moment."""
        return self._short >= SHORT_WAITS

    def note(self, worked: float, waited: float, events: int) -> None:
        """Take note of a wait.

        Args:
            worked: Seconds from the end of the wait before until this one began.
            waited: How long it was, in seconds, spinning or not.
            events: How many events ended it.
        """
        brief = self._possible and events == 1 and worked < MOMENT and waited < MOMENT
        self._short = self._short + 1 if brief else 0
