"""Carry bytes both ways between two streams until both directions have ended."""

from __future__ import annotations

from collections.abc import Callable

import trio

from dbproxy.lab.streams import READ_SIZE

Count = Callable[[int], None]


async def relay(
    client: trio.abc.HalfCloseableStream,
    server: trio.abc.HalfCloseableStream,
    *,
    count_from_client: Count,
    count_to_client: Count,
) -> None:
    """Copies both ways with half-close and backpressure; returns when both directions ended.

    When either stream breaks, both directions end at once. Neither stream is closed here: that is
    their owner's business, also when this is cancelled.

    Args:
        client: one stream.
        server: the other.
        count_from_client: called with the size of every piece the server took.
        count_to_client: called with the size of every piece the client took.
    """
    async with trio.open_nursery() as nursery:
        scope = nursery.cancel_scope
        nursery.start_soon(_copy, client, server, count_from_client, scope)
        nursery.start_soon(_copy, server, client, count_to_client, scope)


async def _copy(
    source: trio.abc.ReceiveStream,
    sink: trio.abc.HalfCloseableStream,
    count: Count,
    scope: trio.CancelScope,
) -> None:
    try:
        while data := await source.receive_some(READ_SIZE):
            await sink.send_all(data)
            count(len(data))
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        scope.cancel()
