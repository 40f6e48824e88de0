"""Accepting connections, also while file descriptors are short.

Who has accepted a client serves it, at once, and leaves the listener to a new task. So a client
waits neither for a task of its own to begin nor for the listener to be looked at again.

Problem: a burst of clients can use up the process's descriptors. The listener then stays readable
although `accept` fails, so a plain loop spins; and `trio.serve_listeners`, which waits in between,
writes a traceback ten times a second through the standard library's logging, past our log and its
format. Choice: the same wait, but the shortage is one of our events, and once a minute is enough.
Nothing is lost: Linux looks for a descriptor before it takes a connection out of the queue
(accept(2)), so those who wait are served as soon as others have gone.
"""

import errno
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import trio

from dbproxy.downstream.listener import BACKLOG, CLIENTS_FAULTS
from dbproxy.errors import PROBLEMS, Code
from dbproxy.events import AcceptFailed, Event
from dbproxy.relay.keepalive import INHERITED, keep_alive

__all__ = ["Acceptor", "Arrivals"]

_SHORTAGES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_PAUSE: Final = 0.1
"""Seconds between attempts while there is a shortage."""
_QUIET: Final = 60.0
"""Seconds between events about it."""

Handler = Callable[[trio.SocketStream], Awaitable[None]]


class Arrivals(Protocol):
    """Where clients arrive, as `dbproxy.downstream.listener.Listener` tells."""

    async def accept(self) -> trio.SocketStream:
        """The next client."""

    def accept_nowait(self) -> trio.SocketStream | None:
        """A client who has arrived already."""


class Acceptor:
    """Accepts until the listener is closed, and serves each connection in a task of its own.

    Connections are kept alive (`keep_alive`), as their listener is where they inherit that.

    Args:
        listener: Where clients arrive.
        handler: Serves one connection.
        nursery: Owns the tasks.
        publish: Gets an `AcceptFailed` when descriptors or memory are short, at most one a minute.
    """

    def __init__(
        self,
        listener: Arrivals,
        handler: Handler,
        nursery: trio.Nursery,
        publish: Callable[[Event], None],
    ) -> None:
        self._listener = listener
        self._handler = handler
        self._nursery = nursery
        self._publish = publish
        self._quiet_until = float("-inf")

    def start(self) -> None:
        """Have the next client accepted, and those who come after it."""
        self._nursery.start_soon(self._accept_and_serve)

    def take_arrived(self) -> int:
        """Serve all who have arrived by now, just before the listener is closed; how many they are.

        To them it seems as if they were connected already, so closing would break that off.
        """
        taken = 0
        for _ in range(BACKLOG):
            try:
                connection = self._listener.accept_nowait()
            except OSError as error:
                if error.errno in CLIENTS_FAULTS:
                    continue
                break  # who cannot be taken is reset, as who comes later
            if connection is None:
                break
            self._nursery.start_soon(self._serve, connection)
            taken += 1
        return taken

    async def _accept_and_serve(self) -> None:
        """The life of a task: until a client comes, and until it has gone.

        Raises:
            OSError: The listener itself fails, in a way that waiting does not mend.
        """
        try:
            connection = await self._accept()
        except trio.ClosedResourceError:
            return  # nobody is to be accepted any more
        self.start()
        await self._serve(connection)

    async def _serve(self, connection: trio.SocketStream) -> None:
        try:
            if not INHERITED:
                keep_alive(connection.socket)
            await self._handler(connection)
        finally:
            connection.socket.close()

    async def _accept(self) -> trio.SocketStream:
        while True:
            try:
                return await self._listener.accept()
            except OSError as error:
                if error.errno not in _SHORTAGES:
                    raise
                self._note_shortage(error)
            await trio.sleep(_PAUSE)

    def _note_shortage(self, error: OSError) -> None:
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET
            self._publish(_event(error))


def _event(error: OSError) -> AcceptFailed:
    return AcceptFailed(
        code=Code.TOO_MANY_FILES,
        reason=f"cannot accept connections: {(error.strerror or str(error)).lower()}",
        next_step=PROBLEMS[Code.TOO_MANY_FILES].next_step,
    )
