"""One accepted client: its first packets, its TLS, and how it is told why not."""

import ssl
from collections.abc import Callable, Sequence

import pytest
import trio
import trio.testing
from identities import make_authority
from loopback import TLSStream, wait_for_end
from openssl_ends import server_layer
from stream_ends import (
    Duplex,
    FakeStream,
    Pause,
    lockstep_pair,
    memory_pair,
    receive_all,
    socket_pair,
)
from tls_peers import Credentials, client_context, make_credentials
from trio.testing import MockClock

from dbproxy.downstream import TCPAddress, open_listener
from dbproxy.downstream.client import _LINGER, _REFUSAL_TIMEOUT, Client, ClientGone
from dbproxy.errors import ClientError, Code, DBProxyError, UpstreamError
from dbproxy.layers import Layer, TruncatedError
from dbproxy.layers.base import ByteData
from dbproxy.protocols import Carry, Prologue, PrologueEvent, Reply, StartTLS

DOWN = UpstreamError(Code.UPSTREAM_UNREACHABLE, "down")
CARRY = Carry(b"all", authenticate=True)


class Scripted(Prologue):
    """Answers each line with a reply, until `go` is received; refuses what begins with `bad`."""

    def __init__(self, end: PrologueEvent = CARRY, refusal: bytes = b"NO") -> None:
        self._end = end
        self._refusal = refusal
        self.received = b""

    def receive(self, data: bytes) -> Sequence[PrologueEvent]:
        self.received += data
        if data.startswith(b"bad"):
            raise ClientError(Code.CLIENT_PROTOCOL_ERROR, "bad")
        replies = [Reply(line.upper()) for line in data.split() if line != b"go"]
        return [*replies, self._end] if b"go" in data else replies

    @property
    def started(self) -> bool:
        return bool(self.received)

    def refusal(self, error: DBProxyError) -> bytes:
        assert error is DOWN
        return self._refusal


class Insisting(Scripted):
    """Of a protocol whose clients go on asking; what begins with `quiet` needs no answer."""

    def further(self, error: DBProxyError) -> Callable[[bytes], bytes]:
        assert error is DOWN
        return lambda said: b"" if said.startswith(b"quiet") else b"no " + said


@pytest.fixture(scope="module")
def localhost() -> Credentials:
    return make_credentials(make_authority("local"), "localhost")


class TestPrologue:
    """Driving it."""

    async def test_replies_are_sent_until_it_says_how_to_go_on(self) -> None:
        transport = FakeStream(b"one ", b"two three", b"four go", b"never read")
        client = Client(transport)
        assert await client.read_prologue(Scripted()) is CARRY
        assert transport.sent == b"ONETWOTHREEFOUR"
        assert client.spoke

    async def test_what_cannot_be_served_is_raised(self) -> None:
        with pytest.raises(ClientError, match="bad"):
            await Client(FakeStream(b"one", b"bad")).read_prologue(Scripted())

    @pytest.mark.parametrize("before", [[], [b"one"]])
    @pytest.mark.parametrize(
        ("end", "words"),
        [
            (b"", "closed the connection before its first message was complete"),
            (trio.BrokenResourceError(), "reset the connection"),
            (TruncatedError("cut"), "broke off: cut"),
        ],
    )
    async def test_a_client_that_goes_away_is_gone(
        self, before: list[bytes], end: bytes | Exception, words: str
    ) -> None:
        client = Client(FakeStream(*before, end))
        with pytest.raises(ClientGone, match=words):
            await client.read_prologue(Scripted())
        assert client.spoke is bool(before)

    async def test_a_client_that_cannot_be_answered_is_gone(self) -> None:
        transport = FakeStream(b"one", send_error=trio.BrokenResourceError())
        with pytest.raises(ClientGone):
            await Client(transport).read_prologue(Scripted())

    async def test_a_client_that_has_spoken_once_has_spoken(self) -> None:
        client = Client(FakeStream(b"go", b""))
        await client.read_prologue(Scripted(StartTLS()))
        with pytest.raises(ClientGone):
            await client.read_prologue(Scripted())
        assert client.spoke

    async def test_reading_can_be_cancelled(self, autojump_clock: MockClock) -> None:
        with trio.move_on_after(1) as scope:
            await Client(FakeStream(b"one")).read_prologue(Scripted())
        assert scope.cancelled_caught


