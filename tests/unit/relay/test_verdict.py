"""What the upstream says first goes through the verdict's reader, in both engines."""

import os
import random
import socket
import struct
from collections.abc import Sequence

import pytest
import trio
import trio.testing
from lab_client import until
from relay_bench import (
    KIB,
    MIB,
    Bench,
    engine_running,
    every_engine,
    every_stack,
    fill,
    layered_pair,
    running,
    say_at_once,
)
from stream_ends import FakeStream, receive_all, socket_pair
from tls_peers import BROKEN_RECORD, Credentials

from dbproxy.errors import Code
from dbproxy.events import ClosedBy
from dbproxy.layers import TLSError
from dbproxy.protocols.postgres_verdict import PostgresVerdictReader
from dbproxy.relay import FirstFlight, LayeredStream, Relay, RelayEngine, SilenceError
from dbproxy.relay.fast import FastRelay

DENIED = b"access to db denied"
RESET = trio.BrokenResourceError("reset")


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


REFUSAL = message(b"E", b"M" + DENIED + b"\0\0")
NOTICE = message(b"N", b"Mhello\0\0")
LET_IN = message(b"R", bytes(4))


class CountingReader(PostgresVerdictReader):
    """Counts what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[bytes] = []

    def receive(self, data: bytes) -> bytes:
        self.given.append(data)
        return super().receive(data)


class HoldsAll(PostgresVerdictReader):
    """Lets go of nothing before the end."""

    def __init__(self) -> None:
        super().__init__()
        self.held = b""

    def receive(self, data: bytes) -> bytes:
        self.held += data
        return b""

    def end(self) -> bytes:
        return self.held


class HasBug(PostgresVerdictReader):
    """Fails when it is to let go."""

    def receive(self, data: bytes) -> bytes:
        return b""

    def end(self) -> bytes:
        raise ZeroDivisionError("bug")


def shrink_clients_buffer(bench: Bench) -> None:
    relay = bench.relay
    stream = relay._client_stream if isinstance(relay, FastRelay) else relay._client
    assert isinstance(stream, LayeredStream)
    stream.lend()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


def completed(sent: bytes) -> bytes:
    reader = PostgresVerdictReader()
    return reader.receive(sent) + reader.end()


async def say(bench: Bench, pieces: Sequence[bytes]) -> bytes:
    """Let the upstream say pieces and end; returns what the client gets."""
    received = b""

    async def listen() -> None:
        nonlocal received
        received = await receive_all(bench.client)
        await bench.client.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        for piece in pieces:
            await bench.database.send_all(piece)
            await trio.testing.wait_all_tasks_blocked(0.002)
        await bench.database.send_eof()
    return received


@every_engine
@every_stack
@pytest.mark.parametrize("size", [1, 7, 4 * KIB])
async def test_a_refusal_arrives_completed_and_is_counted(
    fast: bool, stack: str, size: int, localhost: Credentials
) -> None:
    sent = NOTICE + REFUSAL
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    reader = PostgresVerdictReader()
    async with running(fast, stack, localhost, b"startup", reader) as bench:
        received = await say(bench, pieces)
    assert received == completed(sent) != sent
    assert reader.code is Code.ACCESS_DENIED
    assert bench.relay.bytes_down == len(received)
    assert len(bench.answered) == 1
    assert bench.end.upstream_spoke
    assert bench.end.error is None


@every_engine
@every_stack
async def test_an_error_that_is_cut_by_the_upstreams_end_arrives_as_far_as_it_came(
    fast: bool, stack: str, localhost: Credentials
) -> None:
    reader = PostgresVerdictReader()
    async with running(fast, stack, localhost, verdict=reader) as bench:
        assert await say(bench, [REFUSAL[:9]]) == REFUSAL[:9]
    assert reader.code is None
    assert bench.relay.bytes_down == 9
    assert bench.end.closed_by is ClosedBy.UPSTREAM


@every_engine
@every_stack
async def test_an_error_that_is_cut_by_a_reset_arrives_as_far_as_it_came(
    fast: bool, stack: str, localhost: Credentials
) -> None:
    async with running(fast, stack, localhost, verdict=PostgresVerdictReader()) as bench:
        await bench.client.send_all(b"never read")
        await until(lambda: bench.relay.bytes_up > 0)
        await bench.database.send_all(REFUSAL[:9])
        await until(lambda: bench.answered == [None])
        await bench.transport.aclose()  # over unread bytes
        assert await bench.client.receive_some() == REFUSAL[:9]
    assert bench.end.closed_by is ClosedBy.UPSTREAM
    assert bench.end.upstream_error is not None


@every_engine
async def test_an_error_that_is_cut_by_a_reset_arrives_also_when_the_client_reads_late(
    fast: bool, localhost: Credentials
) -> None:
    """More is held than the client's buffers take."""
    said = NOTICE * 3_000 + REFUSAL[:9]
    async with running(fast, "tls-ping", localhost, verdict=HoldsAll()) as bench:
        await fill(bench.client)
        stream = (
            bench.relay._client_stream
            if isinstance(bench.relay, FastRelay)
            else bench.relay._client
        )
        assert isinstance(stream, LayeredStream)
        stream.lend()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await bench.database.send_all(said)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await bench.transport.aclose()  # over unread bytes
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not bench.ends
        await bench.client.send_all(bytes(MIB))  # is read, or it would wait here for ever
        received = b""
        while len(received) < len(said):
            received += await bench.client.receive_some()
        assert received == said
    assert bench.end.closed_by is ClosedBy.UPSTREAM
    assert bench.end.upstream_error is not None
    assert bench.relay.bytes_down == len(said)


