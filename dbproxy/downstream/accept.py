"""Accepting connections, also while file descriptors are short.

Problem: a burst of clients can use up the process's descriptors. The listener then stays readable
although `accept` fails, so a plain loop spins; and `trio.serve_listeners`, which waits in between,
writes a traceback ten times a second through the standard library's logging, past our log and its
format. Choice: the same wait, but the shortage is one of our events, and once a minute is enough.
Nothing is lost: Linux looks for a descriptor before it takes a connection out of the queue
(accept(2)), so those who wait are served as soon as others have gone.
"""

import errno
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import trio

from dbproxy.errors import PROBLEMS, Code
from dbproxy.events import AcceptFailed, Event
from dbproxy.relay.keepalive import INHERITED, keep_alive

__all__ = ["accept_connections"]

_SHORTAGES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_PAUSE: Final = 0.1
"""Seconds between attempts while there is a shortage."""
_QUIET: Final = 60.0
"""Seconds between events about it."""

Handler = Callable[[trio.SocketStream], Awaitable[None]]


async def accept_connections(
    listener: trio.abc.Listener[trio.SocketStream],
    handler: Handler,
    nursery: trio.Nursery,
    publish: Callable[[Event], None],
) -> NoReturn:
    """Accept until cancelled, and start `handler` for each connection in `nursery`.

    Connections are kept alive (`keep_alive`), as their listener is where they inherit that.

    Cancelling it leaves the listener open and the handlers running. A connection is closed when
    its handler ends. Connections that were reset in the queue (ECONNABORTED and its like) are
    passed over by trio's listener.

    Args:
        listener: Where clients arrive.
        handler: Serves one connection.
        nursery: Owns the handlers.
        publish: Gets an `AcceptFailed` when descriptors or memory are short, at most one a minute.

    Raises:
        OSError: The listener itself fails, in a way that waiting does not mend.
        trio.ClosedResourceError: The listener was closed.
    """
    quiet_until = float("-inf")
    while True:
        try:
            connection = await listener.accept()
        except OSError as error:
            if error.errno not in _SHORTAGES:
                raise
            if trio.current_time() >= quiet_until:
                quiet_until = trio.current_time() + _QUIET
                publish(_event(error))
            await trio.sleep(_PAUSE)
        else:
            nursery.start_soon(_serve, handler, connection)


async def _serve(handler: Handler, connection: trio.SocketStream) -> None:
    try:
        if not INHERITED:
            keep_alive(connection.socket)
        await handler(connection)
    finally:
        connection.socket.close()


def _event(error: OSError) -> AcceptFailed:
    return AcceptFailed(
        code=Code.TOO_MANY_FILES,
        reason=f"cannot accept connections: {(error.strerror or str(error)).lower()}",
        next_step=PROBLEMS[Code.TOO_MANY_FILES].next_step,
    )