class TestTLS:
    """Ending the client's TLS."""

    async def test_what_follows_comes_out_of_tls(self, localhost: Credentials) -> None:
        near, far = memory_pair()
        client, tls = Client(near), TLSStream(far, client_context(), server_side=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tls.do_handshake)
            await client.start_tls(server_layer(localhost), b"")
        await tls.send_all(b"go")
        assert await client.read_prologue(Scripted()) is CARRY

    async def test_a_client_that_does_not_trust_us_has_failed_the_handshake(
        self, localhost: Credentials
    ) -> None:
        near, far = memory_pair()
        client = Client(near)
        tls = TLSStream(far, client_context(make_authority("other")), server_side=False)

        async def shake_hands() -> None:
            with pytest.raises(ssl.SSLCertVerificationError):
                await tls.do_handshake()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake_hands)
            with pytest.raises(ClientError, match="unknown ca") as caught:
                await client.start_tls(server_layer(localhost), b"")
        assert caught.value.code is Code.CLIENT_TLS_FAILED

    @pytest.mark.parametrize(
        ("script", "error"),
        [
            ([b""], ClientError),
            ([b"GET / HTTP/1.1\r\n"], ClientError),
            ([trio.BrokenResourceError()], ClientGone),
        ],
    )
    async def test_a_client_that_breaks_off_is_refused_or_gone(
        self, script: list[bytes | Exception], error: type[Exception], localhost: Credentials
    ) -> None:
        with pytest.raises(error):
            await Client(FakeStream(*script)).start_tls(server_layer(localhost), b"")

    async def test_after_a_failed_handshake_no_message_of_the_database_is_sent(
        self, localhost: Credentials
    ) -> None:
        transport = FakeStream(b"go", b"GET / HTTP/1.1\r\n", b"")
        client = Client(transport)
        await client.read_prologue(Scripted(StartTLS()))
        with pytest.raises(ClientError):
            await client.start_tls(server_layer(localhost), b"")
        sent = transport.sent
        await client.refuse(DOWN)
        assert transport.sent == sent


class TestRefusal:
    """It must arrive, and must not take forever."""

    async def refused(self, transport: Duplex, prologue: Prologue | None = None) -> Client:
        client = Client(transport)
        await client.read_prologue(prologue or Scripted())
        await client.refuse(DOWN)
        return client

    async def test_the_message_is_sent_and_then_the_end(self) -> None:
        transport = FakeStream(b"go", b"")
        await self.refused(transport)
        assert transport.sent == b"NO"
        assert transport.eof_sent

    async def test_a_client_that_still_talks_is_listened_to_until_it_ends(self) -> None:
        transport = FakeStream(b"go", b"much", Pause.UNTIL_IDLE, b"more", b"", b"not this")
        await self.refused(transport)
        assert transport._script == [b"not this"]

    async def test_it_arrives_although_the_client_has_sent_what_nobody_has_read(self) -> None:
        async with await open_listener(TCPAddress("127.0.0.1", 0)) as listener:
            far = await trio.open_tcp_stream(*listener.socket.getsockname())
            client = Client(await listener.accept())
        await far.send_all(b"go")
        await client.read_prologue(Scripted())
        await far.send_all(b"x" * 100_000)  # closing over these would reset the connection

        async def refuse_and_close() -> None:
            await client.refuse(DOWN)
            await client.close()

        async with far, trio.open_nursery() as nursery:
            nursery.start_soon(refuse_and_close)
            await trio.testing.wait_all_tasks_blocked()
            assert await receive_all(far) == b"NO"
            await far.send_eof()

    async def test_a_client_that_never_reads_it_is_given_up(
        self, autojump_clock: MockClock
    ) -> None:
        near, far = lockstep_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far.send_all, b"go")
            await self.refused(near)
        assert trio.current_time() == pytest.approx(_REFUSAL_TIMEOUT)

    async def test_a_client_that_never_ends_is_given_up(self, autojump_clock: MockClock) -> None:
        await self.refused(FakeStream(b"go"))
        assert trio.current_time() == pytest.approx(_LINGER)

    async def test_a_client_that_talks_forever_is_given_up(self, autojump_clock: MockClock) -> None:
        near, far = lockstep_pair()

        async def talk() -> None:
            while True:
                await trio.sleep(_LINGER / 3)
                await far.send_all(b"go")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            nursery.start_soon(wait_for_end, far)
            with trio.fail_after(_REFUSAL_TIMEOUT + 2 * _LINGER):
                await self.refused(near)
            nursery.cancel_scope.cancel()

    @pytest.mark.parametrize("good_sends", [0, 1])
    async def test_a_client_that_is_gone_by_then_is_no_failure(self, good_sends: int) -> None:
        await self.refused(
            FakeStream(
                b"go",
                trio.BrokenResourceError(),
                send_error=trio.BrokenResourceError(),
                eof_error=trio.BrokenResourceError(),
                good_sends=good_sends,
            )
        )

    async def test_where_the_protocol_has_no_answer_only_the_end_is_sent(self) -> None:
        transport = FakeStream(b"go", b"")
        await self.refused(transport, Scripted(refusal=b""))
        assert transport.sent == b""
        assert transport.eof_sent

    async def test_a_client_whose_prologue_has_not_begun_is_not_told(self) -> None:
        transport = FakeStream()
        await Client(transport).refuse(DOWN)
        assert transport.sent == b""

    async def test_inside_tls_it_is_told_inside_tls(self, localhost: Credentials) -> None:
        near, far = memory_pair()
        client, tls = Client(near), TLSStream(far, client_context(), server_side=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tls.do_handshake)
            await client.start_tls(server_layer(localhost), b"")
        await tls.send_all(b"go")
        await client.read_prologue(Scripted())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.refuse, DOWN)
            assert await receive_all(tls) == b"NO"
            await tls.aclose()

    async def test_it_can_be_cancelled(self, autojump_clock: MockClock) -> None:
        with trio.move_on_after(_LINGER / 2) as scope:
            await self.refused(FakeStream(b"go"))
        assert scope.cancelled_caught


