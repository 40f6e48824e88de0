"""The rules of the relay on real sockets, for both engines and every stack of layers."""

import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

import pytest
import trio
import trio.testing
from lab_client import until
from openssl_ends import client_layer, server_layer
from relay_bench import (
    KIB,
    MIB,
    PATIENCE,
    STACKS,
    Bench,
    crowd,
    engine_running,
    every_engine,
    every_stack,
    layered_pair,
    running,
)
from stream_ends import receive_all, socket_pair
from tls_peers import Credentials

from dbproxy.events import ClosedBy
from dbproxy.layers import PingLayer, TLSLayer, WebSocketLayer
from dbproxy.layers.base import ByteData
from dbproxy.layers.openssl import Records
from dbproxy.relay import (
    FirstFlight,
    LayeredStream,
    PingWatch,
    RelayEnd,
    RelayEngine,
    SilenceError,
)


async def pour(stream: trio.abc.HalfCloseableStream, pieces: list[bytes]) -> None:
    for piece in pieces:
        await stream.send_all(piece)
    await stream.send_eof()


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, position, turn = [], 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[position : position + size])
        position, turn = position + size, turn + 1
    return pieces


@every_engine
@every_stack
@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (4 * KIB, [1]),
        (256 * KIB, [*range(1, 2040, 8), 2039]),
        (3 * MIB, [262_145, 16_384, 7, 65_536]),
    ],
    ids=["byte-by-byte", "odd-sizes", "large"],
)
async def test_bytes_go_both_ways_at_once_whole_and_in_order(
    fast: bool, stack: str, size: int, sizes: list[int], localhost: Credentials
) -> None:
    up, down = (random.Random(seed).randbytes(size) for seed in (1, 2))
    received: dict[str, bytes] = {}

    async def take(name: str, stream: trio.abc.HalfCloseableStream) -> None:
        received[name] = await receive_all(stream)

    async with (
        running(fast, stack, localhost, b"first ") as bench,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pour, bench.client, cut(up, sizes))
        nursery.start_soon(pour, bench.database, cut(down, sizes))
        nursery.start_soon(take, "up", bench.database)
        nursery.start_soon(take, "down", bench.client)
    assert received == {"up": b"first " + up, "down": down}
    assert (bench.relay.bytes_up, bench.relay.bytes_down) == (size + 6, size)
    assert len(bench.answered) == 1


@every_engine
@every_stack
async def test_an_end_of_one_direction_leaves_the_other_open(
    fast: bool, stack: str, localhost: Credentials
) -> None:
    async with running(fast, stack, localhost) as bench:
        await bench.client.send_all(b"last question")
        await bench.client.send_eof()
        assert await receive_all(bench.database) == b"last question"
        await bench.database.send_all(b"long answer")
        assert await bench.client.receive_some() == b"long answer"
        assert not bench.ends
        await bench.database.send_eof()
        assert await receive_all(bench.client) == b""
    assert bench.end == RelayEnd(
        ClosedBy.CLIENT, None, upstream_spoke=True, upstream_error=None, client_ended=True
    )


@every_engine
@pytest.mark.parametrize("stack", ["tls", "tls-ping", "tls-websocket-tls-ping"])
async def test_an_end_that_has_come_before_the_relay_begins_is_passed_on(
    fast: bool, stack: str, localhost: Credentials
) -> None:
    """No event tells of it: close_notify has been received, and the socket stays open."""
    near, client = socket_pair()
    upstream, database, _transport = await layered_pair(stack, localhost)
    await database.send_all(b"sorry")
    await database.send_eof()
    upstream.unread(await receive_all(upstream))
    stream = LayeredStream(near)
    async with stream, client, database, upstream, engine_running(fast) as engine:
        relay = engine.relay(stream, upstream, FirstFlight(), lambda: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.run)
            assert await receive_all(client) == b"sorry"
            await client.send_eof()


@every_engine
@every_stack
async def test_both_ends_may_close_at_once(fast: bool, stack: str, localhost: Credentials) -> None:
    async with running(fast, stack, localhost) as bench:
        await bench.database.send_all(b"hello")
        assert await bench.client.receive_some() == b"hello"
        await bench.client.send_eof()
        await bench.database.send_eof()
        assert await receive_all(bench.client) == b""
        assert await receive_all(bench.database) == b""
    assert bench.end.error is None


