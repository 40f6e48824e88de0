"""What a client has said before it was gone arrives, also when the upstream goes on speaking.

A socket that is closed over unread bytes is reset, and what is on its way is lost.
"""

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from math import inf

import pytest
import trio
import trio.testing
from connection_bench import POSTGRES, STARTUP, Bench, MakeBench
from lab_client import until
from mysql_packets import greeting_payload, ok, packet, response_payload
from relay_bench import every_engine
from stream_ends import tcp_pair
from trio.testing import MockClock

from dbproxy.downstream.parting import part
from dbproxy.events import ClosedBy, ConnectionClosed, Event
from dbproxy.protocols import DatabaseProtocol, MySQL
from dbproxy.relay import BUSY, LayeredStream, RelayEngine

GREETING = packet(0, greeting_payload())
RESPONSE = packet(1, response_payload())
LAST_WORD = bytes(60_000)
LITTLE = 4096
"""A receive buffer that holds the smaller part of it."""


@asynccontextmanager
async def abandoned(
    fast: bool,
    make_bench: MakeBench,
    protocol: DatabaseProtocol = POSTGRES,
    *,
    room: int = LITTLE,
    publish: Callable[[Event], None] | None = None,
) -> AsyncIterator[tuple[Bench, trio.SocketStream]]:
    """A handler whose client was reset behind its last word, and the database, which reads later.

    At the end of the block the handler must have ended, or end by itself.
    """
    greeting, question, welcome = b"", STARTUP, b"welcome"
    if isinstance(protocol, MySQL):
        greeting, question, welcome = GREETING, RESPONSE, ok(2)
    upstream, database = tcp_pair()
    database.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    near, client = tcp_pair()
    bench = make_bench(upstream, protocol=protocol)
    if publish is not None:
        bench.handler.publish = publish
    engine = bench.handler.bridge.relays = RelayEngine(fast=fast)
    with trio.fail_after(20):
        async with database, trio.open_nursery() as machinery:
            machinery.start_soon(engine.run)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.handler.handle, near)
                if greeting:
                    await database.send_all(greeting)
                    assert await client.receive_some() == greeting
                await client.send_all(question)
                assert await database.receive_some() == question
                await database.send_all(welcome)
                assert await client.receive_some() == welcome
                await database.send_all(b"never read")
                await trio.testing.wait_all_tasks_blocked()
                await client.send_all(LAST_WORD)
                client.socket.close()
                await trio.testing.wait_all_tasks_blocked()
                yield bench, database
            machinery.cancel_scope.cancel()
    assert near.socket.fileno() == upstream.socket.fileno() == -1


@every_engine
@pytest.mark.parametrize("protocol", [POSTGRES, MySQL()], ids=["client first", "server first"])
async def test_what_it_said_arrives_although_the_upstream_goes_on_speaking(
    fast: bool,
    protocol: DatabaseProtocol,
    make_bench: MakeBench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dbproxy.downstream.parting._QUIET", inf)
    async with abandoned(fast, make_bench, protocol) as (bench, database):
        heard = 0
        while said := await database.receive_some(LITTLE):
            heard += len(said)
            await database.send_all(b"an answer to that")
            await trio.testing.wait_all_tasks_blocked()
        assert heard == len(LAST_WORD)
        await database.send_eof()
    assert bench.record.closed_by is ClosedBy.CLIENT
    assert bench.record.bytes_up > len(LAST_WORD)


@every_engine
async def test_an_upstream_that_answers_each_statement_carries_out_all_of_them(
    fast: bool, make_bench: MakeBench
) -> None:
    """All of them are in its buffer at once; it gives up at an answer that it cannot send."""
    async with abandoned(fast, make_bench, room=2 * len(LAST_WORD)) as (_bench, database):
        carried_out = 0
        await trio.testing.wait_all_tasks_blocked()
        while statement := await database.receive_some(1_000):
            carried_out += len(statement)
            await database.send_all(b"done")
            await trio.sleep(0.001)
        assert carried_out == len(LAST_WORD)
        await database.send_eof()


@every_engine
@pytest.mark.parametrize("talks", [False, True])
async def test_an_upstream_that_has_everything_and_does_not_end_is_left(
    fast: bool, talks: bool, make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbproxy.downstream.parting._QUIET", inf if talks else 0.05)
    async with abandoned(fast, make_bench) as (_bench, database):
        heard = 0
        while heard < len(LAST_WORD):
            heard += len(await database.receive_some())
        with suppress(trio.BrokenResourceError):
            while talks:
                await database.send_all(bytes(65536))


@pytest.mark.parametrize("takes", [True, False])
async def test_an_upstream_that_says_a_word_now_and_then_is_left_all_the_same(
    takes: bool, make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbproxy.downstream.parting.BUSY", 0.1)
    monkeypatch.setattr("dbproxy.downstream.parting._QUIET", inf)
    room = 2 * len(LAST_WORD) if takes else LITTLE
    async with abandoned(True, make_bench, room=room) as (_bench, database):
        heard = 0
        while takes and heard < len(LAST_WORD):
            heard += len(await database.receive_some())
        with suppress(trio.BrokenResourceError):
            while True:
                await database.send_all(b".")
                await trio.sleep(0.01)


@every_engine
async def test_an_upstream_that_is_gone_as_well_is_no_failure(
    fast: bool, make_bench: MakeBench
) -> None:
    async with abandoned(fast, make_bench) as (bench, database):
        database.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await database.aclose()
    assert bench.record.outcome == "relayed"


async def test_what_a_subscriber_fails_with_leaves_no_upstream_open(
    make_bench: MakeBench,
) -> None:
    def fail(event: Event) -> None:
        if isinstance(event, ConnectionClosed):
            raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with abandoned(True, make_bench, publish=fail) as (_bench, database):
            while await database.receive_some():
                pass
            await database.send_eof()


@every_engine
async def test_an_upstream_that_takes_nothing_is_left_after_a_while(
    fast: bool, make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbproxy.downstream.parting.BUSY", 0.05)
    monkeypatch.setattr("dbproxy.downstream.parting._QUIET", 0.05)
    async with abandoned(fast, make_bench):
        pass  # it ends by itself


async def test_an_upstream_that_goes_on_taking_is_given_its_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 5 * BUSY
    monkeypatch.setattr("dbproxy.downstream.parting._QUIET", 0)
    monkeypatch.setattr(
        "dbproxy.downstream.parting.bytes_on_their_way",
        lambda _transport: max(0, round(needed - trio.current_time())),
    )
    upstream, database = tcp_pair()
    async with database:
        await part(LayeredStream(upstream))
    assert needed - 1 <= trio.current_time() <= needed + 1


@every_engine
async def test_the_record_does_not_wait_and_whoever_is_stopped_meanwhile_leaves_nothing(
    fast: bool, make_bench: MakeBench
) -> None:
    with trio.CancelScope() as stopped:
        async with abandoned(fast, make_bench) as (bench, _database):
            await until(lambda: bench.handler.open_connections == 0)
            await trio.testing.wait_all_tasks_blocked()
            assert bench.record.outcome == "relayed"
            assert bench.record.closed_by is ClosedBy.CLIENT
            stopped.cancel()
    assert bench.handler.ended_early == 0