class TestAskingOn:
    """A client that passes over its first refusals is refused again, before the end is sent."""

    async def refused(self, transport: Duplex) -> None:
        client = Client(transport)
        await client.read_prologue(Insisting())
        await client.refuse(DOWN)

    async def test_each_question_is_answered_until_the_client_ends(self) -> None:
        transport = FakeStream(b"go", b"one", b"quiet", Pause.UNTIL_IDLE, b"two", b"", b"not this")
        await self.refused(transport)
        assert transport.sent == b"NOno oneno two"
        assert transport.sends == 3
        assert transport.eof_sent

    async def test_a_client_that_asks_forever_is_given_up(self, autojump_clock: MockClock) -> None:
        near, far = lockstep_pair()

        async def ask() -> None:
            while True:
                await trio.sleep(_LINGER / 3)
                await far.send_all(b"go")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(receive_all, far)
            with trio.fail_after(_REFUSAL_TIMEOUT + 2 * _LINGER):
                await self.refused(near)
            nursery.cancel_scope.cancel()

    async def test_a_client_that_says_nothing_more_gets_the_end_after_a_moment(
        self, autojump_clock: MockClock
    ) -> None:
        transport = FakeStream(b"go")
        await self.refused(transport)
        assert transport.eof_sent
        assert trio.current_time() == pytest.approx(2 * _LINGER)

    @pytest.mark.parametrize("good_sends", [0, 1])
    async def test_a_client_that_is_gone_by_then_is_no_failure(self, good_sends: int) -> None:
        reset = trio.BrokenResourceError()
        await self.refused(FakeStream(b"go", b"one", send_error=reset, good_sends=good_sends))
        await self.refused(FakeStream(b"go", reset))

    async def test_it_can_be_cancelled(self, autojump_clock: MockClock) -> None:
        with trio.move_on_after(_LINGER / 2) as scope:
            await self.refused(FakeStream(b"go"))
        assert scope.cancelled_caught


async def test_closing_closes_the_transport_at_once() -> None:
    transport = FakeStream()
    await Client(transport).close()
    assert transport.closed


class Talkative(Layer):
    """Answers whatever comes with more than a socket takes, as TLS answers requests for new keys.

    Args:
        handshaking: Whether its handshake never ends.
    """

    def __init__(self, *, handshaking: bool) -> None:
        self._handshaking = handshaking
        self._answers = b""

    @property
    def handshaking(self) -> bool:
        return self._handshaking

    @property
    def ended(self) -> bool:
        return False

    @property
    def announces_end(self) -> bool:
        return False

    def start(self) -> None:
        pass

    def receive(self, data: ByteData) -> bytes:
        self._answers += bytes(64 * 1024 * 1024)
        return b""

    def receive_eof(self) -> None:
        raise TruncatedError("an end")

    def send(self, data: ByteData) -> None:
        raise AssertionError("there is nothing to be said")

    def send_eof(self) -> None:
        pass

    def outgoing(self) -> bytes:
        answers, self._answers = self._answers, b""
        return answers


class TestHurried:
    """A client has so many seconds for its first message, whatever it does meanwhile."""

    @pytest.mark.parametrize("handshaking", [False, True], ids=["behind TLS", "in the handshake"])
    async def test_also_when_it_speaks_and_never_reads(
        self, handshaking: bool, autojump_clock: MockClock
    ) -> None:
        near, far = socket_pair()
        client = Client(near)

        async def let_it_in() -> None:
            with client.hurried(7):
                await client.start_tls(Talkative(handshaking=handshaking), b"")
                await client.read_prologue(Scripted())

        async with far, near:
            await far.send_all(b"new keys, please")
            with pytest.raises(ClientError) as caught:
                await let_it_in()
        assert caught.value.code is Code.CLIENT_STALLED
        assert trio.current_time() == pytest.approx(7)

    async def test_also_when_its_time_has_gone_by_before_it_is_waited_for(
        self, mock_clock: MockClock
    ) -> None:
        near, far = socket_pair()
        client = Client(near)

        async def let_it_in() -> None:
            with client.hurried(7):
                mock_clock.jump(8)
                await client.read_prologue(Scripted())

        async with far, near:
            with pytest.raises(ClientError) as caught:
                await let_it_in()
        assert caught.value.code is Code.CLIENT_STALLED
