"""Last words are heard, also of who does not listen any more or is gone, and then it is over."""

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from math import inf

import pytest
import trio
import trio.testing
from lab_client import until
from openssl_ends import client_layer, server_layer
from relay_bench import (
    PATIENCE,
    Bench,
    add_both,
    engine_running,
    every_engine,
    fill,
    layered_pair,
    say_at_once,
)
from stream_ends import socket_pair, tcp_pair
from tls_peers import BROKEN_RECORD, Credentials

from dbproxy.events import ClosedBy
from dbproxy.layers import TLSError, TruncatedError
from dbproxy.relay import FirstFlight, LayeredStream
from dbproxy.relay.fast import FastRelay

Pair = Callable[[], tuple[trio.SocketStream, trio.SocketStream]]

STACKS = ("tls", "tls-ping", "tls-websocket-tls-ping")
SMALL, LARGE = 6, 40_000


@asynccontextmanager
async def talking(
    fast: bool, stack: str, credentials: Credentials, pair: Pair = socket_pair
) -> AsyncIterator[Bench]:
    """A relay that has carried a word in each direction."""
    near, client = pair()
    upstream, database, transport = await layered_pair(stack, credentials)
    stream, flight = LayeredStream(near), FirstFlight()
    async with engine_running(fast) as engine, client, database, stream, upstream:
        relay = engine.relay(stream, upstream, flight, lambda: None)
        bench = Bench(relay, client, database, transport, upstream, flight)

        async def keep_end() -> None:
            bench.ends.append(await relay.run())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_end)
            await client.send_all(b"hello")
            assert await database.receive_some() == b"hello"
            await database.send_all(b"welcome")
            assert await client.receive_some() == b"welcome"
            yield bench
            nursery.cancel_scope.cancel()