@every_engine
async def test_held_words_reach_a_client_that_is_writing_when_the_upstream_falls_silent(
    fast: bool, localhost: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reactor sleeps meanwhile and must be woken; the plain relay waits for the upstream."""
    said = NOTICE * 6_000
    async with running(fast, "tls-ping", localhost, verdict=HoldsAll()) as bench:
        monkeypatch.setattr(bench.upstream, "patience", lambda: 0.2)
        shrink_clients_buffer(bench)
        await bench.database.send_all(said)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await fill(bench.client)
        await bench.client.send_all(bytes(MIB))  # is read, or it would wait here for ever
        received = b""
        while len(received) < len(said):
            received += await bench.client.receive_some()
        assert received == said
    assert isinstance(bench.end.upstream_error, SilenceError)


@every_engine
async def test_held_words_reach_a_client_that_is_writing_when_the_upstream_breaks_the_rules(
    fast: bool, localhost: Credentials
) -> None:
    """It does not read, and is not gone: nothing else would tell."""
    said = NOTICE * 6_000
    async with running(fast, "tls-ping", localhost, verdict=HoldsAll()) as bench:
        shrink_clients_buffer(bench)
        await bench.database.send_all(said)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await fill(bench.client)
        os.write(bench.transport.socket.fileno(), BROKEN_RECORD)
        await bench.client.send_all(bytes(MIB))  # is read, or it would wait here for ever
        received = b""
        while len(received) < len(said):
            received += await bench.client.receive_some()
        assert received == said
    assert isinstance(bench.end.upstream_error, TLSError)


@every_engine
@pytest.mark.parametrize("ends", [True, False])
async def test_a_bug_in_letting_go_ends_one_relay_and_not_the_engine(
    fast: bool, ends: bool, localhost: Credentials
) -> None:
    async with engine_running(fast) as engine:

        async def relay_until_the_end(reader: PostgresVerdictReader) -> bytes:
            near, client = socket_pair()
            upstream, database, transport = await layered_pair("tls", localhost)
            stream = LayeredStream(near)
            relay = engine.relay(stream, upstream, FirstFlight(), lambda: None, reader)

            async def hold_and_end() -> None:
                await database.send_all(b"held")
                await trio.testing.wait_all_tasks_blocked()
                await (database.send_eof() if ends else transport.aclose())
                await client.send_eof()

            async with client, database, upstream, trio.open_nursery() as nursery:
                nursery.start_soon(hold_and_end)
                async with stream:
                    await relay.run()
                return await receive_all(client)

        with pytest.RaisesGroup(ZeroDivisionError, allow_unwrapped=True, flatten_subgroups=True):
            await relay_until_the_end(HasBug())
        assert await relay_until_the_end(HoldsAll()) == b"held"


@every_engine
async def test_a_first_byte_ends_the_time_in_which_another_upstream_will_do(
    fast: bool, localhost: Credentials
) -> None:
    """Even if it is held back: what the client has said may have been acted upon."""
    reader = PostgresVerdictReader()
    async with running(fast, "tls-ping", localhost, b"startup", reader) as bench:
        await bench.database.send_all(b"E")
        await until(lambda: bench.answered == [None])
        assert not bench.flight.replayable
        assert bench.relay.bytes_down == 0
        assert await say(bench, []) == b"E"
    assert bench.end.upstream_spoke


@every_engine
@every_stack
async def test_large_answers_behind_bytes_that_were_held_arrive_whole(
    fast: bool, stack: str, localhost: Credentials
) -> None:
    held = b"E" + struct.pack("!I", 20_000)
    rest = random.Random(7).randbytes(3 * MIB)
    up = random.Random(8).randbytes(MIB)
    reader = CountingReader()
    async with running(fast, stack, localhost, verdict=reader) as bench:
        await bench.database.send_all(held)
        await until(lambda: bench.answered == [None])

        async def talk() -> None:
            await bench.client.send_all(up)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            nursery.start_soon(until, lambda: bench.relay.bytes_up == len(up))

            async def hear() -> None:
                heard = 0
                while heard < len(up):
                    heard += len(await bench.database.receive_some())

            nursery.start_soon(hear)
            assert await say(bench, [rest]) == held + rest
    assert sum(map(len, reader.given)) < MIB


@every_engine
@every_stack
async def test_once_a_client_is_let_in_nothing_is_looked_at_any_more(
    fast: bool, stack: str, localhost: Credentials
) -> None:
    reader = CountingReader()
    async with running(fast, stack, localhost, verdict=reader) as bench:
        await bench.database.send_all(LET_IN)
        assert await bench.client.receive_some() == LET_IN
        for _ in range(5):
            await bench.database.send_all(REFUSAL)
            assert await bench.client.receive_some() == REFUSAL
        assert await say(bench, []) == b""
    assert reader.given == [LET_IN]


@every_engine
async def test_who_leaves_while_an_error_is_held_ends_the_relay(
    fast: bool, localhost: Credentials
) -> None:
    async with running(fast, "tls-ping", localhost, verdict=PostgresVerdictReader()) as bench:
        await bench.database.send_all(REFUSAL[:-1])
        await until(lambda: bench.answered == [None])
        await bench.client.aclose()
        await bench.database.send_all(REFUSAL[-1:] + bytes(KIB))
        await trio.testing.wait_all_tasks_blocked(0.002)
        await bench.database.send_eof()
    assert bench.end.client_ended


@every_engine
async def test_what_a_client_said_before_it_closed_arrives_though_held_words_were_for_it(
    fast: bool, localhost: Credentials
) -> None:
    async with running(fast, "tls-ping", localhost, verdict=PostgresVerdictReader()) as bench:
        await bench.database.send_all(REFUSAL[:9])  # is held until the rest is here
        await trio.testing.wait_all_tasks_blocked()
        say_at_once(bench, REFUSAL[9:])
        os.write(bench.client.socket.fileno(), b"COMMIT")
        bench.client.socket.close()
        assert await bench.database.receive_some() == b"COMMIT"
        await until(lambda: bool(bench.ends))
    assert bench.end.closed_by is ClosedBy.CLIENT


async def test_a_client_that_is_gone_when_held_bytes_are_let_go_ends_the_relay() -> None:
    client = FakeStream(send_error=RESET)
    upstream = FakeStream(REFUSAL[:9], b"")
    relay = Relay(client, upstream, FirstFlight(), verdict=PostgresVerdictReader())
    with trio.fail_after(10):
        end = await relay.run()
    assert end.upstream_spoke
    assert end.client_ended
    assert (client.eof_sent, relay.bytes_down) == (False, 0)


@every_engine
async def test_cancelling_while_an_error_is_held_closes_neither_stream(
    fast: bool, localhost: Credentials
) -> None:
    near, client = socket_pair()
    upstream, database, _transport = await layered_pair("tls-ping", localhost)
    engine, stream, answered = RelayEngine(fast=fast), LayeredStream(near), trio.Event()
    relay = engine.relay(stream, upstream, FirstFlight(), answered.set, PostgresVerdictReader())
    with trio.fail_after(10):
        async with client, database, stream, upstream, trio.open_nursery() as machinery:
            machinery.start_soon(engine.run)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(relay.run)
                await database.send_all(REFUSAL[:9])
                await answered.wait()
                nursery.cancel_scope.cancel()
            await stream.send_all(b"still open")
            assert await client.receive_some() == b"still open"
            machinery.cancel_scope.cancel()
