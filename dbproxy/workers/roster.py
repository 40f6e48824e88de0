"""Who serves, who is to be replaced and when, and when to give up: decided without I/O.

A place is one of the N that are to be filled. Whoever fills it has a number that nobody gets again,
so that logs stay clear when a worker is replaced.

    how it ended      while opening   while serving                     while stopping
    as it was asked   replace         replace                           rest
    crashed           give up         replace, tell                     rest, tell
    made a mistake    give up         replace, tell; give up when no    rest
                                      other worker serves or begins

Opening is the time until a first worker is ready. Then somebody watches whether dbproxy starts, and
gets one error. Later, a worker that cannot begin, because a certificate has expired or a file is
being written, must not end those that serve well. When none does, clients would wait for nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto, unique
from itertools import count
from typing import Final

from dbproxy.backoff import Backoff
from dbproxy.errors import DBProxyError

__all__ = ["End", "How", "Roster", "Verdict", "replacement_backoff"]

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 10.0
"""Seconds. A single crash should be over before a client gives up; a worker that crashes at once,
again and again, takes a large part of a second of processor time to start."""


def replacement_backoff() -> Backoff:
    """The pauses before the workers that take one place after the other."""
    return Backoff(FIRST_PAUSE, LONGEST_PAUSE)


@unique
class How(Enum):
    """How a worker ended."""

    ASKED = auto()
    """By itself, with its work done: somebody sent a signal to it alone, or we stop."""
    CRASHED = auto()
    """By a bug, a lack of memory, a `kill -9`."""
    MISTAKEN = auto()
    """Before it was ready, with an error that the operator can put right."""


@dataclass(frozen=True, slots=True)
class End:
    """The end of a worker.

    Attributes:
        how: How it ended.
        problem: What there is to tell; None only when it was asked.
    """

    how: How
    problem: DBProxyError | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do about an end.

    Attributes:
        pause: Seconds until another worker takes the place; None if none does.
        told: What to publish.
        fatal: What to end with, all of us.
    """

    pause: float | None = None
    told: DBProxyError | None = None
    fatal: DBProxyError | None = None


@unique
class _Place(Enum):
    EMPTY = auto()
    BEGINNING = auto()
    SERVING = auto()


@dataclass(slots=True)
class _Filled:
    backoff: Backoff
    state: _Place = _Place.EMPTY
    since: float = 0.0


@dataclass(slots=True)
class Roster:
    """The places, and who fills them.

    Args:
        size: How many places there are.
        make_backoff: Makes the pauses of a place.
    """

    size: int
    make_backoff: Callable[[], Backoff] = replacement_backoff
    _stopping: bool = field(default=False, init=False)
    _opened: bool = field(default=False, init=False)
    _numbers: "count[int]" = field(default_factory=lambda: count(1), init=False)
    _places: list[_Filled] = field(init=False)

    def __post_init__(self) -> None:
        self._places = [_Filled(self.make_backoff()) for _ in range(self.size)]

    def begins(self, place: int, now: float) -> int | None:
        """A worker is about to be started; returns its number, or None if it must not be."""
        if self._stopping:
            return None
        filled = self._places[place]
        filled.state, filled.since = _Place.BEGINNING, now
        return next(self._numbers)

    def ready(self, place: int) -> None:
        """The worker of this place serves."""
        self._places[place].state = _Place.SERVING
        self._opened = True

    def ended(self, place: int, end: End, now: float) -> Verdict:
        """The worker of this place has ended, or could not be started."""
        filled = self._places[place]
        filled.state = _Place.EMPTY
        if self._stopping:
            return Verdict(told=end.problem if end.how is How.CRASHED else None)
        if end.how is not How.ASKED and self._is_hopeless(end.how):
            self._stopping = True
            return Verdict(fatal=end.problem)
        filled.backoff.worked_for(now - filled.since)
        return Verdict(pause=filled.backoff.next(), told=end.problem)

    def stop(self) -> None:
        """Replace nobody from now on."""
        self._stopping = True

    def _is_hopeless(self, how: How) -> bool:
        if not self._opened:
            return True
        return how is How.MISTAKEN and all(place.state is _Place.EMPTY for place in self._places)
