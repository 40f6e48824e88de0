"""What a client has said before it was gone arrives, also when the upstream goes on speaking.

A socket that is closed over unread bytes is reset, and what is on its way is lost.
"""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from connection_bench import STARTUP, Bench, MakeBench
from lab_client import until
from stream_ends import receive_all, tcp_pair

from dbproxy.events import ClosedBy
from dbproxy.relay import RelayEngine

LAST_WORD = bytes(60_000)
LITTLE = 4096
"""A receive buffer that holds the smaller part of it."""

every_engine = pytest.mark.parametrize("fast", [False, True], ids=["trio", "reactor"])


@asynccontextmanager
async def abandoned(
    fast: bool, make_bench: MakeBench
) -> AsyncIterator[tuple[Bench, trio.SocketStream]]:
    """A handler whose client was reset behind its last word, and the database, which reads later.

    At the end of the block the handler must have ended, or end by itself.
    """
    upstream, database = tcp_pair()
    database.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LITTLE)
    near, client = tcp_pair()
    bench = make_bench(upstream)
    engine = bench.handler.bridge.relays = RelayEngine(fast=fast)
    with trio.fail_after(20):
        async with database, trio.open_nursery() as machinery:
            machinery.start_soon(engine.run)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.handler.handle, near)
                await client.send_all(STARTUP)
                assert await database.receive_some() == STARTUP
                await database.send_all(b"welcome")
                assert await client.receive_some() == b"welcome"
                await database.send_all(b"never read")
                await trio.testing.wait_all_tasks_blocked()
                await client.send_all(LAST_WORD)
                client.socket.close()
                await trio.testing.wait_all_tasks_blocked()
                yield bench, database
            assert near.socket.fileno() == upstream.socket.fileno() == -1
            machinery.cancel_scope.cancel()


@every_engine
async def test_what_it_said_arrives_although_the_upstream_goes_on_speaking(
    fast: bool, make_bench: MakeBench
) -> None:
    async with abandoned(fast, make_bench) as (bench, database):
        for _ in range(3):
            await database.send_all(b"nobody reads that")
            await trio.testing.wait_all_tasks_blocked()
        assert await receive_all(database) == LAST_WORD
        await database.send_eof()
    assert bench.record.closed_by is ClosedBy.CLIENT
    assert bench.record.bytes_up == len(STARTUP) + len(LAST_WORD)


@every_engine
async def test_an_upstream_that_never_ends_is_left_after_a_moment(
    fast: bool, make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbproxy.downstream.bridge.BUSY", 0.05)
    async with abandoned(fast, make_bench) as (bench, _database):
        await until(lambda: bench.handler.open_connections == 0)
    assert bench.record.closed_by is ClosedBy.CLIENT


@every_engine
async def test_who_is_stopped_meanwhile_leaves_nothing(fast: bool, make_bench: MakeBench) -> None:
    upstream, database = tcp_pair()
    near, client = tcp_pair()
    bench = make_bench(upstream)
    engine = bench.handler.bridge.relays = RelayEngine(fast=fast)
    async with database:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.run)
            nursery.start_soon(bench.handler.handle, near)
            await client.send_all(STARTUP)
            assert await database.receive_some() == STARTUP
            await database.send_all(b"never read")
            await trio.testing.wait_all_tasks_blocked()
            client.socket.close()
            assert await receive_all(database) == b""
            await trio.testing.wait_all_tasks_blocked()
            assert bench.handler.open_connections == 1
            nursery.cancel_scope.cancel()
        assert near.socket.fileno() == upstream.socket.fileno() == -1
    assert bench.record.outcome == "stopped"
