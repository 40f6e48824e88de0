"""Streams on which nobody has anything to say yet."""

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from lab_client import until
from relay_bench import layered_pair
from stream_ends import socket_pair
from tls_peers import Credentials
from websocket_frames import frame, split

from dbproxy.layers import Layer, LayerError, PingLayer, TruncatedError, WebSocketLayer
from dbproxy.relay import LayeredStream, SilenceError, take_in, wait_until_readable

PING = bytes(4)
WEBSOCKET_PING, WEBSOCKET_PONG = 9, 10


@asynccontextmanager
async def quiet_pair(
    layer: Layer | None = None,
) -> AsyncIterator[tuple[LayeredStream, trio.SocketStream]]:
    """A stream with a layer, and the bare far end."""
    near, far = socket_pair()
    async with LayeredStream(near) as stream, far:
        if layer is not None:
            await stream.add_layer(layer)
        yield stream, far


async def test_when_nothing_has_come_there_is_nothing() -> None:
    async with quiet_pair() as (stream, _far):
        assert take_in(stream) is None


async def test_pings_are_taken_in_and_counted_also_in_pieces() -> None:
    ping = PingLayer()
    async with quiet_pair(ping) as (stream, far):
        await far.send_all(PING + PING[:3])
        assert take_in(stream) is None
        await far.send_all(PING[3:])
        assert take_in(stream) is None
        assert ping.pings_received == 2
        await far.send_all(b"\0\0\0\2hi")
        assert await stream.receive_some() == b"hi"


async def test_more_than_one_read_is_taken_in() -> None:
    ping = PingLayer()
    async with quiet_pair(ping) as (stream, far):
        near = stream.transport
        assert isinstance(near, trio.SocketStream)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        await far.send_all(PING * 10_000)
        assert take_in(stream) is None
        assert ping.pings_received == 10_000


async def test_a_peer_that_sends_without_a_pause_does_not_keep_others_from_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ping = PingLayer()
    async with quiet_pair(ping) as (stream, _far):
        with monkeypatch.context() as patch:
            patch.setattr("dbproxy.relay.quiet.os.read", lambda _descriptor, size: bytes(size))
            assert take_in(stream) is None
        assert 0 < ping.pings_received < 100_000


async def test_what_a_peer_says_comes_out() -> None:
    async with quiet_pair(PingLayer()) as (stream, far):
        await far.send_all(PING + b"\0\0\0\2hi")
        assert take_in(stream) == b"hi"


async def test_what_came_with_the_handshake_counts_too() -> None:
    async with quiet_pair() as (stream, _far):
        stream.unread(b"early")
        assert take_in(stream) == b"early"
        assert take_in(stream) is None


async def test_a_clean_end_is_no_bytes() -> None:
    async with quiet_pair(PingLayer()) as (stream, far):
        await far.send_eof()
        assert take_in(stream) == b""


async def test_an_end_in_the_middle_is_an_error() -> None:
    async with quiet_pair(PingLayer()) as (stream, far):
        await far.send_all(PING[:2])
        await far.send_eof()
        assert take_in(stream) is None
        with pytest.raises(TruncatedError):
            take_in(stream)


async def test_a_reset_is_a_broken_connection() -> None:
    async def reset(accepted: trio.SocketStream) -> None:
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.socket.close()

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        async with LayeredStream(await trio.open_tcp_stream("127.0.0.1", port)) as stream:
            await reset(await listener.accept())
            await wait_until_readable(stream)
            with pytest.raises(trio.BrokenResourceError):
                take_in(stream)


async def test_a_layer_that_answers_is_heard() -> None:
    async with quiet_pair(WebSocketLayer()) as (stream, far):
        await far.send_all(frame(WEBSOCKET_PING, b"teleport"))
        assert take_in(stream) is None
        (answer, *more), rest = split(bytes(await far.receive_some()))
        assert (answer, more, rest) == ((WEBSOCKET_PONG, b"teleport"), [], b"")