@every_engine
@every_stack
async def test_both_ends_may_close_at_once_with_bytes_on_their_way(
    fast: bool, stack: str, localhost: Credentials
) -> None:
    data = random.Random(6).randbytes(MIB)
    received: dict[str, bytes] = {}

    async def take(name: str, stream: trio.abc.HalfCloseableStream) -> None:
        received[name] = await receive_all(stream)

    async with running(fast, stack, localhost) as bench, trio.open_nursery() as nursery:
        for stream in (bench.client, bench.database):
            nursery.start_soon(pour, stream, [data])
        nursery.start_soon(take, "up", bench.database)
        nursery.start_soon(take, "down", bench.client)
    assert received == {"up": data, "down": data}
    assert bench.end.error is None
    assert bench.end.client_ended


@every_engine
@every_stack
async def test_what_was_said_is_kept_while_the_upstream_has_not_answered(
    fast: bool, stack: str, localhost: Credentials
) -> None:
    async with running(fast, stack, localhost, b"startup ") as bench:
        await bench.client.send_all(b"and more")
        await until(lambda: bench.relay.bytes_up == 16)
        await bench.database.aclose()
    assert bench.end.closed_by is ClosedBy.UPSTREAM
    assert not bench.end.upstream_spoke
    assert bench.flight.replayable
    assert bench.flight.data == b"startup and more"
    assert bench.answered == []


@every_engine
@every_stack
async def test_a_reset_by_the_upstream_ends_everything_and_is_told(
    fast: bool, stack: str, localhost: Credentials
) -> None:
    async with running(fast, stack, localhost) as bench:
        await bench.database.send_all(b"half")
        assert await bench.client.receive_some() == b"half"
        await bench.client.send_all(b"never read")
        await until(lambda: bench.relay.bytes_up > 0)
        await bench.transport.aclose()  # over unread bytes: a reset
    assert bench.end.closed_by is ClosedBy.UPSTREAM
    assert isinstance(bench.end.upstream_error, trio.BrokenResourceError)
    assert not bench.end.client_ended


@every_engine
async def test_a_reset_by_the_client_ends_everything_and_is_told(
    fast: bool, localhost: Credentials
) -> None:
    async with running(fast, "tls-ping", localhost) as bench:
        await bench.database.send_all(b"never read")
        await until(lambda: bench.relay.bytes_down > 0)
        await bench.client.aclose()
    assert bench.end.closed_by is ClosedBy.CLIENT
    assert bench.end.client_ended


@every_stack
async def test_a_client_that_is_gone_after_it_has_ended_its_direction_ends_everything(
    stack: str, localhost: Credentials
) -> None:
    """On the reactor: the plain relay waits for the upstream to say something, or keepalive."""
    async with running(True, stack, localhost) as bench:
        await bench.database.send_all(b"never read")
        await until(lambda: bench.relay.bytes_down > 0)
        await bench.client.send_eof()
        assert await receive_all(bench.database) == b""
        assert not bench.ends
        await bench.client.aclose()  # over unread bytes: a reset
    assert bench.end.closed_by is ClosedBy.CLIENT


@every_engine
@every_stack
async def test_an_upstream_that_is_gone_after_it_has_ended_its_direction_ends_everything(
    fast: bool, stack: str, localhost: Credentials
) -> None:
    async with running(fast, stack, localhost) as bench:
        await bench.database.send_all(b"the last word")
        await bench.database.send_eof()
        assert await receive_all(bench.client) == b"the last word"
        await bench.database.aclose()
        await bench.client.send_all(b"nobody hears that")
    assert bench.end.closed_by is ClosedBy.UPSTREAM
    assert bench.end.upstream_spoke


@every_engine
@every_stack
async def test_who_does_not_read_slows_the_other_down_and_misses_nothing(
    fast: bool, stack: str, localhost: Credentials
) -> None:
    data = random.Random(3).randbytes(8 * MIB)
    sent = trio.Event()

    async def send() -> None:
        await bench.database.send_all(data)
        sent.set()

    async with running(fast, stack, localhost) as bench, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.sleep(0.2)
        assert not sent.is_set(), "somebody has taken eight megabytes in"
        assert bench.relay.bytes_down < 4 * MIB
        received = bytearray()
        while len(received) < len(data):
            received += await bench.client.receive_some()
        assert received == data
        await bench.client.aclose()
        await bench.database.aclose()


