"""Layered streams: early bytes, handshakes, ends, failures, cancellation, deadlocks, memory."""

import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from openssl_ends import client_layer, server_layer
from relay_bench import every_engine
from stream_ends import Duplex, FakeStream, lockstep_pair, memory_pair, receive_all, socket_pair
from tls_peers import BOTH_VERSIONS, Credentials, StdlibTLS, client_context, server_context
from trio.testing import MockClock

from dbproxy.layers import LayerStack, PingLayer, TLSError, TruncatedError
from dbproxy.layers.base import ByteData
from dbproxy.relay import FirstFlight, LayeredStream, RelayEngine, closed_on_failure
from dbproxy.relay.stream import READ_SIZE

Streams = tuple[LayeredStream, LayeredStream]
MakePair = Callable[[tuple[Duplex, Duplex], Credentials], Awaitable[Streams]]
MIB = 1024 * 1024
TLS_1_2, TLS_1_3 = BOTH_VERSIONS


async def plain_pair(ends: tuple[Duplex, Duplex], _localhost: Credentials) -> Streams:
    await trio.lowlevel.checkpoint()
    return LayeredStream(ends[0]), LayeredStream(ends[1])


async def tls_pair(ends: tuple[Duplex, Duplex], localhost: Credentials) -> Streams:
    client, server = LayeredStream(ends[0]), LayeredStream(ends[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.add_layer, client_layer())
        nursery.start_soon(server.add_layer, server_layer(localhost))
    return client, server


async def tls_ping_pair(ends: tuple[Duplex, Duplex], localhost: Credentials) -> Streams:
    client, server = await tls_pair(ends, localhost)
    await client.add_layer(PingLayer())
    await server.add_layer(PingLayer())
    return client, server


async def tls_inside(client: LayeredStream, server: LayeredStream, localhost: Credentials) -> None:
    """Put one more TLS layer on both ends."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.add_layer, client_layer())
        nursery.start_soon(server.add_layer, server_layer(localhost))


with_and_without_layers = pytest.mark.parametrize(
    "make_pair", [plain_pair, tls_pair, tls_ping_pair]
)


async def shake_hands_as_peer(peer: StdlibTLS, transport: Duplex) -> None:
    """The peer's side of a handshake; what it says last is left to the test to send."""
    peer.start()
    while peer.handshaking:
        if flight := peer.outgoing():
            await transport.send_all(flight)
        peer.receive(bytes(await transport.receive_some()))


class TestEarlyBytes:
    """Handshakes do not end where reads end."""

    @pytest.mark.parametrize("cut", range(len(b"\0\0\0\0\0\0\0\x08greeting") + 1))
    async def test_bytes_behind_a_handshake_belong_to_the_layer_that_is_added_next(
        self, localhost: Credentials, cut: int
    ) -> None:
        frames = b"\0\0\0\0\0\0\0\x08greeting"
        near, far = memory_pair()
        stream = LayeredStream(near)
        peer = StdlibTLS(server_context(localhost, version=TLS_1_2), server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.add_layer, client_layer())
            await shake_hands_as_peer(peer, far)
            peer.send(frames[:cut])  # leaves in one piece with the end of the handshake
            await far.send_all(peer.outgoing())
        await stream.add_layer(PingLayer())
        peer.send(frames[cut:])
        peer.send_eof()
        await far.send_all(peer.outgoing())
        assert await receive_all(stream) == b"greeting"

    async def test_a_first_message_and_an_end_may_come_with_the_end_of_the_handshake(
        self, localhost: Credentials
    ) -> None:
        near, far = memory_pair()
        stream = LayeredStream(near)
        peer = StdlibTLS(client_context(version=TLS_1_3), server_side=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.add_layer, server_layer(localhost))
            await shake_hands_as_peer(peer, far)
            peer.send(b"only message")
            peer.send_eof()
            await far.send_all(peer.outgoing())
        assert await stream.receive_some() == b"only message"
        assert await stream.receive_some() == b""

    async def test_bytes_taken_out_of_the_stream_can_be_given_to_the_new_layer(
        self, localhost: Credentials
    ) -> None:
        near, far = memory_pair()
        client, server = LayeredStream(near), LayeredStream(far)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.add_layer, client_layer())
            hello = await server.receive_some(5)
            nursery.start_soon(server.add_layer, server_layer(localhost), hello)
        await client.send_all(b"x")
        assert await server.receive_some() == b"x"

    async def test_bytes_that_are_put_back_come_first(self) -> None:
        near, far = memory_pair()
        stream = LayeredStream(near)
        await far.send_all(b"abcdef")
        await far.send_eof()
        taken = await stream.receive_some(4)
        stream.unread(b"")
        stream.unread(memoryview(taken)[1:])
        assert await stream.receive_some(2) == b"bc"
        assert await receive_all(stream) == b"def"

    async def test_bytes_that_are_put_back_belong_to_a_new_layer(self) -> None:
        near, far = memory_pair()
        stream = LayeredStream(near)
        stream.unread(b"\0\0\0\x08gree")
        await stream.add_layer(PingLayer())
        await far.send_all(b"ting")
        await far.send_eof()
        assert await receive_all(stream) == b"greeting"