async def test_a_peer_that_does_not_take_the_answer_is_given_up() -> None:
    async with quiet_pair(WebSocketLayer()) as (stream, far):
        near = stream.transport
        assert isinstance(near, trio.SocketStream)
        with trio.move_on_after(0.05):
            await near.send_all(bytes(16 << 20))
        await far.send_all(frame(WEBSOCKET_PING, b"x"))
        with pytest.raises(trio.BrokenResourceError):
            take_in(stream)


async def test_tickets_of_tls_are_taken_in_and_a_broken_record_is_an_error(
    localhost: Credentials,
) -> None:
    stream, server, far = await layered_pair("tls", localhost)
    async with stream, server:
        await until(stream.lend()[0].socket.is_readable)
        assert take_in(stream) is None
        await server.send_all(b"hello")
        assert take_in(stream) == b"hello"
        await far.send_all(b"\x17\x03\x03\x00\x05wrong")
        with pytest.raises(LayerError):
            take_in(stream)


async def test_the_end_of_tls_is_an_end(localhost: Credentials) -> None:
    stream, server, _far = await layered_pair("tls", localhost)
    async with stream, server:
        await server.send_eof()
        assert take_in(stream) == b""


async def test_an_end_that_came_with_what_was_taken_is_no_news_but_an_end(
    localhost: Credentials,
) -> None:
    stream, server, far = await layered_pair("tls", localhost)
    async with stream, server:
        layers = server.lend()[1]
        layers.send(b"bye")
        layers.send_eof()
        await far.send_all(layers.outgoing())
        assert take_in(stream) == b"bye"
        with trio.fail_after(5):
            await wait_until_readable(stream)
        assert take_in(stream) == b""


async def test_who_sends_a_broken_record_is_told(localhost: Credentials) -> None:
    stream, server, far = await layered_pair("tls", localhost)
    async with stream, server:
        await far.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(LayerError, match=r"bad record mac|decryption failed"):
            take_in(stream)
        with pytest.raises(LayerError, match="alert bad record mac"):
            await server.receive_some()


async def test_who_sends_a_broken_record_and_is_gone_is_told_of_as_broken() -> None:
    async with quiet_pair(WebSocketLayer()) as (stream, far):
        await far.send_all(frame(WEBSOCKET_PING, b"x") + b"\xf2\0")
        await far.aclose()
        with pytest.raises(LayerError) as failure:
            take_in(stream)
        assert failure.value.__notes__ == ["the peer could not be told"]


async def test_what_was_on_its_way_goes_first() -> None:
    async with quiet_pair(WebSocketLayer()) as (stream, far):
        stream._unsent = b"begun"
        await far.send_all(frame(WEBSOCKET_PING, b"x"))
        assert take_in(stream) is None
        assert bytes(await far.receive_some()).startswith(b"begun\x8a")


async def test_an_answer_that_is_taken_in_part_is_not_taken() -> None:
    async with quiet_pair(WebSocketLayer()) as (stream, far):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dbproxy.relay.quiet.os.write", lambda _descriptor, word: len(word) - 1)
            await far.send_all(frame(WEBSOCKET_PING, b"x"))
            with pytest.raises(trio.BrokenResourceError):
                take_in(stream)


async def test_waiting_ends_when_something_has_come_and_reads_nothing() -> None:
    async with quiet_pair() as (stream, far), trio.open_nursery() as nursery:
        nursery.start_soon(far.send_all, b"x")
        with trio.fail_after(5):
            await wait_until_readable(stream)
        assert take_in(stream) == b"x"


async def test_a_peer_that_has_promised_to_speak_may_not_be_silent() -> None:
    async with quiet_pair() as (stream, _far):
        stream.patience = lambda: 0.02
        with pytest.raises(SilenceError):
            await wait_until_readable(stream)


async def test_waiting_can_be_cancelled_and_the_stream_used_at_once() -> None:
    async with quiet_pair() as (stream, far), trio.open_nursery() as nursery:
        nursery.start_soon(wait_until_readable, stream)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await far.send_all(b"x")
            assert await stream.receive_some() == b"x"