@every_engine
@pytest.mark.parametrize("stack", ["plain", "tls-ping"])
async def test_eight_connections_carry_24_mib_each_way_at_once(
    fast: bool, stack: str, localhost: Credentials
) -> None:
    engine = RelayEngine(fast=fast)
    size, arrived = 24 * MIB, 0
    up, down = (random.Random(seed).randbytes(size) for seed in (4, 5))

    async def expect(stream: trio.abc.HalfCloseableStream, data: bytes) -> None:
        nonlocal arrived
        position = 0
        while piece := await stream.receive_some():
            assert piece == data[position : position + len(piece)]
            position += len(piece)
        assert position == size
        arrived += 1

    async def connect(nursery: trio.Nursery) -> None:
        near, client = socket_pair()
        upstream, database, _transport = await layered_pair(stack, localhost)
        relay = engine.relay(LayeredStream(near), upstream, FirstFlight(), lambda: None)
        for opened in (near, client, upstream, database):
            await streams.enter_async_context(opened)
        nursery.start_soon(relay.run)
        nursery.start_soon(pour, client, [up])
        nursery.start_soon(pour, database, [down])
        nursery.start_soon(expect, client, down)
        nursery.start_soon(expect, database, up)

    with trio.fail_after(6 * PATIENCE):
        async with AsyncExitStack() as streams, trio.open_nursery() as machinery:
            machinery.start_soon(engine.run)
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    await connect(nursery)
            machinery.cancel_scope.cancel()
    assert arrived == 16


async def end_well(bench: Bench) -> None:
    """Both directions end, the client's first; it may have ended that already."""
    await bench.client.send_eof()
    assert await receive_all(bench.database) == b""
    await bench.database.send_eof()
    assert await receive_all(bench.client) == b""


CROWD = 20
"""Connections whose events all come in one look of the reactor's."""


@every_engine
@pytest.mark.parametrize("stack", ["tls", "tls-ping"])
class TestManyAtOnce:
    """Small messages on many connections, of which none waits for another look."""

    async def test_each_is_heard_and_answered_and_may_end(
        self, fast: bool, stack: str, localhost: Credentials
    ) -> None:
        """Also who ends together with its last word."""
        async with crowd(CROWD, fast, stack, localhost) as benches:
            for number, bench in enumerate(benches):
                os.write(bench.client.socket.fileno(), b"question %d" % number)
                if number % 2:
                    bench.client.socket.shutdown(socket.SHUT_WR)
            for number, bench in enumerate(benches):
                assert await bench.database.receive_some() == b"question %d" % number
                if number % 2:
                    assert await bench.database.receive_some() == b""
            for bench in benches:
                await bench.database.send_all(b"answer")
            for bench in benches:
                assert await bench.client.receive_some() == b"answer"
            for bench in benches:
                await end_well(bench)
        for bench in benches:
            assert bench.end.closed_by is ClosedBy.CLIENT
            assert bench.end.error is None

    async def test_one_whose_upstream_listens_no_more_gets_its_last_word_all_the_same(
        self, fast: bool, stack: str, localhost: Credentials
    ) -> None:
        async with crowd(CROWD, fast, stack, localhost) as benches:
            deaf, others = benches[::2], benches[1::2]
            for bench in deaf:
                bench.transport.socket.shutdown(socket.SHUT_RD)
            for bench in benches:
                os.write(bench.client.socket.fileno(), b"question")
            for bench in others:
                assert await bench.database.receive_some() == b"question"
            for bench in deaf:
                await bench.database.send_all(b"last word")
                await bench.database.send_eof()
                assert await receive_all(bench.client) == b"last word"
                await until(partial(bool, bench.ends))
            for bench in others:
                assert not bench.ends
                await end_well(bench)
        for bench in deaf:
            assert bench.end.closed_by is ClosedBy.UPSTREAM
            assert isinstance(bench.end.error, trio.BrokenResourceError)
            assert isinstance(bench.end.error.__cause__, BrokenPipeError)
            assert not bench.end.client_ended

    async def test_one_whose_upstream_is_gone_is_told_so_and_the_others_are_served(
        self, fast: bool, stack: str, localhost: Credentials
    ) -> None:
        async with crowd(CROWD, fast, stack, localhost) as benches:
            gone, others = benches[::2], benches[1::2]
            for bench in benches:
                os.write(bench.client.socket.fileno(), b"question")
            for bench in gone:
                bench.transport.socket.close()
            for bench in others:
                assert await bench.database.receive_some() == b"question"
            for bench in gone:
                await until(partial(bool, bench.ends))
            for bench in others:
                assert not bench.ends
                await end_well(bench)
        for bench in gone:
            assert bench.end.closed_by is ClosedBy.UPSTREAM
            assert bench.end.upstream_error is not None

    async def test_one_that_does_not_read_misses_nothing(
        self, fast: bool, stack: str, localhost: Credentials
    ) -> None:
        async with crowd(CROWD, fast, stack, localhost) as benches:
            slow, *others = benches
            data = random.Random(8).randbytes(6 * MIB)

            async def pour_small(bench: Bench) -> None:
                for piece in cut(data, [2000]):
                    await bench.database.send_all(piece)

            async def chat(bench: Bench) -> None:
                for _ in range(100):
                    await bench.client.send_all(b"question")
                    assert await bench.database.receive_some() == b"question"
                    await bench.database.send_all(b"answer")
                    assert await bench.client.receive_some() == b"answer"
                await end_well(bench)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(pour_small, slow)
                async with trio.open_nursery() as talking:
                    for bench in others:
                        talking.start_soon(chat, bench)
                assert slow.relay.bytes_down < len(data)
                received = bytearray()
                while len(received) < len(data):
                    received += await slow.client.receive_some()
            assert received == data
            await end_well(slow)
        assert all(bench.end.error is None for bench in benches)


