"""Dialling small TLS servers on loopback: what is negotiated, how it fails, what is left."""

import socket
import ssl
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing
from cancelling import cancel_after
from dialers import Dial, make_dialer, secure_dialer
from identities import Authority, Cluster, make_authority
from loopback import Handler, TLSStream, open_server, tls_handler, wait_for_end
from stand_in_proxies import StandIn
from tls_peers import BOTH_VERSIONS, Credentials, make_credentials, server_context
from trio.testing import MockClock

from dbproxy.errors import Code, UpstreamError
from dbproxy.identity import Identity
from dbproxy.layers import TLSError
from dbproxy.protocols import protocol_named
from dbproxy.relay import LayeredStream
from dbproxy.upstream import (
    ProxyAddress,
    UpstreamConnection,
    UpstreamDialer,
    UpstreamRoute,
    UpstreamTrust,
)

PING, PLAIN = "teleport-postgres-ping", "teleport-postgres"
ALPN = (PING, PLAIN)
PATIENCE = 10.0
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
POSTGRES = protocol_named("postgres")


@pytest.fixture
def dial(web_authority: Authority, identity: Identity) -> Dial:
    """Dials a port of 127.0.0.1."""

    async def dial_port(
        port: int,
        *,
        host: str = "127.0.0.1",
        authenticate: bool = False,
        connect_timeout: float = PATIENCE,
        handshake_timeout: float = PATIENCE,
    ) -> UpstreamConnection:
        dialer = make_dialer(
            ProxyAddress(host, port),
            UpstreamTrust([web_authority.certificate]),
            connect_timeout=connect_timeout,
            handshake_timeout=handshake_timeout,
        )
        return await dialer.dial(POSTGRES, identity, authenticate=authenticate)

    return dial_port


