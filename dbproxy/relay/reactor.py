"""Many sockets in one task: an edge-triggered epoll inside of trio's own loop.

Problem: with a task for each direction, a small message costs two system calls of trio's to
register and unregister the socket, and a task switch; that is more than all the work on the message
itself.

Choice: sockets are registered once, edge-triggered, with an epoll of our own. One task waits for
that epoll's descriptor, which is readable when any of the sockets has an event, and then gives each
connection with something to do one turn after the other. A turn is bounded, so that a bulk stream
starves nobody, and so is the time until other tasks of trio's get theirs.

A turn must not wait and must not raise. What one leaves undone it asks another turn for.

Sending wakes whoever waits for the bytes, who may then be given the processor that we are on. So of
several events at once all are read first, and the small messages among what was read are sent
together. In `scripts/bench`, round trips of 64 bytes on 32 connections: 26.4 µs of processor time
for each when each was sent at once, 24.5 so.

Waking a task of trio's costs more than a small message does. So when there was something to do just
now, the reactor lingers: it waits for the next events itself, and gives turns, for some
milliseconds. (Not for one: so short a timer is the next thing that the system has to do, and
setting it up costs a virtual machine more than the wait.) Others would be late by that, so it
lingers only while there are none: no client that is being let in or dialled for, no other reactor,
and no task of anybody else's in the same loop. A client that arrives meanwhile ends it. Only who
has called `trio.run` knows about tasks of others, and says so with `own_the_loop`: where dbproxy is
a library, the client itself may be such a task, and each query would be late.

Tested in `tests/unit/relay/test_engines.py`.
"""

import select
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import ClassVar, Final, NoReturn, TypeAlias

import trio

from dbproxy.relay.ends import Buffers, End
from dbproxy.relay.spinning import MOMENT, Spinning

__all__ = [
    "GONE_EVENTS",
    "LAST_EVENTS",
    "READ_EVENTS",
    "WRITE_EVENTS",
    "Reactor",
    "Turn",
    "Watcher",
    "own_the_loop",
]

SLICE: Final = 0.001
"""Seconds after which trio's other tasks get their turn: it is what they may be late by."""
LINGER: Final = 0.004
"""Seconds to wait for the next event before trio is asked to; epoll counts in milliseconds."""
LONGEST: Final = 0.008
"""Seconds that lingering lasts while events keep coming: timers and signals may be late by that."""
_MOST_EVENTS: Final = 64
"""Told one after the other, and each may carry a large batch: others wait that long."""
OWN_LOOP: Final = trio.lowlevel.RunVar("whether only dbproxy runs in trio's loop", default=False)
"""Kept by each run of trio's, since a process may have several."""

# Bits of `struct epoll_event` (Linux, include/uapi/linux/eventpoll.h), written out because other
# systems, which import this as well, have no names for them.
_EPOLLIN, _EPOLLPRI, _EPOLLOUT, _EPOLLERR, _EPOLLHUP = 0x1, 0x2, 0x4, 0x8, 0x10
_EPOLLRDHUP, _EPOLLET = 0x2000, 0x8000_0000

WRITE_EVENTS: Final = _EPOLLOUT
GONE_EVENTS: Final = _EPOLLERR
"""The peer is not there any more; it may have sent something before. A Unix socket that was closed
says EPOLLHUP, but that is an end as good as TCP's: what it has sent may still be on its way."""
LAST_EVENTS: Final = _EPOLLRDHUP | _EPOLLHUP | GONE_EVENTS | _EPOLLPRI
"""There may be more than one read gives, and no other event for it: the end, or what lies behind
a mark of urgent data (tcp(7))."""
READ_EVENTS: Final = _EPOLLIN | LAST_EVENTS
_ALL_EVENTS: Final = READ_EVENTS | WRITE_EVENTS | _EPOLLET

_Epoll: TypeAlias = "select.epoll"
_Events: TypeAlias = list[tuple[int, int]]

Watcher: TypeAlias = Callable[[int], None]
"""Is told what happens to a socket (`EPOLLIN` and so on), and does a piece of the work at once.

It must not wait and must not raise, and asks for a turn for what is left to do."""

Turn: TypeAlias = Callable[[], bool]
"""Does a piece of work, without waiting or raising; returns whether there is more to do."""


def own_the_loop() -> None:
    """Say that nothing but dbproxy runs in trio's loop; call it inside, before a reactor runs."""
    OWN_LOOP.set(True)