def set_last_word(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for engine in ("fast", "pump"):
        for limit in ("LAST_WORD", "BUSY"):
            monkeypatch.setattr(f"dbproxy.relay.{engine}.{limit}", seconds)


async def received(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = b""
    with trio.fail_after(PATIENCE):
        while len(data) < size and (more := await stream.receive_some()):
            data += more
    return data


async def leave_unread(bench: Bench) -> None:
    """So that a client that closes resets its connection."""
    before = bench.relay.bytes_down
    await bench.database.send_all(b"never read")
    await until(lambda: bench.relay.bytes_down > before)


@every_engine
@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("stack", STACKS)
async def test_what_a_client_said_before_it_closed_arrives_though_it_cannot_be_told_any_more(
    fast: bool, stack: str, size: int, localhost: Credentials
) -> None:
    async with talking(fast, stack, localhost) as bench:
        await trio.testing.wait_all_tasks_blocked()
        say_at_once(bench, bytes(size))
        os.write(bench.client.socket.fileno(), b"COMMIT")
        bench.client.socket.close()
        assert await received(bench.database, 6) == b"COMMIT"
        await until(lambda: bool(bench.ends))
        await bench.upstream.abandon()
        with pytest.raises(TruncatedError):  # it has not ended, it has broken off
            await bench.database.receive_some()
    assert bench.end.closed_by is ClosedBy.CLIENT


@every_engine
async def test_a_reset_behind_a_last_word_is_not_told_to_the_upstream_as_an_end(
    fast: bool, localhost: Credentials
) -> None:
    async with talking(fast, "tls-ping", localhost, tcp_pair) as bench:
        await leave_unread(bench)
        await trio.testing.wait_all_tasks_blocked()
        os.write(bench.client.socket.fileno(), b"half a sta")
        bench.client.socket.close()
        assert await received(bench.database, 10) == b"half a sta"
        await until(lambda: bool(bench.ends))
        await bench.upstream.abandon()
        with pytest.raises(TruncatedError):
            await bench.database.receive_some()
    assert isinstance(bench.end.error, trio.BrokenResourceError)


@every_engine
@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_what_a_client_said_before_it_reset_its_connection_arrives(
    fast: bool, size: int, localhost: Credentials
) -> None:
    async with talking(fast, "tls", localhost, tcp_pair) as bench:
        await leave_unread(bench)
        await trio.testing.wait_all_tasks_blocked()
        say_at_once(bench, bytes(size))
        os.write(bench.client.socket.fileno(), b"COMMIT")
        bench.client.socket.close()
        assert await received(bench.database, 6) == b"COMMIT"
        await until(lambda: bool(bench.ends))
    assert bench.end.closed_by is ClosedBy.CLIENT


@every_engine
@pytest.mark.parametrize("stack", STACKS)
async def test_an_upstream_that_takes_nothing_does_not_keep_a_client_that_is_gone(
    fast: bool, stack: str, localhost: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_last_word(0.05, monkeypatch)
    async with talking(fast, stack, localhost) as bench:
        await fill(bench.client)
        bench.client.socket.close()
        say_at_once(bench, b"nobody hears that")
        await until(lambda: bool(bench.ends))
    assert bench.end.closed_by is ClosedBy.CLIENT


@every_engine
@pytest.mark.parametrize("stack", STACKS)
async def test_an_upstream_that_is_stuck_in_answering_takes_what_a_client_said_that_is_gone(
    fast: bool, stack: str, localhost: Credentials
) -> None:
    said, heard = 0, 0
    async with talking(fast, stack, localhost) as bench, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _answer() -> None:
            nonlocal heard
            while question := await bench.database.receive_some():
                heard += len(question)
                await bench.database.send_all(question)

        for _ in range(20):
            await trio.testing.wait_all_tasks_blocked()
            with suppress(BlockingIOError):
                while True:
                    said += os.write(bench.client.socket.fileno(), bytes(65536))
        assert heard < said
        bench.client.socket.close()
        await until(lambda: heard == said)
        await until(lambda: bool(bench.ends))
        await bench.upstream.abandon()
        nursery.cancel_scope.cancel()
    assert bench.end.closed_by is ClosedBy.CLIENT


@every_engine
async def test_a_client_that_has_ended_and_is_gone_has_nothing_more_to_say(
    fast: bool, localhost: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_last_word(inf, monkeypatch)
    async with talking(fast, "tls-ping", localhost) as bench:
        await bench.client.send_eof()
        assert await bench.database.receive_some() == b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.database.send_all, bytes(3_000_000))
            await trio.testing.wait_all_tasks_blocked()
            bench.client.socket.close()
            await until(lambda: bool(bench.ends))
            nursery.cancel_scope.cancel()
    assert bench.end.closed_by is ClosedBy.CLIENT


@every_engine
async def test_an_end_that_a_client_has_said_is_one_although_it_does_not_listen_any_more(
    fast: bool, localhost: Credentials
) -> None:
    ends = socket_pair()
    near, client = map(LayeredStream, ends)
    upstream, database, _transport = await layered_pair("tls", localhost)
    await add_both(client, near, lambda: (client_layer(), server_layer(localhost)))
    async with engine_running(fast) as engine, client, database, near, upstream:
        relay = engine.relay(near, upstream, FirstFlight(), lambda: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.run)
            await client.send_all(b"hello")
            assert await database.receive_some() == b"hello"
            await database.send_all(b"never read")
            await until(lambda: relay.bytes_down == 10)
            ends[1].socket.shutdown(socket.SHUT_RD)
            await database.send_all(b"nobody hears that")
            await trio.testing.wait_all_tasks_blocked()
            await client.send_all(b"quit")
            await client.send_eof()
            assert await database.receive_some() == b"quit"
            with trio.fail_after(PATIENCE):
                assert await database.receive_some() == b""
            await database.send_eof()


@every_engine
async def test_an_upstream_that_takes_nothing_but_pings_does_not_keep_a_client_that_is_gone(
    fast: bool, localhost: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pong that has to wait is nothing that it has taken."""
    set_last_word(0.1, monkeypatch)
    async with talking(fast, "tls-websocket-tls-ping", localhost) as bench:
        await fill(bench.client)
        bench.client.socket.close()
        say_at_once(bench, b"nobody hears that")
        outer = next(iter(bench.database.lend()[1]))
        with trio.fail_after(PATIENCE):
            while not bench.ends:
                outer.send(b"\x89\x01p")
                os.write(bench.transport.socket.fileno(), outer.outgoing())
                await trio.sleep(0.02)
    assert bench.end.closed_by is ClosedBy.CLIENT


async def test_an_upstream_that_is_busy_has_its_time_for_what_a_client_said_that_is_gone(
    localhost: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the reactor; the plain relay's time is told by a virtual clock, in `test_pump.py`."""
    set_last_word(0.01, monkeypatch)
    monkeypatch.setattr("dbproxy.relay.fast.BUSY", inf)
    async with talking(True, "tls-ping", localhost) as bench:
        said = 0
        with suppress(BlockingIOError):
            while True:
                said += os.write(bench.client.socket.fileno(), bytes(65536))
                await trio.testing.wait_all_tasks_blocked()
        bench.client.socket.close()
        say_at_once(bench, b"nobody hears that")
        await trio.sleep(0.05)
        assert not bench.ends
        assert await received(bench.database, said) == bytes(said)
        await until(lambda: bool(bench.ends))
    assert bench.end.closed_by is ClosedBy.CLIENT


@pytest.mark.parametrize("ended", [False, True])
async def test_a_client_that_resets_is_noticed_also_while_the_upstream_takes_nothing(
    ended: bool, localhost: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the reactor: the plain relay waits for the upstream to say something, or keepalive."""
    set_last_word(0.05, monkeypatch)
    async with talking(True, "tls-ping", localhost, tcp_pair) as bench:
        await leave_unread(bench)
        await fill(bench.client)
        if ended:
            bench.client.socket.shutdown(socket.SHUT_WR)
            await trio.testing.wait_all_tasks_blocked()
        bench.client.socket.close()
        await until(lambda: bool(bench.ends))
    assert bench.end.closed_by is ClosedBy.CLIENT
    assert isinstance(bench.end.error, trio.BrokenResourceError)


@every_engine
async def test_a_client_that_resets_is_heard_out_as_long_as_the_upstream_goes_on_reading(
    fast: bool, localhost: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_last_word(0.2, monkeypatch)
    async with talking(fast, "tls-ping", localhost, tcp_pair) as bench:
        await leave_unread(bench)
        bench.upstream.lend()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await bench.client.send_all(bytes(100_000))
        await trio.testing.wait_all_tasks_blocked()
        bench.client.socket.close()
        arrived = 0
        with trio.fail_after(PATIENCE):
            while arrived < 100_000:
                await trio.sleep(0.05)
                arrived += len(await bench.database.receive_some(8_000))
        await until(lambda: bool(bench.ends))
    assert bench.end.closed_by is ClosedBy.CLIENT


@pytest.mark.parametrize("reads", [False, True])
async def test_an_upstream_that_has_ended_and_then_resets_is_noticed(
    reads: bool, localhost: Credentials
) -> None:
    """On the reactor. With a client that does not take the last bytes, as soon as it does."""
    async with talking(True, "tls-ping", localhost) as bench:
        said = 5 if reads else 3_000_000
        await bench.client.send_all(b"never read")
        await until(lambda: bench.relay.bytes_up == 15)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _say() -> None:
                await bench.database.send_all(bytes(said))
                await bench.database.send_eof()
                await bench.transport.aclose()  # over an unread byte

            if not reads:
                await trio.testing.wait_all_tasks_blocked()
                assert not bench.ends
            assert await received(bench.client, said) == bytes(said)
            assert await bench.client.receive_some() == b""
        await until(lambda: bool(bench.ends))
    assert bench.end.closed_by is ClosedBy.UPSTREAM


async def test_a_client_whose_last_word_end_and_reset_come_at_once_is_noticed(
    localhost: Credentials,
) -> None:
    """On the reactor: the plain relay waits for the upstream to say something, or keepalive."""
    async with talking(True, "tls-ping", localhost, tcp_pair) as bench:
        await leave_unread(bench)
        os.write(bench.client.socket.fileno(), b"last query")
        bench.client.socket.shutdown(socket.SHUT_WR)
        bench.client.socket.close()
        assert await received(bench.database, 10) == b"last query"
        await until(lambda: bool(bench.ends))
    assert bench.end.closed_by is ClosedBy.CLIENT


@every_engine
@pytest.mark.parametrize("pair", [socket_pair, tcp_pair], ids=["unix", "tcp"])
async def test_a_client_that_writes_and_closes_leaves_the_upstream_its_time(
    fast: bool, pair: Pair, localhost: Credentials
) -> None:
    """Closed before all is read, the upstream's socket would be reset and lose the rest."""
    async with talking(fast, "tls-ping", localhost, pair) as bench:
        await bench.client.send_all(bytes(10_000))
        await bench.client.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert await received(bench.database, 10_000) == bytes(10_000)
        assert await bench.database.receive_some() == b""
        await trio.testing.wait_all_tasks_blocked()
        assert not bench.ends
        await bench.database.send_eof()
        await until(lambda: bool(bench.ends))
    assert bench.end.closed_by is ClosedBy.CLIENT
    assert bench.end.error is None


async def test_a_client_that_goes_while_its_last_words_wait_for_the_upstream_is_noticed(
    localhost: Credentials,
) -> None:
    async with talking(True, "tls-ping", localhost, tcp_pair) as bench:
        assert isinstance(bench.relay, FastRelay)
        await leave_unread(bench)
        bench.upstream.lend()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sent, sink = 0, bench.relay._up.sink
        while not sink.unsent:
            sent += os.write(bench.client.socket.fileno(), bytes(2000))
            await trio.testing.wait_all_tasks_blocked()
        bench.client.socket.shutdown(socket.SHUT_WR)
        await trio.testing.wait_all_tasks_blocked()
        bench.client.socket.close()
        await trio.testing.wait_all_tasks_blocked()
        assert await received(bench.database, sent) == bytes(sent)
        await until(lambda: bool(bench.ends))
    assert bench.end.closed_by is ClosedBy.CLIENT


@every_engine
async def test_an_upstream_that_does_not_hear_our_pong_has_its_last_word(
    fast: bool, localhost: Credentials
) -> None:
    async with talking(fast, "tls-websocket-tls-ping", localhost) as bench:
        bench.transport.socket.shutdown(socket.SHUT_RD)
        outer, websocket, inner, ping = bench.database.lend()[1]
        ping.send(b"the reason")
        inner.send(ping.outgoing())
        websocket.send(inner.outgoing())
        outer.send(b"\x89\x01p" + websocket.outgoing())  # behind a ping, in one piece
        os.write(bench.transport.socket.fileno(), outer.outgoing())
        assert await received(bench.client, 10) == b"the reason"


@every_engine
@pytest.mark.parametrize("listens", [True, False])
async def test_the_last_word_before_a_broken_record_is_passed_on(
    fast: bool, listens: bool, localhost: Credentials
) -> None:
    async with talking(fast, "tls-ping", localhost) as bench:
        if not listens:
            bench.transport.socket.shutdown(socket.SHUT_RD)
        say_at_once(bench, b"the reason", behind=BROKEN_RECORD)
        assert await received(bench.client, 10) == b"the reason"
        await until(lambda: bool(bench.ends))
    assert isinstance(bench.end.upstream_error, TLSError)


async def test_pings_are_answered_after_the_client_has_ended_also_when_a_pong_had_to_wait(
    localhost: Credentials,
) -> None:
    async with talking(True, "tls-websocket-tls-ping", localhost) as bench:
        assert isinstance(bench.relay, FastRelay)
        bench.upstream.lend()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await bench.client.send_eof()
        assert await bench.database.receive_some() == b""
        outer = next(iter(bench.database.lend()[1]))
        descriptor, sink = bench.transport.socket.fileno(), bench.relay._up.sink

        async def ping() -> None:
            outer.send(b"\x89\x01p")
            os.write(descriptor, outer.outgoing())
            await trio.testing.wait_all_tasks_blocked()

        while not sink.unsent:
            await ping()
        while sink.unsent:
            assert os.read(descriptor, 1 << 20)
            await trio.testing.wait_all_tasks_blocked()
        await ping()
        assert os.read(descriptor, 1 << 20)
        assert not sink.unsent


@every_engine
async def test_what_lies_behind_a_mark_of_urgent_data_is_not_forgotten(
    fast: bool, localhost: Credentials
) -> None:
    async with talking(fast, "tls-ping", localhost, tcp_pair) as bench:
        raw = socket.socket(fileno=os.dup(bench.client.socket.fileno()))
        with raw:
            raw.send(b"one ")
            raw.send(b"!", socket.MSG_OOB)
            raw.send(b"two")
        assert await received(bench.database, 7) == b"one two"


async def test_a_client_goes_on_being_read_when_what_was_kept_for_the_upstream_cannot_be_sent(
    localhost: Credentials,
) -> None:
    """One that is stuck in writing would never read the reason."""
    async with talking(True, "tls-ping", localhost) as bench:
        await fill(bench.client)
        with suppress(BlockingIOError):
            while os.read(bench.transport.socket.fileno(), 1 << 20):
                pass
        bench.transport.socket.shutdown(socket.SHUT_RD)
        await bench.client.send_all(bytes(1 << 20))
        await bench.database.send_all(b"the reason")
        assert await received(bench.client, 10) == b"the reason"


@every_engine
@pytest.mark.parametrize("stack", STACKS)
async def test_a_client_that_takes_no_more_and_says_nothing_is_waited_for_a_moment(
    fast: bool, stack: str, localhost: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_last_word(0.05, monkeypatch)
    for engine in ("fast", "pump"):
        monkeypatch.setattr(f"dbproxy.relay.{engine}.BUSY", inf)
    async with talking(fast, stack, localhost) as bench:
        bench.client.socket.shutdown(socket.SHUT_RD)
        await bench.database.send_all(b"nobody hears that")
        await until(lambda: bool(bench.ends))
    assert bench.end.closed_by is ClosedBy.CLIENT


@every_engine
@pytest.mark.parametrize("stack", STACKS)
async def test_a_client_that_takes_no_more_is_heard_as_long_as_it_goes_on(
    fast: bool, stack: str, localhost: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_last_word(inf, monkeypatch)
    async with talking(fast, stack, localhost) as bench:
        bench.client.socket.shutdown(socket.SHUT_RD)
        await bench.database.send_all(b"nobody hears that")
        for word in (b"INSERT", b"COMMIT"):
            await trio.testing.wait_all_tasks_blocked()
            await bench.client.send_all(word)
            assert await received(bench.database, 6) == word
        assert not bench.ends
        await bench.client.aclose()
        await until(lambda: bool(bench.ends))
    assert bench.end.closed_by is ClosedBy.CLIENT