class Talkative(LayerStack):
    """Has a lot to say about each thing that it receives."""

    def receive(self, data: ByteData) -> bytes:
        self.send(b"w" * (4 * MIB))
        return b""


class TestCancelledReceivers:
    """What a receiver has to say on the layers' account is not lost with it."""

    @asynccontextmanager
    async def cut_off_in_its_own_word(
        self,
    ) -> AsyncIterator[tuple[LayeredStream, trio.SocketStream]]:
        near, far = socket_pair()
        stream = LayeredStream(near)
        async with stream, far:
            await stream.add_layer(Talkative())
            await far.send_all(b"?")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.receive_some)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()  # a part of the word has been sent by now
            yield stream, far

    async def test_the_next_to_send_sends_the_rest_first(self) -> None:
        async with (
            self.cut_off_in_its_own_word() as (stream, far),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(send_and_close, stream, b"next")
            assert await receive_all(far) == b"w" * (4 * MIB) + b"next"

    async def test_the_next_to_receive_sends_the_rest(self) -> None:
        async with (
            self.cut_off_in_its_own_word() as (stream, far),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(stream.receive_some)
            await far.send_all(b"?")
            assert await receive_exactly(far, 8 * MIB) == b"w" * (8 * MIB)
            nursery.cancel_scope.cancel()

    async def test_whoever_borrows_the_socket_has_the_rest(self) -> None:
        async with self.cut_off_in_its_own_word() as (stream, far):
            rest = stream.take_unsent()
            assert 0 < len(rest) < 4 * MIB
            assert stream.take_unsent() == b""
            assert await receive_exactly(far, 4 * MIB - len(rest)) == b"w" * (4 * MIB - len(rest))

    @every_engine
    async def test_a_relay_sends_the_rest_before_what_it_carries(self, fast: bool) -> None:
        near, database = socket_pair()
        upstream = LayeredStream(near)
        engine = RelayEngine(fast=fast)
        async with (
            self.cut_off_in_its_own_word() as (stream, far),
            upstream,
            database,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(engine.run)
            nursery.start_soon(engine.relay(stream, upstream, FirstFlight(), lambda: None).run)
            await database.send_all(b"answer")
            expected = b"w" * (4 * MIB) + b"answer"
            assert await receive_exactly(far, len(expected)) == expected
            nursery.cancel_scope.cancel()


async def test_a_sender_waits_for_what_a_receiver_has_to_say() -> None:
    near, far = socket_pair()
    stream = LayeredStream(near)
    async with stream, far, trio.open_nursery() as nursery:
        await stream.add_layer(Talkative())
        await far.send_all(b"?")
        nursery.start_soon(stream.receive_some)
        await trio.testing.wait_all_tasks_blocked()  # a part of the word has been sent by now
        nursery.start_soon(stream.send_all, b"next")
        await trio.testing.wait_all_tasks_blocked()
        expected = b"w" * (4 * MIB) + b"next"
        assert await receive_exactly(far, len(expected)) == expected
        nursery.cancel_scope.cancel()


async def receive_exactly(stream: trio.SocketStream, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        received += await stream.receive_some(size - len(received))
    return bytes(received)


async def send_and_close(stream: LayeredStream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.aclose()


async def test_a_peer_that_sends_nothing_but_pings_keeps_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    near, far = socket_pair()
    reads = 0

    async def there_is_always_a_ping(*_arguments: object, **_options: object) -> bytes:
        nonlocal reads
        reads += 1
        return bytes(4) if reads < 1000 else b"\0\0\0\1x"

    monkeypatch.setattr("dbproxy.relay.stream.receive_now", there_is_always_a_ping)
    async with LayeredStream(near) as stream, far:
        await stream.add_layer(PingLayer())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some)
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    assert reads < 10


class TestLastWords:
    """What a client's handshake ends with may leave with its first message."""

    async def shake_hands(self, localhost: Credentials) -> tuple[LayeredStream, StdlibTLS, Duplex]:
        """A stream that has kept its last word, and its peer, which waits for that."""
        near, far = memory_pair()
        stream = LayeredStream(near)
        peer = StdlibTLS(server_context(localhost, version=TLS_1_3), server_side=True)
        peer.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(stream.add_layer, client_layer(), keep_last_word=True))
            peer.receive(bytes(await far.receive_some()))
            await far.send_all(peer.outgoing())
        await stream.add_layer(PingLayer())
        await assert_nothing_comes(far)
        assert peer.handshaking
        return stream, peer, far

    async def test_both_leave_in_one_piece(self, localhost: Credentials) -> None:
        stream, peer, far = await self.shake_hands(localhost)
        await stream.send_all(b"hello")
        assert peer.receive(bytes(await far.receive_some())) == b"\0\0\0\x05hello"

    async def test_an_end_takes_it_along(self, localhost: Credentials) -> None:
        stream, peer, far = await self.shake_hands(localhost)
        await stream.send_eof()
        peer.receive(bytes(await far.receive_some()))
        assert peer.ended

    async def test_it_does_not_wait_while_the_stream_receives(self, localhost: Credentials) -> None:
        stream, peer, far = await self.shake_hands(localhost)

        async def greet() -> None:
            peer.receive(bytes(await far.receive_some()))
            assert not peer.handshaking
            peer.send(b"\0\0\0\x08greeting")
            await far.send_all(peer.outgoing())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(greet)
            assert await stream.receive_some() == b"greeting"

    async def test_it_is_kept_once_only(self, localhost: Credentials) -> None:
        stream, peer, far = await self.shake_hands(localhost)
        await stream.send_all(b"x")
        peer.receive(bytes(await far.receive_some()))
        peer.send(b"\0\0\0\x01y")
        await far.send_all(peer.outgoing())
        assert await stream.receive_some() == b"y"
        await assert_nothing_comes(far)


async def assert_nothing_comes(stream: trio.abc.ReceiveStream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_when_received, stream)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


class TestFailedHandshakes:
    """Who is told what."""

    async def test_an_end_of_the_transport_is_truncation(self) -> None:
        near, far = memory_pair()
        await far.send_eof()
        with pytest.raises(TruncatedError):
            await LayeredStream(near).add_layer(client_layer())

    async def test_an_end_of_the_layer_below_is_truncation(self, localhost: Credentials) -> None:
        client, server = await tls_pair(memory_pair(), localhost)
        await server.send_eof()
        with pytest.raises(TruncatedError, match="during the handshake"):
            await client.add_layer(client_layer())

    async def test_a_peer_that_talks_nonsense_is_sent_an_alert(
        self, localhost: Credentials
    ) -> None:
        transport = FakeStream(b"\x16\x03\x01\0\4\1\0\0\0")
        with pytest.raises(TLSError):
            await LayeredStream(transport).add_layer(server_layer(localhost))
        assert transport.sent[:6] == b"\x15\x03\x03\0\2\2"

    async def test_an_alert_that_cannot_be_sent_does_not_hide_the_failure(
        self, localhost: Credentials
    ) -> None:
        transport = FakeStream(b"\x16\x03\x01\0\4\1\0\0\0", send_error=trio.BrokenResourceError())
        with pytest.raises(TLSError) as caught:
            await LayeredStream(transport).add_layer(server_layer(localhost))
        assert caught.value.__notes__ == ["the peer was gone before it could be told"]

    async def test_a_handshake_that_is_cancelled_can_be_closed(
        self, autojump_clock: MockClock
    ) -> None:
        near, far = memory_pair()
        stream = LayeredStream(near)
        with trio.move_on_after(1) as scope:
            await stream.add_layer(client_layer())
        assert scope.cancelled_caught
        await stream.aclose()
        await receive_all(far)


class TestEnds:
    """Half-close, truncation and closing."""

    @with_and_without_layers
    async def test_an_end_leaves_the_other_direction_open(
        self, make_pair: MakePair, localhost: Credentials
    ) -> None:
        client, server = await make_pair(socket_pair(), localhost)
        async with client, server:
            await client.send_all(b"question")
            await client.send_eof()
            await client.send_eof()
            assert await receive_all(server) == b"question"
            await server.send_all(b"answer")
            await server.send_eof()
            assert await receive_all(client) == b"answer"
            assert await client.receive_some() == b"", "an end stays an end"

    async def test_without_layers_the_transport_is_half_closed(self) -> None:
        transport = FakeStream()
        await LayeredStream(transport).send_eof()
        assert transport.eof_sent

    async def test_with_layers_the_transport_stays_open_in_both_directions(
        self, localhost: Credentials
    ) -> None:
        near, far = memory_pair()
        stream = LayeredStream(near)
        peer = StdlibTLS(server_context(localhost), server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.add_layer, client_layer())
            await shake_hands_as_peer(peer, far)
            await far.send_all(peer.outgoing())
        await stream.send_eof()
        peer.receive(bytes(await far.receive_some()))
        assert peer.ended
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_received, far)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    async def test_tls_in_tls_tells_the_end_inside_only(self, localhost: Credentials) -> None:
        client, server = await tls_pair(memory_pair(), localhost)
        await tls_inside(client, server, localhost)
        await client.send_eof()
        assert await receive_all(server) == b""
        assert isinstance(server.transport, trio.StapledStream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_received, server.transport)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    async def test_tls_in_tls_may_end_inside_only(self, localhost: Credentials) -> None:
        client, server = await tls_pair(memory_pair(), localhost)
        await tls_inside(client, server, localhost)
        await server.send_all(b"last")
        await server.send_eof()
        await server.aclose()
        assert await receive_all(client) == b"last"

    async def test_tls_in_tls_that_ends_outside_only_is_truncated(
        self, localhost: Credentials
    ) -> None:
        client, balancer = await tls_pair(memory_pair(), localhost)
        inner = server_layer(localhost)
        inner.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.add_layer, client_layer())
            while inner.handshaking:
                inner.receive(await balancer.receive_some())
                await balancer.send_all(inner.outgoing())
        await balancer.send_eof()
        with pytest.raises(TruncatedError):
            await client.receive_some()

    async def test_after_the_end_nothing_can_be_sent(self, localhost: Credentials) -> None:
        client, _server = await tls_pair(memory_pair(), localhost)
        await client.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await client.send_all(b"x")

    @pytest.mark.parametrize("make_pair", [tls_pair, tls_ping_pair])
    async def test_a_connection_cut_short_is_truncation_each_time_one_asks(
        self, make_pair: MakePair, localhost: Credentials
    ) -> None:
        client, server = await make_pair(memory_pair(), localhost)
        await server.send_all(b"half a mess")
        await server.aclose()
        assert await client.receive_some() == b"half a mess"
        for _ in range(2):
            with pytest.raises(TruncatedError):
                await client.receive_some()

    async def test_a_ping_frame_cut_short_is_truncation_in_spite_of_a_close_notify(
        self, localhost: Credentials
    ) -> None:
        client, server = await tls_pair(memory_pair(), localhost)
        await client.add_layer(PingLayer())
        await server.send_all(b"\0\0\0\x05abc")
        await server.send_eof()
        assert await client.receive_some() == b"abc"
        with pytest.raises(TruncatedError, match="ping frame"):
            await client.receive_some()


async def fail_when_received(stream: trio.abc.ReceiveStream) -> None:
    received = bytes(await stream.receive_some())
    pytest.fail(f"received {received!r}")


class TestReceiving:
    """Sizes, failures behind good bytes, what is held in memory."""

    @with_and_without_layers
    async def test_no_more_bytes_come_than_were_asked_for(
        self, make_pair: MakePair, localhost: Credentials
    ) -> None:
        client, server = await make_pair(memory_pair(), localhost)
        await server.send_all(b"abcdef")
        assert await client.receive_some(1) == b"a"
        assert await client.receive_some(3) == b"bcd"
        assert await client.receive_some(100) == b"ef"

    async def test_a_failure_behind_good_bytes_is_raised_without_waiting_for_more(
        self, localhost: Credentials, autojump_clock: MockClock
    ) -> None:
        near, far = memory_pair()
        stream = LayeredStream(near)
        peer = StdlibTLS(server_context(localhost), server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.add_layer, client_layer())
            await shake_hands_as_peer(peer, far)
            await far.send_all(peer.outgoing())
        peer.send(b"good")
        await far.send_all(peer.outgoing() + b"\x17\x03\x03\x00\x20" + bytes(32))
        assert await stream.receive_some() == b"good"
        with trio.fail_after(1), pytest.raises(TLSError, match="bad record mac"):
            await stream.receive_some()
        sent = bytes(await far.receive_some())
        with pytest.raises(ssl.SSLError, match="ALERT_BAD_RECORD_MAC"):
            peer.receive(sent)

    @with_and_without_layers
    async def test_one_read_takes_no_more_than_one_batch_from_the_transport(
        self, make_pair: MakePair, localhost: Credentials
    ) -> None:
        client, server = await make_pair(memory_pair(), localhost)
        await server.send_all(bytes(4 * MIB))
        assert READ_SIZE / 2 < len(await client.receive_some()) <= READ_SIZE


class TestTwoAtOnce:
    """One task sends and one receives; more is a mistake, and neither waits for the other."""

    @with_and_without_layers
    async def test_two_flows_against_each_other_do_not_block_each_other(
        self, make_pair: MakePair, localhost: Credentials
    ) -> None:
        client, server = await make_pair(socket_pair(), localhost)
        up, down = random.Random(1).randbytes(4 * MIB), random.Random(2).randbytes(4 * MIB)
        received: dict[str, bytes] = {}

        async def send(stream: LayeredStream, data: bytes) -> None:
            await stream.send_all(data)
            await stream.send_eof()

        async def receive(stream: LayeredStream, name: str) -> None:
            received[name] = await receive_all(stream)

        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(send, client, up)
            nursery.start_soon(send, server, down)
            nursery.start_soon(receive, client, "down")
            nursery.start_soon(receive, server, "up")
        assert received["up"] == up
        assert received["down"] == down

    @with_and_without_layers
    async def test_receiving_goes_on_while_sending_is_stuck(
        self, make_pair: MakePair, localhost: Credentials
    ) -> None:
        client, server = await make_pair(socket_pair(), localhost)
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, bytes(4 * MIB))
            await trio.testing.wait_all_tasks_blocked()
            await server.send_all(b"still here")
            with trio.fail_after(5):
                assert await client.receive_some() == b"still here"
            nursery.cancel_scope.cancel()

    async def test_a_failure_is_not_kept_back_by_a_peer_that_does_not_read(
        self, localhost: Credentials, autojump_clock: MockClock
    ) -> None:
        near, far = lockstep_pair()
        stream = LayeredStream(near)
        peer = StdlibTLS(server_context(localhost, version=TLS_1_2), server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.add_layer, client_layer())
            await shake_hands_as_peer(peer, far)
            await far.send_all(peer.outgoing())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"stuck")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(far.send_all, b"\x17\x03\x03\x00\x20" + bytes(32))
            with trio.fail_after(1), pytest.raises(TLSError):
                await stream.receive_some()
            assert peer.receive(bytes(await far.receive_some())) == b"stuck"
            alert = bytes(await far.receive_some())
            with pytest.raises(ssl.SSLError, match="ALERT_BAD_RECORD_MAC"):
                peer.receive(alert)

    async def test_a_second_receiver_is_turned_away(self, autojump_clock: MockClock) -> None:
        near, _far = memory_pair()
        stream = LayeredStream(near)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await stream.receive_some()
            nursery.cancel_scope.cancel()