class Reactor:
    """Gives turns to connections whose sockets are ready.

    Attributes:
        buffers: What the connections share.
        is_alone: Whether nobody but the watched sockets waits for anything that matters.
    """

    running: ClassVar[int] = 0
    """How many reactors run in this process."""

    def __init__(self) -> None:
        self.buffers = Buffers()
        self.is_alone: Callable[[], bool] = _never
        self._epoll: _Epoll | None = None
        self._watchers: dict[int, Watcher] = {}
        self._turns: deque[Turn] = deque()
        self._doors: list[trio.socket.SocketType] = []
        self._others_wait = False
        self._spinning = Spinning()
        self._waited_until = 0.0

    def watch(self, descriptor: int, watcher: Watcher) -> None:
        """Tell `watcher` about the socket from now on; its present state is told as well."""
        self._opened().register(descriptor, _ALL_EVENTS)
        self._watchers[descriptor] = watcher

    def forget(self, descriptor: int) -> None:
        """Tell nobody about the socket any more; it must still be open."""
        if self._watchers.pop(descriptor, None) is not None:
            self._opened().unregister(descriptor)
            self._others_wait = True  # whose connection it was may have to be told

    def ask(self, turn: Turn) -> None:
        """Give `turn` a turn soon; the caller sees to it that it waits for one turn at most."""
        self._turns.append(turn)

    def look_again(self, descriptor: int) -> None:
        """Tell a watched socket's state once more, and so wake the reactor for what was asked."""
        self._opened().modify(descriptor, _ALL_EVENTS)

    def look_out_for_clients(self, listener: trio.socket.SocketType) -> None:
        """Do not linger when a client arrives at `listener`; it may be closed at any time."""
        self._doors.append(listener)

    async def run(self) -> NoReturn:
        """Give turns until cancelled."""
        epoll = self._opened()
        may_linger = OWN_LOOP.get()
        Reactor.running += 1
        try:
            while True:
                noted = self._note_events(epoll)
                if (noted or self._turns) and may_linger and self._may_linger():
                    if await self._linger(epoll):
                        continue
                elif self._turns:
                    await self._work(epoll)
                    continue
                await trio.lowlevel.wait_readable(epoll.fileno())
        finally:
            Reactor.running -= 1
            self._watchers.clear()  # who is stopped together with us has nothing to forget any more
            epoll.close()

    async def _linger(self, epoll: _Epoll) -> bool:
        """Go on without trio while there is something to do; returns whether there still is."""
        until = perf_counter() + LONGEST
        doors = [door.fileno() for door in self._doors if door.fileno() >= 0]
        for door in doors:
            epoll.register(door, _EPOLLIN)
        self._others_wait = False
        busy = True
        while busy and not self._others_wait and perf_counter() < until:
            if self._turns:
                self._give_turns(until)
                busy = self._note_events(epoll) or bool(self._turns)
            else:
                busy = self._tell(self._wait_for_events(epoll))
        for door in doors:
            epoll.unregister(door)
        await trio.lowlevel.checkpoint()
        return busy

    def _may_linger(self) -> bool:
        return bool(self._watchers) and Reactor.running == 1 and self.is_alone()

    def _wait_for_events(self, epoll: _Epoll) -> _Events:
        """The next events; none when there are none for as long as it lingers."""
        began = perf_counter()
        events: _Events = []
        if self._spinning.pays:
            while not events and perf_counter() - began < MOMENT:
                events = epoll.poll(0, _MOST_EVENTS)
        if not events:
            events = epoll.poll(LINGER, _MOST_EVENTS)
        ended = perf_counter()
        self._spinning.note(began - self._waited_until, ended - began, len(events))
        self._waited_until = ended
        return events

    @property
    def watched(self) -> int:
        """How many sockets are watched."""
        return len(self._watchers)

    def _opened(self) -> _Epoll:
        if self._epoll is None:
            self._epoll = select.epoll()
        return self._epoll

    async def _work(self, epoll: _Epoll) -> None:
        """Give turns, with a look for new events between one round and the next, for a while."""
        until = perf_counter() + SLICE
        while self._turns and perf_counter() < until:
            self._give_turns(until)
            self._note_events(epoll)
        await trio.lowlevel.checkpoint()

    def _give_turns(self, until: float) -> None:
        """One to each who has asked for it, as long as there is time; the others are the next."""
        turns = self._turns
        for _ in range(len(turns)):
            turn = turns.popleft()
            if turn():
                turns.append(turn)
            if perf_counter() >= until:
                return

    def _note_events(self, epoll: _Epoll) -> bool:
        """Tell the watchers what there is; returns whether there was anything to tell."""
        return self._tell(epoll.poll(0, _MOST_EVENTS))

    def _tell(self, events: _Events) -> bool:
        watchers = self._watchers
        if len(events) > 1:
            self.buffers.late = []
        for descriptor, what in events:
            watcher = watchers.get(descriptor)
            if watcher is not None:
                watcher(what)
            else:
                self._others_wait = True  # or a socket has just been forgotten
        if self.buffers.late is not None:
            self._send_late(self.buffers.late)
        return bool(events)

    def _send_late(self, late: Sequence[End]) -> None:
        self.buffers.late = None
        for end in late:
            if not end.send_late() and (watcher := self._watchers.get(end.descriptor)) is not None:
                watcher(WRITE_EVENTS)  # finds out what went wrong


def _never() -> bool:
    return False