async def answer(stream: TLSStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(b"answer to " + data)


class TestNegotiation:
    """What the server chooses decides, not what we offer."""

    @pytest.mark.parametrize("version", BOTH_VERSIONS, ids=lambda version: version.name)
    async def test_the_plain_protocol_carries_bytes_as_they_are(
        self, version: ssl.TLSVersion, dial: Dial, localhost: Credentials
    ) -> None:
        context = server_context(localhost, version=version, alpn=[PLAIN])
        async with open_server(tls_handler(context, answer)) as port:
            upstream = await dial(port)
            async with upstream.stream as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"answer to hello"
                assert isinstance(stream.transport, trio.SocketStream)
                assert stream.transport.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert upstream.alpn == PLAIN
        assert upstream.tls_version == version.name.replace("_", ".")
        assert 0 < upstream.duration < PATIENCE

    @pytest.mark.parametrize("version", BOTH_VERSIONS, ids=lambda version: version.name)
    async def test_the_ping_protocol_carries_frames_and_drops_pings(
        self, version: ssl.TLSVersion, dial: Dial, localhost: Credentials
    ) -> None:
        async def ping_and_echo(stream: TLSStream) -> None:
            await stream.send_all(bytes(4))
            received = await stream.receive_some()
            assert received == b"\0\0\0\x05hello"
            await stream.send_all(bytes(4) + received + bytes(4))

        context = server_context(localhost, version=version, alpn=[PLAIN, PING])
        context.set_alpn_protocols([PING, PLAIN])
        async with open_server(tls_handler(context, ping_and_echo)) as port:
            upstream = await dial(port)
            async with upstream.stream as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
        assert upstream.alpn == PING

    @pytest.mark.parametrize("known", [[], ["h2", "http/1.1"]])
    async def test_a_server_that_chooses_nothing_does_not_support_it(
        self, known: Sequence[str], dial: Dial, localhost: Credentials
    ) -> None:
        context = server_context(localhost, alpn=known)
        async with open_server(tls_handler(context, answer)) as port:
            with pytest.raises(UpstreamError, match="chose none of the ALPN protocols") as caught:
                await dial(port)
        assert caught.value.code is Code.ALPN_NOT_SUPPORTED


LEGACY_UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: alpn\r\nConnection: Upgrade\r\n\r\n"


class TestLastWords:
    """What the handshake ends with leaves with the first message, where the caller allows it."""

    @pytest.mark.parametrize("upgraded", [False, True], ids=["direct", "upgraded"])
    @pytest.mark.parametrize("kept", [False, True])
    async def test_the_server_sees_the_end_of_the_handshake_no_sooner_than_the_first_message(
        self,
        kept: bool,
        upgraded: bool,
        web_authority: Authority,
        cluster: Cluster,
        identity: Identity,
        localhost: Credentials,
    ) -> None:
        shaken_hands = trio.Event()
        credentials = make_credentials(cluster.host, "127.0.0.1") if upgraded else localhost
        outer, inner = server_context(localhost), server_context(credentials, alpn=[PLAIN])

        async def serve(stream: TLSStream) -> None:
            shaken_hands.set()
            await answer(stream)

        async def upgrade(stream: TLSStream) -> None:
            request = b""
            while b"\r\n\r\n" not in request:
                request += await stream.receive_some()
            await stream.send_all(LEGACY_UPGRADE)
            tls = TLSStream(stream, inner, server_side=True)
            await tls.do_handshake()
            await serve(tls)

        handler = tls_handler(outer, upgrade) if upgraded else tls_handler(inner, serve)
        async with open_server(handler) as port:
            dialer = make_dialer(
                ProxyAddress("127.0.0.1", port),
                UpstreamTrust([web_authority.certificate]),
                connection_upgrade="always" if upgraded else "never",
            )
            upstream = await dialer.dial(
                POSTGRES, identity, authenticate=False, keep_last_word=kept
            )
            async with upstream.stream as stream:
                await trio.testing.wait_all_tasks_blocked()
                assert shaken_hands.is_set() is not kept
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"answer to hello"


async def test_waiting_for_ones_turn_is_not_part_of_the_duration(
    web_authority: Authority,
    identity: Identity,
    localhost: Credentials,
    autojump_clock: MockClock,
) -> None:
    served = tls_handler(server_context(localhost, alpn=[PLAIN]), answer)

    async def serve_slowly(stream: trio.SocketStream) -> None:
        await trio.sleep(3)
        await served(stream)

    durations: list[float] = []
    async with open_server(serve_slowly) as port:
        dialer = make_dialer(
            ProxyAddress("127.0.0.1", port),
            UpstreamTrust([web_authority.certificate]),
            max_handshakes=1,
        )

        async def dial_once() -> None:
            upstream = await dialer.dial(POSTGRES, identity, authenticate=False)
            durations.append(upstream.duration)
            await upstream.stream.aclose()

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(dial_once)
        assert trio.current_time() >= 9
    assert durations == pytest.approx([3, 3, 3])


class TestTrust:
    """Chain and name, and who sees our certificate."""

    @pytest.mark.parametrize("names", [["teleport.example.com"], ["127.0.0.2"]])
    async def test_a_server_with_another_name_is_not_trusted(
        self, names: Sequence[str], dial: Dial, web_authority: Authority
    ) -> None:
        context = server_context(make_credentials(web_authority, *names), alpn=ALPN)
        async with open_server(tls_handler(context, answer)) as port:
            with pytest.raises(UpstreamError, match=f"is for {names[0]}, not for") as caught:
                await dial(port)
        assert caught.value.code is Code.UPSTREAM_NAME_MISMATCH

    async def test_a_server_of_another_authority_is_not_trusted(self, dial: Dial) -> None:
        context = server_context(make_credentials(make_authority("foreign"), "127.0.0.1"))
        async with open_server(tls_handler(context, answer)) as port:
            with pytest.raises(UpstreamError) as caught:
                await dial(port, authenticate=True)
        assert caught.value.code is Code.UPSTREAM_UNTRUSTED

    async def test_a_name_is_resolved_and_verified(
        self, dial: Dial, localhost: Credentials
    ) -> None:
        async with open_server(tls_handler(server_context(localhost, alpn=ALPN), answer)) as port:
            upstream = await dial(port, host="localhost")
            await upstream.stream.aclose()
        assert upstream.alpn == PING

    async def test_a_rejected_client_certificate_is_a_rejection_by_tls_1_2(
        self, dial: Dial, localhost: Credentials, web_authority: Authority
    ) -> None:
        context = server_context(
            localhost, version=BOTH_VERSIONS[0], alpn=ALPN, client_authority=web_authority
        )
        async with open_server(tls_handler(context, answer)) as port:
            with pytest.raises(UpstreamError, match="unknown_ca") as caught:
                await dial(port, authenticate=True)
        assert caught.value.code is Code.CERTIFICATE_REJECTED

    async def test_a_rejected_client_certificate_shows_at_the_first_read_by_tls_1_3(
        self, dial: Dial, localhost: Credentials, web_authority: Authority
    ) -> None:
        context = server_context(
            localhost, version=BOTH_VERSIONS[1], alpn=[PLAIN], client_authority=web_authority
        )
        async with open_server(tls_handler(context, answer)) as port:
            upstream = await dial(port, authenticate=True)
            async with upstream.stream as stream:
                with pytest.raises(TLSError) as caught:
                    await stream.receive_some()
        assert caught.value.alert == "unknown ca"


class TestFailures:
    """Servers that are no Teleport Proxies, or not now."""

    async def dial_server(self, dial: Dial, handler: Handler, **options: float) -> UpstreamError:
        async with open_server(handler) as port:
            with trio.fail_after(PATIENCE), pytest.raises(UpstreamError) as caught:
                await dial(port, **options)
        assert f"127.0.0.1:{port}" in caught.value.message
        return caught.value

    async def test_a_server_that_closes_at_once_does_not_know_our_alpn(self, dial: Dial) -> None:
        async def close_when_greeted(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            await stream.aclose()

        error = await self.dial_server(dial, close_when_greeted)
        assert error.code is Code.ALPN_NOT_SUPPORTED
        assert "without an alert" in error.message

    async def test_a_server_that_resets_the_connection_is_told_apart_from_a_bug(
        self, dial: Dial
    ) -> None:
        async def reset(stream: trio.SocketStream) -> None:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await stream.receive_some()
            stream.socket.close()

        error = await self.dial_server(dial, reset)
        assert error.code is Code.UPSTREAM_TLS_FAILED
        assert "reset the connection before it answered" in error.message

    @pytest.mark.parametrize(
        ("greeting", "code", "words"),
        [
            (b"SSH-2.0-OpenSSH_9.2p1\r\n", Code.UPSTREAM_NOT_TELEPORT, "looks like an SSH server"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", Code.UPSTREAM_NOT_TELEPORT, "a web server"),
            (b"\x15\x03\x03\x00\x02\x02\x28", Code.UPSTREAM_TLS_FAILED, "handshake failure"),
            (bytes(100), Code.UPSTREAM_NOT_TELEPORT, r"begins with b'\x00\x00"),
            (b"\xff" * 1000, Code.UPSTREAM_NOT_TELEPORT, "does not speak TLS"),
        ],
        ids=["ssh", "http", "alert", "zeros", "ones"],
    )
    async def test_a_server_that_speaks_something_else_is_named_as_far_as_it_can_be(
        self, greeting: bytes, code: Code, words: str, dial: Dial
    ) -> None:
        async def greet(stream: trio.SocketStream) -> None:
            await stream.send_all(greeting)
            await wait_for_end(stream)

        error = await self.dial_server(dial, greet)
        assert error.code is code
        assert words in error.message

    async def test_a_server_that_stalls_is_given_up(self, dial: Dial) -> None:
        error = await self.dial_server(dial, wait_for_end, handshake_timeout=0.05)
        assert error.code is Code.UPSTREAM_UNREACHABLE
        assert "the TLS handshake" in error.message
        assert "took longer than 0.05 s" in error.message

    async def test_a_server_that_stalls_in_the_middle_of_a_record_is_given_up(
        self, dial: Dial
    ) -> None:
        async def drip(stream: trio.SocketStream) -> None:
            await stream.send_all(b"\x16\x03\x03\x10\x00\x02")
            await wait_for_end(stream)

        error = await self.dial_server(dial, drip, handshake_timeout=0.05)
        assert error.code is Code.UPSTREAM_UNREACHABLE

    async def test_a_port_where_nothing_listens_is_unreachable(self, dial: Dial) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            with pytest.raises(UpstreamError, match="connection refused") as caught:
                await dial(bound.getsockname()[1])
        assert caught.value.code is Code.UPSTREAM_UNREACHABLE


class Resolver(trio.abc.HostnameResolver):
    """Answers with an error, or never."""

    def __init__(self, error: OSError | None) -> None:
        self.error = error

    async def getaddrinfo(self, *_arguments: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        await trio.sleep_forever()

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


async def test_a_name_that_does_not_resolve_is_named(dial: Dial) -> None:
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    trio.socket.set_custom_hostname_resolver(Resolver(unknown))
    with pytest.raises(UpstreamError, match="its name cannot be resolved") as caught:
        await dial(443, host="teleport.example.com")
    assert caught.value.code is Code.UPSTREAM_UNREACHABLE
    assert "teleport.example.com:443" in caught.value.message


async def test_connecting_that_takes_too_long_is_given_up(
    dial: Dial, autojump_clock: MockClock
) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(None))
    with pytest.raises(UpstreamError, match=r"the connection .* longer than 7 s") as caught:
        await dial(443, host="teleport.example.com", connect_timeout=7.0)
    assert caught.value.code is Code.UPSTREAM_UNREACHABLE
    assert trio.current_time() >= 7


async def test_after_a_guess_that_no_upgrade_is_needed_a_refusal_asks_for_another_test(
    web_authority: Authority, identity: Identity, localhost: Credentials
) -> None:
    """The test is cut off, so nothing is known; the dial is refused, so the server answers."""
    greetings: list[str] = []
    without_alpn = tls_handler(server_context(localhost), wait_for_end)

    async def serve(stream: trio.SocketStream) -> None:
        is_test = b"teleport-reversetunnel" in await stream.socket.recv(65536, socket.MSG_PEEK)
        greetings.append("test" if is_test else "dial")
        if is_test:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            stream.socket.close()
        else:
            await without_alpn(stream)

    async with open_server(serve) as port:
        dialer = make_dialer(
            ProxyAddress("127.0.0.1", port),
            UpstreamTrust([web_authority.certificate]),
            identity,
            connection_upgrade="auto",
        )
        for _ in range(2):
            with pytest.raises(UpstreamError) as caught:
                await dialer.dial(POSTGRES, identity, authenticate=False)
            assert caught.value.code is Code.ALPN_NOT_SUPPORTED
    assert greetings == ["test", "dial"] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="a full queue is answered elsewhere")
async def test_connecting_to_an_ip_address_that_takes_too_long_is_given_up(
    dial: Dial, autojump_clock: MockClock
) -> None:
    with socket.socket() as listener, socket.socket() as queued:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        queued.connect(listener.getsockname())  # there is no room for another one
        port = listener.getsockname()[1]
        with pytest.raises(UpstreamError, match=r"the connection .* longer than 7 s") as caught:
            await dial(port, connect_timeout=7.0)
    assert caught.value.code is Code.UPSTREAM_UNREACHABLE
    assert trio.current_time() >= 7


class TestCancellation:
    """Whenever it comes, no socket is left; the fixture `_no_descriptor_left` looks."""

    async def test_while_connecting(self, dial: Dial) -> None:
        trio.socket.set_custom_hostname_resolver(Resolver(None))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: dial(443, host="teleport.example.com"))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    async def test_while_shaking_hands_the_server_sees_the_end(self, dial: Dial) -> None:
        greeted, ended = trio.Event(), trio.Event()

        async def listen(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            greeted.set()
            await wait_for_end(stream)
            ended.set()

        async with open_server(listen) as port:
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(dial, port)
                    await greeted.wait()
                    nursery.cancel_scope.cancel()
                await ended.wait()

    @pytest.mark.parametrize("checkpoints", range(0, 40, 3))
    async def test_after_any_number_of_steps(
        self, checkpoints: int, dial: Dial, localhost: Credentials
    ) -> None:
        context = server_context(localhost, alpn=ALPN)
        async with open_server(tls_handler(context, wait_for_end)) as port:

            async def connect() -> LayeredStream:
                return (await dial(port)).stream

            await cancel_after(checkpoints, connect)


class WithoutRouting:
    """A cluster whose address for PostgreSQL speaks PostgreSQL from the first byte."""

    def __init__(self, port: int) -> None:
        self._address = ProxyAddress("127.0.0.1", port)

    @property
    def due(self) -> bool:
        return False

    async def find(self, protocol: str) -> UpstreamRoute:
        await trio.lowlevel.checkpoint()
        return UpstreamRoute(address=self._address, tls_routing=False, decision=protocol)

    def forget(self) -> None:
        """Nothing else is known."""


class TestWithoutRouting:
    """TLS begins inside of the database protocol, and each step before it may fail."""

    @pytest.mark.parametrize(
        ("answers", "code", "words"),
        [
            ([None], Code.UPSTREAM_UNREACHABLE, "the request for TLS"),
            ([b""], Code.UPSTREAM_CLOSED_EARLY, "closed the connection before it sent anything"),
            ([b"N"], Code.UPSTREAM_TLS_FAILED, "answered b'N' when asked for TLS"),
            ([b"S", None], Code.UPSTREAM_UNREACHABLE, "the TLS handshake"),
            ([b"S", b""], Code.UPSTREAM_TLS_FAILED, "before it answered the TLS handshake"),
        ],
    )
    async def test_each_failure_has_its_code(
        self,
        answers: list[bytes | None],
        code: Code,
        words: str,
        identity: Identity,
    ) -> None:
        stand_in = StandIn(answers)
        async with open_server(stand_in.handler) as port:
            dialer = UpstreamDialer(
                WithoutRouting(port),
                secure_dialer(UpstreamTrust(), handshake_timeout=0.2),
                environ={},
                connection_upgrade="never",
                current_identity=lambda: identity,
                max_handshakes=1,
            )
            with pytest.raises(UpstreamError) as caught, trio.fail_after(PATIENCE):
                await dialer.dial(POSTGRES, identity, authenticate=True)
            assert not dialer.busy, "the next one has its turn"
        assert caught.value.code is code
        assert words in caught.value.message
        assert stand_in.asked[0] == SSL_REQUEST
