"""Waiting on behalf of a client, unless it leaves.

A client that leaves while it waits ends the wait: nobody needs the next attempt. Only pauses are
watched, and whoever has to wait for discovery, or its turn, before it is dialled for: a queue of
clients that are gone would grow for as long as the upstream stalls, and hold up those that are
still there. Any other attempt under way has its own limits, and a watch over each would cost every
connection a task for the sake of the few that leave just then.

Leaving is ending one's direction: TCP does not tell a client that is gone from one that only has
nothing more to say. No database client ends its direction before it was answered, but if one does,
it is told why at once. A cancel request's does so, and is not watched.

Tested in `tests/unit/downstream/test_bridge.py`.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from dbproxy.downstream.client import Client, ClientGone
from dbproxy.errors import Code, DBProxyError, UpstreamError
from dbproxy.upstream import UpstreamConnection

__all__ = ["dial_for_who_stays", "wait_unless"]

_LEFT_THE_QUEUE: Final = (
    "the client left while it waited for its turn: the Teleport Proxy was being asked where to"
    " dial, or as many connections to it as --max-handshakes allows were being set up"
)


async def wait_unless(
    ends: Sequence[Callable[[], Awaitable[object]]], wait: Callable[[], Awaitable[object]]
) -> None:
    """Wait for `wait`, or until one of `ends` has come."""
    async with trio.open_nursery() as nursery:
        for come in ends:
            nursery.start_soon(_end_when, come, nursery.cancel_scope)
        await wait()
        nursery.cancel_scope.cancel()


async def _end_when(come: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
    await come()
    scope.cancel()


async def dial_for_who_stays(
    client: Client, dial: Callable[[], Awaitable[UpstreamConnection]]
) -> UpstreamConnection:
    """Dial, unless the client leaves first.

    Cancelled or failed, it leaves no socket behind.

    Raises:
        DBProxyError: As `dial` does.
        ClientGone: The client has left.
    """
    upstream: UpstreamConnection | None = None
    failure: DBProxyError | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_when, client.wait_until_left, nursery.cancel_scope)
            try:
                upstream = await dial()
            except DBProxyError as error:  # kept out of the nursery's exception group
                failure = error
            nursery.cancel_scope.cancel()
    except BaseException:
        if upstream is not None:
            await upstream.stream.abandon()
        raise
    if failure is not None:
        raise failure
    if upstream is None:
        untold = UpstreamError(Code.UPSTREAM_UNREACHABLE, _LEFT_THE_QUEUE)
        raise ClientGone(_LEFT_THE_QUEUE, untold.code, untold=untold)
    return upstream
