"""A listener whose clients are counted from the moment that they leave its queue.

Problem: `trio.SocketListener.accept` may give the turn away after it has taken a client out of the
queue. In between that client is nowhere: neither does the listening socket tell of it, nor has
anybody begun to serve it; so the reactor, which waits without trio while there is nobody to be let
in (`dbproxy.relay.reactor`), could let it wait.

Choice: accepting either waits or takes a client, and never both at once.

Tested in `tests/unit/downstream/test_listener.py`.
"""

import errno
import socket
from typing import Final

import trio

__all__ = ["BACKLOG", "CLIENTS_FAULTS", "Listener"]

BACKLOG: Final = 1024
"""How many clients may wait to be accepted."""

CLIENTS_FAULTS: Final = {
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "ECONNRESET",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENETDOWN",
        "ENETUNREACH",
        "ENONET",
        "ENOPROTOOPT",
        "EOPNOTSUPP",
        "EPERM",
        "EPROTO",
        "ETIMEDOUT",
    )
    if hasattr(errno, name)
}
"""What `accept` says of a connection that failed in the queue, or that a firewall forbids: the next
one may be fine (accept(2), "Error handling")."""


class Listener(trio.abc.Listener[trio.SocketStream]):
    """Accepts from a socket that listens already, and owns it.

    Args:
        plain: The socket.

    Attributes:
        socket: The same, as trio has it.
    """

    def __init__(self, plain: socket.socket) -> None:
        plain.setblocking(False)
        self._plain = plain
        self.socket = trio.socket.from_stdlib_socket(plain)

    async def accept(self) -> trio.SocketStream:
        """The next client. Waits when there is none, and only then gives the turn away.

        Cancelled, it has taken nobody out of the queue. Connections that failed in the queue are
        passed over.

        Raises:
            trio.ClosedResourceError: It is closed.
            OSError: Accepting failed.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if self._plain.fileno() < 0:
                raise trio.ClosedResourceError("this listener was closed")
            try:
                if (accepted := self.accept_nowait()) is not None:
                    return accepted
                await trio.lowlevel.wait_readable(self._plain)
            except OSError as error:
                if error.errno not in CLIENTS_FAULTS:
                    raise
                await trio.lowlevel.checkpoint()  # what forbids all connections keeps nobody out

    def accept_nowait(self) -> trio.SocketStream | None:
        """A client who has arrived already; None when there is none.

        Raises:
            OSError: Accepting failed, or the connection of this client did in the queue.
        """
        try:
            accepted, _name = self._plain.accept()
        except BlockingIOError:
            return None
        return trio.SocketStream(trio.socket.from_stdlib_socket(accepted))

    async def aclose(self) -> None:
        """Close it; whoever waits in `accept` is told."""
        self.socket.close()
        await trio.lowlevel.checkpoint()