class TestCancellation:
    """Receiving can be cancelled; everything else can be closed."""

    @with_and_without_layers
    async def test_a_cancelled_receive_loses_no_byte(
        self, make_pair: MakePair, localhost: Credentials, autojump_clock: MockClock
    ) -> None:
        client, server = await make_pair(memory_pair(), localhost)
        chance = random.Random(7)
        data = chance.randbytes(20_000)

        async def send() -> None:
            left = data
            while left:
                size = chance.randrange(1, 300)
                await server.send_all(left[:size])
                left = left[size:]
                await trio.sleep(chance.random())
            await server.send_eof()

        received, cancelled, ended = b"", 0, False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while not ended:
                with trio.move_on_after(chance.random()) as scope:
                    piece = await client.receive_some(chance.randrange(1, 400))
                    received, ended = received + piece, not piece
                cancelled += scope.cancelled_caught
        assert received == data
        assert cancelled > 10

    @with_and_without_layers
    @pytest.mark.parametrize("checkpoints", range(6))
    async def test_a_receive_cancelled_at_any_point_loses_no_byte(
        self, make_pair: MakePair, localhost: Credentials, checkpoints: int
    ) -> None:
        client, server = await make_pair(memory_pair(), localhost)
        await server.send_all(b"message")
        received = b""
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                nonlocal received
                received = await client.receive_some()

            nursery.start_soon(receive)
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert received or await client.receive_some() == b"message"

    @pytest.mark.parametrize("operation", ["send_all", "wait_send_all_might_not_block"])
    async def test_a_stuck_sender_can_be_cancelled_and_closed(
        self, operation: str, localhost: Credentials
    ) -> None:
        near, far = lockstep_pair()
        stream = LayeredStream(near)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                arguments = (b"x",) if operation == "send_all" else ()
                nursery.start_soon(getattr(stream, operation), *arguments)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")
        assert await far.receive_some() in (b"", b"x")


class TestClosingOnFailure:
    async def test_the_stream_stays_open_where_nothing_fails(self) -> None:
        transport = FakeStream()
        async with closed_on_failure(LayeredStream(transport)):
            await trio.lowlevel.checkpoint()
        assert not transport.closed

    async def test_a_failure_closes_the_stream_and_goes_on(self) -> None:
        transport = FakeStream()
        with pytest.raises(TruncatedError, match="in the middle"):
            async with closed_on_failure(LayeredStream(transport)):
                raise TruncatedError("in the middle")
        assert transport.closed

    async def test_a_cancelled_block_closes_the_stream(self) -> None:
        transport = FakeStream()
        with trio.CancelScope() as scope:
            async with closed_on_failure(LayeredStream(transport)):
                scope.cancel()
                await transport.receive_some()
        assert scope.cancelled_caught
        assert transport.closed
