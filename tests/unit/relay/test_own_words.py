"""A peer that asks for answers and does not read them."""

import os
import socket
from contextlib import suppress

import pytest
import trio
import trio.testing
from lab_client import until
from openssl_ends import client_layer, server_layer
from relay_bench import PATIENCE, Bench, every_engine, fill, running
from stream_ends import socket_pair
from tls_peers import BROKEN_RECORD, Credentials
from websocket_frames import frame

from dbproxy.events import ClosedBy
from dbproxy.layers import TLSError, WebSocketLayer
from dbproxy.relay import LayeredStream
from dbproxy.relay.own_words import MOST_KEPT, UnreadAnswersError, appended, check_kept

WEBSOCKET_PING = 9
ASKED = 400_000
"""What may wait here, in place of `MOST_KEPT`: more than a batch, and soon reached."""


def test_only_more_than_the_most_is_too_much() -> None:
    check_kept(MOST_KEPT)
    with pytest.raises(UnreadAnswersError, match="does not read the answers"):
        check_kept(MOST_KEPT + 1)


def test_what_is_appended_stands_behind_and_is_no_copy_of_all_each_time() -> None:
    kept = appended(b"one ", b"two ")
    again = appended(kept, memoryview(b"three"))
    assert again == b"one two three"
    assert again is kept


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbproxy.relay.own_words.MOST_KEPT", ASKED)


async def ping(bench: Bench) -> None:
    """Ask for an answer, in a batch of its own; it is asked for when this returns."""
    outer = next(iter(bench.database.lend()[1]))
    outer.send(frame(WEBSOCKET_PING, bytes(125)))
    with suppress(BrokenPipeError, ConnectionResetError):
        os.write(bench.transport.socket.fileno(), outer.outgoing())
    await trio.testing.wait_all_tasks_blocked()


@every_engine
@pytest.mark.usefixtures("soon")
async def test_an_upstream_that_asks_and_does_not_read_is_given_up(
    fast: bool, localhost: Credentials
) -> None:
    async with running(fast, "tls-websocket-tls-ping", localhost, b"hello") as bench:
        assert await bench.database.receive_some() == b"hello"
        await bench.database.send_all(b"welcome")
        assert await bench.client.receive_some() == b"welcome"
        await fill(bench.client)
        asked = 0
        while not bench.ends:
            await ping(bench)
            asked += 125
            assert asked <= ASKED
    assert bench.end.closed_by is ClosedBy.UPSTREAM
    assert isinstance(bench.end.upstream_error, UnreadAnswersError)


@every_engine
async def test_some_answers_wait_until_they_are_read_and_nothing_is_lost(
    fast: bool, localhost: Credentials
) -> None:
    async with running(fast, "tls-websocket-tls-ping", localhost, b"hello") as bench:
        await bench.database.send_all(b"welcome")
        assert await bench.client.receive_some() == b"welcome"
        sent = 5
        with suppress(BlockingIOError):
            while True:
                sent += os.write(bench.client.socket.fileno(), bytes(65536))
                await trio.testing.wait_all_tasks_blocked()
        for _ in range(200):
            await ping(bench)
        assert not bench.ends
        received = 0
        with trio.fail_after(PATIENCE):
            while received < sent:
                received += len(await bench.database.receive_some())
        await bench.database.send_all(b"still there")
        assert await bench.client.receive_some() == b"still there"
        await bench.client.send_eof()
        assert await bench.database.receive_some() == b""
        await bench.database.send_eof()
        await until(lambda: bool(bench.ends))


@pytest.mark.usefixtures("soon")
async def test_a_receiver_beside_a_sender_that_waits_keeps_answers_up_to_a_limit() -> None:
    near, far = socket_pair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    async with LayeredStream(near) as stream, far:
        await stream.add_layer(WebSocketLayer())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(1 << 20))
            await trio.testing.wait_all_tasks_blocked()

            @nursery.start_soon
            async def _ask() -> None:
                for _ in range(2 * ASKED // 125):
                    await far.send_all(frame(WEBSOCKET_PING, bytes(125)))
                    await trio.testing.wait_all_tasks_blocked()

            with pytest.raises(UnreadAnswersError):
                await stream.receive_some()
            nursery.cancel_scope.cancel()


async def test_answers_that_wait_behind_a_sender_arrive_in_order_also_when_it_is_cancelled() -> (
    None
):
    near, far = socket_pair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    layer = WebSocketLayer()
    async with LayeredStream(near) as stream, far:
        await stream.add_layer(layer)
        async with trio.open_nursery() as nursery:
            sending = trio.CancelScope()

            @nursery.start_soon
            async def _send() -> None:
                with sending:
                    await stream.send_all(bytes(1 << 20))

            nursery.start_soon(stream.receive_some)
            for word in (b"one", b"two"):
                await trio.testing.wait_all_tasks_blocked()
                await far.send_all(frame(WEBSOCKET_PING, word))
            await trio.testing.wait_all_tasks_blocked()
            sending.cancel()
            await trio.testing.wait_all_tasks_blocked()
            heard, size = b"", (1 << 20) + 14
            far_layer, said = WebSocketLayer(), bytearray()

            @nursery.start_soon
            async def _say_the_rest() -> None:
                await stream.wait_send_all_might_not_block()
                await stream.send_all(b"end")

            with trio.fail_after(PATIENCE):
                while not said.endswith(b"end"):
                    piece = await far.receive_some()
                    heard += piece
                    said += far_layer.receive(piece)
            nursery.cancel_scope.cancel()
        assert said == bytes(1 << 20) + b"end"
        pongs = heard[size:].split(b"\x8a\x83\0\0\0\0")
        assert [pong[:3] for pong in pongs[1:]] == [b"one", b"two"]


async def test_a_failure_is_told_although_the_peer_does_not_read_what_it_is_told(
    localhost: Credentials,
) -> None:
    near, far = socket_pair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    stream, peer = LayeredStream(near), LayeredStream(far)
    async with stream, far, trio.open_nursery() as nursery:
        async with trio.open_nursery() as handshakes:
            handshakes.start_soon(stream.add_layer, client_layer())
            handshakes.start_soon(peer.add_layer, server_layer(localhost))
        nursery.start_soon(stream.send_all, bytes(1 << 20))
        await trio.testing.wait_all_tasks_blocked()
        stream._unsent = bytes(MOST_KEPT)
        await far.send_all(BROKEN_RECORD)
        with pytest.raises(TLSError) as caught:
            await stream.receive_some()
        assert caught.value.__notes__ == ["the peer does not read what it is told"]
        nursery.cancel_scope.cancel()