async def test_the_reactor_reads_all_that_has_come_before_it_sends_any_of_it(
    localhost: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom a message wakes may take the processor from us; see `relay/reactor.py`."""
    calls: list[str] = []

    def told(name: str, call: Callable[..., int]) -> Callable[..., int]:
        def tell(*arguments: object) -> int:
            calls.append(name)
            return call(*arguments)

        return tell

    async with crowd(CROWD, True, "tls-ping", localhost) as benches:
        monkeypatch.setattr("dbproxy.relay.ends.readv", told("read", os.readv))
        for module in ("ends", "carry"):
            monkeypatch.setattr(f"dbproxy.relay.{module}.write", told("send", os.write))
        for bench in benches:
            os.write(bench.client.socket.fileno(), b"question")
        for bench in benches:
            assert await bench.database.receive_some() == b"question"
        assert calls == ["read"] * CROWD + ["send"] * CROWD
        for bench in benches:
            await end_well(bench)


async def test_a_client_that_stops_reading_for_5_seconds_gets_everything_afterwards(
    localhost: Credentials,
) -> None:
    """The upstream's promise to say something every second counts only while it is listened to."""
    data = random.Random(7).randbytes(8 * MIB)

    async def stop_and_go_on(fast: bool, stack: str) -> None:
        async with running(fast, stack, localhost) as bench, trio.open_nursery() as nursery:
            bench.upstream.patience = lambda: 1.0
            nursery.start_soon(pour, bench.database, [data])
            nursery.start_soon(pour, bench.client, [b"a query"])
            assert await receive_all(bench.database) == b"a query"
            await trio.sleep(5)
            assert bench.relay.bytes_down < 4 * MIB
            assert await receive_all(bench.client) == data
        assert bench.end.error is None

    async with trio.open_nursery() as nursery:
        for fast in (False, True):
            for stack in STACKS:
                nursery.start_soon(stop_and_go_on, fast, stack)


@every_engine
@every_stack
async def test_cancelling_it_closes_neither_stream(
    fast: bool, stack: str, localhost: Credentials
) -> None:
    near, client = socket_pair()
    upstream, database, _transport = await layered_pair(stack, localhost)
    engine = RelayEngine(fast=fast)
    stream = LayeredStream(near)
    relay = engine.relay(stream, upstream, FirstFlight(), lambda: None)
    async with client, database, stream, upstream, trio.open_nursery() as machinery:
        machinery.start_soon(engine.run)
        with trio.move_on_after(0.05) as scope:
            await relay.run()
        assert scope.cancelled_caught
        await client.send_all(b"still here")
        assert await stream.receive_some() == b"still here"
        await upstream.send_all(b"so am I")
        assert await database.receive_some() == b"so am I"
        machinery.cancel_scope.cancel()


@every_engine
@pytest.mark.parametrize("stack", ["plain", "tls-ping"])
async def test_a_client_that_does_not_listen_any_more_ends_everything(
    fast: bool, stack: str, localhost: Credentials
) -> None:
    async with running(fast, stack, localhost) as bench:
        for word in (b"welcome", b"to the database"):
            await bench.database.send_all(word)
            assert await bench.client.receive_some() == word
        bench.client.socket.shutdown(socket.SHUT_RD)
        await bench.database.send_all(b"nobody hears that")
    assert bench.end.closed_by is ClosedBy.CLIENT
    assert isinstance(bench.end.error, trio.BrokenResourceError)


@every_engine
async def test_a_client_whose_upstream_has_never_listened_gets_its_last_word_all_the_same(
    fast: bool, localhost: Credentials
) -> None:
    """Also without layers, where that upstream's end looks like a good one."""
    async with running(fast, "plain", localhost) as bench:
        bench.transport.socket.shutdown(socket.SHUT_RD)
        await bench.client.send_all(b"nobody hears that")
        await trio.testing.wait_all_tasks_blocked()
        await bench.database.send_all(b"last word")
        await bench.database.send_eof()
        assert await receive_all(bench.client) == b"last word"
    assert bench.end.closed_by is ClosedBy.UPSTREAM
    assert isinstance(bench.end.error, trio.BrokenResourceError)


@every_engine
@pytest.mark.parametrize("first", [b"", b"hello"], ids=["silent client", "client first"])
async def test_what_a_handshake_has_left_to_be_said_waits_for_no_client(
    fast: bool, first: bytes, localhost: Credentials
) -> None:
    near, client = socket_pair()
    upstream, database = map(LayeredStream, socket_pair())

    async def speak() -> None:
        await database.add_layer(server_layer(localhost))
        await database.send_all(b"I am the server")

    async with (
        engine_running(fast) as engine,
        client,
        database,
        LayeredStream(near) as stream,
        upstream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(speak)
        await upstream.add_layer(client_layer(), keep_last_word=True)
        relay = engine.relay(stream, upstream, FirstFlight(first), lambda: None)
        nursery.start_soon(relay.run)
        assert await client.receive_some() == b"I am the server"
        if first:
            assert await database.receive_some() == first
        nursery.cancel_scope.cancel()


@every_engine
@pytest.mark.parametrize("spoke", [False, True], ids=["silent before", "spoke before"])
async def test_an_upstream_that_falls_silent_after_a_ping_is_given_up(
    fast: bool, spoke: bool, localhost: Credentials
) -> None:
    async def speak(database: LayeredStream, client: trio.SocketStream) -> None:
        for word in [b"welcome", b"to the database"] if spoke else []:
            await database.send_all(len(word).to_bytes(4, "big") + word)
            assert await client.receive_some() == word
        await ping_once_and_stall(database)

    near, client = socket_pair()
    upstream, database, _transport = await layered_pair("tls", localhost)
    ping = PingLayer()
    await upstream.add_layer(ping)
    upstream.patience = PingWatch(ping, trio.current_time)
    engine, stream = RelayEngine(fast=fast), LayeredStream(near)
    relay = engine.relay(stream, upstream, FirstFlight(), lambda: None)
    with trio.fail_after(PATIENCE):
        async with client, database, stream, upstream, trio.open_nursery() as machinery:
            machinery.start_soon(engine.run)
            machinery.start_soon(speak, database, client)
            end = await relay.run()
            machinery.cancel_scope.cancel()
    assert isinstance(end.upstream_error, SilenceError)
    assert end.closed_by is ClosedBy.UPSTREAM


@every_engine
async def test_an_upstream_that_says_nothing_but_pings_is_not_given_up(
    fast: bool, localhost: Credentials
) -> None:
    near, client = socket_pair()
    upstream, database, _transport = await layered_pair("tls", localhost)
    await upstream.add_layer(PingLayer())
    upstream.patience = lambda: 0.6
    stream = LayeredStream(near)
    async with (
        client,
        database,
        stream,
        upstream,
        engine_running(fast) as engine,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(engine.relay(stream, upstream, FirstFlight(), lambda: None).run)
        for _ in range(20):
            await database.send_all(bytes(4))
            await trio.sleep(0.06)
        await database.send_all(b"\0\0\0\7welcome")
        assert await client.receive_some() == b"welcome"
        nursery.cancel_scope.cancel()


@every_engine
async def test_a_websocket_ping_is_answered_while_the_client_says_nothing(
    fast: bool, localhost: Credentials
) -> None:
    async with running(fast, "tls-websocket-tls-ping", localhost) as bench:
        outer = next(iter(bench.database.lend()[1]))
        outer.send(b"\x89\x05hello")  # a whole frame: ping (RFC 6455 §5.5.2)
        await bench.transport.send_all(outer.outgoing())
        pong = outer.receive(await bench.transport.receive_some())
        assert pong[0] == 0x8A
        assert pong.endswith(b"hello")  # its mask is one of zeros
        await bench.client.send_eof()
        await bench.database.send_eof()


@every_engine
async def test_an_upstream_that_had_sent_pings_before_and_then_never_a_byte_is_given_up(
    fast: bool, localhost: Credentials
) -> None:
    near, client = socket_pair()
    upstream, database, _transport = await layered_pair("tls-ping", localhost)
    with trio.move_on_after(0.05):
        await upstream.receive_some()  # what the handshake has left: then there is nothing to read
    upstream.patience = lambda: 0.05
    engine, stream = RelayEngine(fast=fast), LayeredStream(near)
    relay = engine.relay(stream, upstream, FirstFlight(), lambda: None)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as machinery, client, database, stream, upstream:
            machinery.start_soon(engine.run)
            end = await relay.run()
            machinery.cancel_scope.cancel()
    assert isinstance(end.upstream_error, SilenceError)


@every_engine
async def test_an_upstream_that_has_ended_its_direction_may_be_silent(
    fast: bool, localhost: Credentials
) -> None:
    near, client = socket_pair()
    upstream, database, _transport = await layered_pair("tls-ping", localhost)
    patience = 0.02
    upstream.patience = lambda: patience
    engine, stream = RelayEngine(fast=fast), LayeredStream(near)
    relay = engine.relay(stream, upstream, FirstFlight(), lambda: None)
    with trio.fail_after(PATIENCE):
        async with client, database, stream, upstream, trio.open_nursery() as machinery:
            machinery.start_soon(engine.run)
            machinery.start_soon(relay.run)
            await database.send_all(b"send it")
            await database.send_eof()
            assert await receive_all(client) == b"send it"
            await trio.sleep(5 * patience)
            await client.send_all(b"a late answer")
            await client.send_eof()
            assert await receive_all(database) == b"a late answer"
            machinery.cancel_scope.cancel()


async def ping_once_and_stall(database: LayeredStream) -> None:
    await trio.sleep(0.1)
    await database.send_all(bytes(4))


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
async def test_a_bug_in_one_relay_leaves_the_others_alone(up: bool, localhost: Credentials) -> None:
    class Buggy(WebSocketLayer):
        def send(self, data: ByteData) -> None:
            raise RuntimeError("a bug")

        def receive(self, data: ByteData) -> bytes:
            if data:  # not what belongs to the handshake below
                raise RuntimeError("a bug")
            return b""

    engine = RelayEngine(fast=True)
    ends: list[str] = []
    clients: dict[str, trio.SocketStream] = {}

    async def run(name: str, upstream: LayeredStream) -> None:
        near, client = socket_pair()
        clients[name] = client
        async with client, LayeredStream(near) as stream, upstream:
            relay = engine.relay(stream, upstream, FirstFlight(), lambda: None)
            try:
                await relay.run()
            except RuntimeError as bug:
                ends.append(f"{name}: {bug}")
            else:
                ends.append(f"{name}: well")

    good, good_database, _ = await layered_pair("tls-ping", localhost)
    bad, bad_database, _ = await layered_pair("tls", localhost)
    await bad.add_layer(Buggy())
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as machinery, good_database, bad_database:
            machinery.start_soon(engine.run)
            machinery.start_soon(run, "good", good)
            machinery.start_soon(run, "bad", bad)
            if up:
                await until(lambda: "bad" in clients)
                await clients["bad"].send_all(b"x")
            else:
                await bad_database.send_all(b"x")
            await until(lambda: ends == ["bad: a bug"])
            await good_database.send_eof()
            await until(lambda: len(ends) == 2)
            machinery.cancel_scope.cancel()
    assert ends == ["bad: a bug", "good: well"]


async def test_relays_and_the_reactor_may_be_cancelled_together(localhost: Credentials) -> None:
    for _ in range(20):  # in whichever order
        engine = RelayEngine(fast=True)
        near, client = socket_pair()
        upstream, database, _transport = await layered_pair("tls", localhost)
        async with client, database, upstream, near:
            relay = engine.relay(LayeredStream(near), upstream, FirstFlight(), lambda: None)
            with trio.move_on_after(0.005):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(engine.run)
                    nursery.start_soon(relay.run)


async def test_a_relay_that_begins_when_all_has_been_cancelled_is_cancelled(
    localhost: Credentials,
) -> None:
    """A client that has just got its upstream, when the proxy is stopped at once."""
    engine = RelayEngine(fast=True)
    near, client = socket_pair()
    upstream, database, _transport = await layered_pair("tls", localhost)
    async with client, database, upstream, near:
        relay = engine.relay(LayeredStream(near), upstream, FirstFlight(), lambda: None)
        with trio.CancelScope() as scope:
            scope.cancel()
            with trio.move_on_after(PATIENCE):
                await engine.run()
        with trio.CancelScope() as scope:
            scope.cancel()
            await relay.run()
        assert scope.cancelled_caught


async def test_a_bulk_stream_does_not_starve_small_messages(localhost: Credentials) -> None:
    """The small connection's round trips go on while another one moves all it can."""
    engine = RelayEngine(fast=True)
    clients, databases, relays = [], [], []
    with trio.fail_after(PATIENCE):
        async with AsyncExitStack() as streams, trio.open_nursery() as nursery:
            nursery.start_soon(engine.run)
            for _ in ("bulk", "small"):
                near, client = socket_pair()
                upstream, database, _transport = await layered_pair("tls-ping", localhost)
                for stream in (client, database, upstream, near):
                    await streams.enter_async_context(stream)
                relay = engine.relay(LayeredStream(near), upstream, FirstFlight(), lambda: None)
                nursery.start_soon(relay.run)
                clients.append(client)
                databases.append(database)
                relays.append(relay)
            nursery.start_soon(pour_for_ever, databases[0])
            nursery.start_soon(drain, clients[0])
            await until(lambda: relays[0].bytes_down > 8 * MIB, PATIENCE)
            before = relays[0].bytes_down
            for _ in range(50):
                await clients[1].send_all(b"ping")
                assert await databases[1].receive_some() == b"ping"
                await databases[1].send_all(b"pong")
                assert await clients[1].receive_some() == b"pong"
            assert relays[0].bytes_down > before, "the bulk stream stood still meanwhile"
            nursery.cancel_scope.cancel()


async def pour_for_ever(stream: trio.abc.SendStream) -> None:
    while True:
        await stream.send_all(bytes(MIB))


async def drain(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some():
        pass


def test_pyopenssl_still_has_what_the_hot_path_needs(localhost: Credentials) -> None:
    """The hot path calls OpenSSL on pyOpenSSL's own objects, whose names are not promised."""
    layer: TLSLayer = client_layer()
    assert isinstance(layer.records, Records)


WITHOUT_EPOLL = """
import select, trio
names = [name for name in vars(select) if name.lower().startswith("epoll")]
taken = {name: vars(select).pop(name) for name in names}
from dbproxy import cli
from dbproxy.relay import FirstFlight, LayeredStream, RelayEngine
vars(select).update(taken)  # trio itself needs it
async def main():
    pair = [trio.SocketStream(end) for end in trio.socket.socketpair()]
    print(type(RelayEngine().relay(*map(LayeredStream, pair), FirstFlight(), print)).__name__)
trio.run(main)
"""


def test_where_the_system_has_no_epoll_everything_loads_and_the_plain_relay_is_used() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_EPOLL], capture_output=True, text=True, check=False
    )
    assert (ended.stdout, ended.stderr) == ("Relay\n", "")
