"""Connecting directly and through outbound proxies on loopback, refusals, and what is left."""

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from dialers import secure_dialer
from identities import Authority
from loopback import free_port, open_server, tls_handler, wait_for_end
from stand_in_proxies import CONNECTED, StandIn
from tls_peers import Credentials, make_credentials, server_context

from dbproxy.errors import Code, DBProxyError, Prospect, UpstreamError, UsageError
from dbproxy.identity import Identity
from dbproxy.layers import PingLayer, TLSLayer
from dbproxy.relay import LayeredStream
from dbproxy.upstream import ProxyAddress, UpstreamTrust
from dbproxy.upstream.judgement import ServerJudgement
from dbproxy.upstream.transport import ProxyTLS, Transport

TARGET = ProxyAddress("teleport.example.com", 443)  # nothing on loopback would be proxied
SOCKS_OK = [b"\x05\x00", b"\x05\x00\x00\x01\0\0\0\0\0\0"]
SECRET = "p@ss"
URL_OF = "{scheme}://user:p%40ss@127.0.0.1:{port}"
MakeTransport = Callable[[str], Transport]


@pytest.fixture
def proxy_tls(web_authority: Authority, identity: Identity) -> ProxyTLS:
    """Trusts the web authority."""
    trust = UpstreamTrust([web_authority.certificate])

    def make(host: str) -> tuple[TLSLayer, ServerJudgement]:
        connection, judgement = trust.connection(host, ["http/1.1"], identity, authenticate=False)
        return TLSLayer(connection), judgement

    return make


@pytest.fixture
def through(proxy_tls: ProxyTLS) -> MakeTransport:
    """A transport whose outbound proxy has this URL."""
    return lambda url: Transport({"HTTPS_PROXY": url}, proxy_tls)


@pytest.fixture(scope="module")
def proxy_credentials(web_authority: Authority) -> Credentials:
    return make_credentials(web_authority, "127.0.0.1")


async def refusal(transport: Transport, address: ProxyAddress = TARGET) -> DBProxyError:
    with pytest.raises(DBProxyError) as caught:
        await transport.connect(address)
    assert SECRET not in caught.value.message + caught.value.next_step
    return caught.value


class TwoAddresses(trio.abc.HostnameResolver):
    """Every name has two addresses, and nothing listens at the first."""

    async def getaddrinfo(
        self, host: bytes | None, port: object, family: int = 0, *_rest: int, **_more: int
    ) -> list[Any]:
        await trio.lowlevel.checkpoint()
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, (address, port)) for address in ("127.0.0.9", "127.0.0.1")]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


class TestDirectly:
    """Without an outbound proxy."""

    async def test_bytes_go_both_ways_and_the_socket_is_kept_alive_and_quick(
        self, proxy_tls: ProxyTLS
    ) -> None:
        async with open_server(StandIn([]).handler) as port:
            address = ProxyAddress("127.0.0.1", port)
            async with await Transport({}, proxy_tls).connect(address) as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
                assert isinstance(stream.transport, trio.SocketStream)
                assert stream.transport.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert stream.transport.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

    async def test_all_addresses_of_a_name_are_tried(self, proxy_tls: ProxyTLS) -> None:
        trio.socket.set_custom_hostname_resolver(TwoAddresses())
        async with (
            open_server(StandIn([]).handler) as port,
            await Transport({}, proxy_tls).connect(ProxyAddress("two", port)) as stream,
        ):
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"

    async def test_loopback_is_not_proxied(self, through: MakeTransport) -> None:
        async with open_server(StandIn([]).handler) as port:
            transport = through("http://192.0.2.1:3128")
            assert transport.outbound_proxy(ProxyAddress("127.0.0.1", port)) is None
            async with await transport.connect(ProxyAddress("127.0.0.1", port)):
                pass

    async def test_a_refused_connection_is_upstream_unreachable(self, proxy_tls: ProxyTLS) -> None:
        error = await refusal(Transport({}, proxy_tls), ProxyAddress("127.0.0.1", free_port()))
        assert error.code is Code.UPSTREAM_UNREACHABLE
        assert "connect to the Teleport Proxy at 127.0.0.1" in error.message


class TestThroughHTTP:
    """CONNECT, in plaintext and inside TLS."""

    async def test_the_request_and_the_bytes_behind_the_answer(
        self, through: MakeTransport
    ) -> None:
        stand_in = StandIn([CONNECTED + b"early "])
        async with open_server(stand_in.handler) as port:
            transport = through(URL_OF.format(scheme="http", port=port))
            async with await transport.connect(TARGET) as stream:
                await stream.send_all(b"later")
                received = await receive_exactly(stream, len(b"early later"))
        assert received == b"early later"
        lines = stand_in.asked[0].split(b"\r\n")
        assert lines[:2] == [
            b"CONNECT teleport.example.com:443 HTTP/1.1",
            b"Host: teleport.example.com:443",
        ]
        assert b"Proxy-Authorization: Basic dXNlcjpwQHNz" in lines

    async def test_early_bytes_belong_to_the_layer_that_is_added_next(
        self, through: MakeTransport
    ) -> None:
        async with open_server(StandIn([CONNECTED + b"\0\0\0\x05ear"]).handler) as port:
            stream = await through(f"http://127.0.0.1:{port}").connect(TARGET)
            async with stream:
                await stream.add_layer(PingLayer())
                assert await stream.receive_some() == b"ear"

    @pytest.mark.parametrize("host", ["2001:db8::1", "bücher.example"])
    async def test_odd_hosts_are_written_as_they_must_be(
        self, through: MakeTransport, host: str
    ) -> None:
        stand_in = StandIn([CONNECTED])
        async with open_server(stand_in.handler) as port:
            address = ProxyAddress(host, 443)
            async with await through(f"http://127.0.0.1:{port}").connect(address):
                pass
        written = {"2001:db8::1": b"[2001:db8::1]:443"}.get(host, b"xn--bcher-kva.example:443")
        assert stand_in.asked[0].startswith(b"CONNECT " + written + b" HTTP/1.1")

    async def test_without_credentials_none_are_sent(self, through: MakeTransport) -> None:
        stand_in = StandIn([CONNECTED])
        async with (
            open_server(stand_in.handler) as port,
            await through(f"http://127.0.0.1:{port}").connect(TARGET),
        ):
            assert b"Authorization" not in stand_in.asked[0]

    async def test_an_https_proxy_is_asked_inside_tls(
        self, through: MakeTransport, proxy_credentials: Credentials
    ) -> None:
        stand_in = StandIn([CONNECTED + b"early "])
        context = server_context(proxy_credentials, alpn=["http/1.1"])
        async with open_server(tls_handler(context, stand_in.serve)) as port:
            transport = through(URL_OF.format(scheme="https", port=port))
            async with await transport.connect(TARGET) as stream:
                await stream.send_all(b"later")
                assert await receive_exactly(stream, 11) == b"early later"
        assert b"Proxy-Authorization: Basic dXNlcjpwQHNz" in stand_in.asked[0]

    @pytest.mark.parametrize(
        ("answer", "code", "words", "next_words"),
        [
            ("403 Forbidden", Code.OUTBOUND_PROXY_REFUSED, "answered 403 Forbidden", "NO_PROXY"),
            ("302 Found", Code.OUTBOUND_PROXY_REFUSED, "answered 302 Found", "NO_PROXY"),
            (
                "407 Proxy Authentication Required",
                Code.OUTBOUND_PROXY_REFUSED,
                "it requires credentials",
                "into HTTPS_PROXY, as http://USER:PASSWORD@HOST:PORT",
            ),
            (
                "407 No\r\nProxy-Authenticate: Negotiate, NTLM",
                Code.OUTBOUND_PROXY_REFUSED,
                "'Negotiate, NTLM', and dbproxy knows Basic only",
                "without authentication",
            ),
            (
                '407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: bAsIc realm="x"',
                Code.OUTBOUND_PROXY_REFUSED,
                "it requires credentials",
                "HTTPS_PROXY",
            ),
            ("502 Bad Gateway", Code.UPSTREAM_UNREACHABLE, "cannot reach the Teleport Proxy", "-"),
            ("503 Unavailable", Code.UPSTREAM_UNREACHABLE, "it answered 503 Unavailable", "-"),
            ("504 Gateway Timeout", Code.UPSTREAM_UNREACHABLE, "teleport.example.com:443", "-"),
        ],
    )
    async def test_a_refusal_is_told_with_the_answer_and_the_variable(
        self, through: MakeTransport, answer: str, code: Code, words: str, next_words: str
    ) -> None:
        wire = f"HTTP/1.1 {answer}\r\nContent-Length: 2\r\n\r\nno".encode()
        async with open_server(StandIn([wire]).handler) as port:
            error = await refusal(through(f"http://127.0.0.1:{port}"))
        assert error.code is code
        assert f"the outbound proxy http://127.0.0.1:{port} (from HTTPS_PROXY)" in error.message
        assert words in error.message
        assert next_words in error.next_step

    async def test_rejected_credentials_are_told_and_not_shown(
        self, through: MakeTransport
    ) -> None:
        wire = b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"
        async with open_server(StandIn([wire]).handler) as port:
            error = await refusal(through(URL_OF.format(scheme="http", port=port)))
        assert error.code is Code.OUTBOUND_PROXY_REFUSED
        assert "rejected the credentials" in error.message
        assert "in HTTPS_PROXY" in error.next_step


async def receive_exactly(stream: LayeredStream, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += await stream.receive_some()
    return received


class TestThroughSOCKS:
    """SOCKS5, by both of its names."""

    @pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
    async def test_a_name_is_passed_on_and_early_bytes_are_kept(
        self, through: MakeTransport, scheme: str
    ) -> None:
        stand_in = StandIn([SOCKS_OK[0], SOCKS_OK[1] + b"early "])
        async with (
            open_server(stand_in.handler) as port,
            await through(f"{scheme}://127.0.0.1:{port}").connect(TARGET) as stream,
        ):
            await stream.send_all(b"later")
            assert await receive_exactly(stream, 11) == b"early later"
        assert stand_in.asked == [
            b"\x05\x01\x00",
            b"\x05\x01\x00\x03\x14teleport.example.com\x01\xbb",
        ]

    async def test_credentials_are_sent_when_asked_for(self, through: MakeTransport) -> None:
        stand_in = StandIn([b"\x05\x02", b"\x01\x00", SOCKS_OK[1]])
        async with open_server(stand_in.handler) as port:
            transport = through(URL_OF.format(scheme="socks5", port=port))
            async with await transport.connect(TARGET):
                pass
        assert stand_in.asked[1] == b"\x01\x04user\x04p@ss"

    @pytest.mark.parametrize(
        ("answers", "code", "words", "next_words"),
        [
            (
                [b"\x05\xff"],
                Code.OUTBOUND_PROXY_REFUSED,
                "requires credentials",
                "into HTTPS_PROXY, as socks5://USER:PASSWORD@HOST:PORT",
            ),
            ([b"\x05\x00", b"\x05\x02"], Code.OUTBOUND_PROXY_REFUSED, "not allowed", "NO_PROXY"),
            ([b"\x05\x00", b"\x05\x01"], Code.OUTBOUND_PROXY_REFUSED, "reply 1 (general", "allows"),
            ([b"\x05\x00", b"\x05\x04"], Code.UPSTREAM_UNREACHABLE, "host unreachable", "-"),
            ([b"\x05\x00", b"\x05\x05"], Code.UPSTREAM_UNREACHABLE, "connection refused", "-"),
            ([b"HTTP/1.1 400 B"], Code.OUTBOUND_PROXY_REFUSED, "an HTTP server", "scheme and port"),
            ([b"\x05\x00", b""], Code.OUTBOUND_PROXY_REFUSED, "closed the connection", "NO_PROXY"),
        ],
    )
    async def test_a_refusal_is_told_with_the_answer_and_the_variable(
        self,
        through: MakeTransport,
        answers: list[bytes | None],
        code: Code,
        words: str,
        next_words: str,
    ) -> None:
        async with open_server(StandIn(answers).handler) as port:
            error = await refusal(through(f"socks5://127.0.0.1:{port}"))
        assert error.code is code
        assert f"the outbound proxy socks5://127.0.0.1:{port} (from HTTPS_PROXY)" in error.message
        assert words in error.message
        assert next_words in error.next_step

    async def test_one_that_breaks_off_may_be_restarting(self, through: MakeTransport) -> None:
        async with open_server(StandIn([b"\x05\x00", b""]).handler) as port:
            error = await refusal(through(f"socks5://127.0.0.1:{port}"))
        assert isinstance(error, UpstreamError)
        assert error.prospect is Prospect.ONCE

    @pytest.mark.parametrize("answers", [[b"\x05\x02", b"\x01\x01"], [b"\x05\xff"]])
    async def test_rejected_credentials_are_told_and_not_shown(
        self, through: MakeTransport, answers: list[bytes | None]
    ) -> None:
        async with open_server(StandIn(answers).handler) as port:
            error = await refusal(through(URL_OF.format(scheme="socks5", port=port)))
        assert error.code is Code.OUTBOUND_PROXY_REFUSED

    async def test_a_name_that_is_too_long_is_refused(self, through: MakeTransport) -> None:
        async with open_server(StandIn([]).handler) as port:
            transport = through(f"socks5://127.0.0.1:{port}")
            error = await refusal(transport, ProxyAddress("x" * 256, 443))
        assert error.code is Code.OUTBOUND_PROXY_REFUSED


class TestUnusableProxies:
    """An outbound proxy that is none, is not there, or is not trusted."""

    @pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
    async def test_one_where_nothing_listens(self, through: MakeTransport, scheme: str) -> None:
        port = free_port()
        error = await refusal(through(URL_OF.format(scheme=scheme, port=port)))
        assert error.code is Code.OUTBOUND_PROXY_UNREACHABLE
        assert (
            f"{scheme}://127.0.0.1:{port} (from HTTPS_PROXY): connection refused" in error.message
        )

    async def test_one_whose_certificate_is_not_trusted(
        self, through: MakeTransport, web_authority: Authority
    ) -> None:
        context = server_context(make_credentials(web_authority, "other.example.com"))
        async with open_server(tls_handler(context, wait_for_end)) as port:
            error = await refusal(through(f"https://127.0.0.1:{port}"))
        assert error.code is Code.OUTBOUND_PROXY_UNREACHABLE
        assert "is for other.example.com, not for 127.0.0.1" in error.message

    @pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
    async def test_one_that_does_not_speak_tls(self, through: MakeTransport, answer: bytes) -> None:
        async with open_server(StandIn([answer], echoes=False).handler) as port:
            error = await refusal(through(f"https://127.0.0.1:{port}"))
        assert error.code is Code.OUTBOUND_PROXY_UNREACHABLE
        assert "the TLS handshake with it failed: " in error.message

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (b"SSH-2.0-OpenSSH_9.6\r\n", "it looks like an SSH server"),
            (b"\x05\xff", "it looks like a SOCKS5 proxy"),
            (b"", "closed the connection without an answer"),
            (b"HTTP/1.1 2", "closed the connection in the middle of its answer"),
        ],
    )
    async def test_one_that_does_not_speak_http(
        self, through: MakeTransport, answer: bytes, words: str
    ) -> None:
        async with open_server(StandIn([answer], echoes=False).handler) as port:
            error = await refusal(through(f"http://127.0.0.1:{port}"))
        assert error.code is Code.OUTBOUND_PROXY_REFUSED
        assert words in error.message

    @pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
    async def test_one_that_resets_the_connection(
        self, through: MakeTransport, scheme: str
    ) -> None:
        async def reset(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

        async with open_server(reset) as port:
            error = await refusal(through(f"{scheme}://127.0.0.1:{port}"))
        assert isinstance(error, UpstreamError)
        assert "reset" in error.message

    async def test_one_that_cannot_be_understood_is_a_usage_error(
        self, through: MakeTransport
    ) -> None:
        error = await refusal(through(f"gopher://user:{SECRET}@proxy:70"))
        assert isinstance(error, UsageError)


class TestCancellation:
    """Nothing is left, wherever it was; the fixture of this directory looks for descriptors."""

    @pytest.mark.parametrize(
        ("scheme", "answers"),
        [
            ("http", [None]),
            ("https", [None]),
            ("socks5", [None]),
            ("socks5", [b"\x05\x00", None]),
            ("socks5", [b"\x05\x02", b"\x01\x00", None]),
        ],
    )
    async def test_a_proxy_that_stalls_can_be_given_up(
        self, through: MakeTransport, scheme: str, answers: list[bytes | None]
    ) -> None:
        stand_in = StandIn(answers)
        async with open_server(stand_in.handler) as port, trio.open_nursery() as nursery:
            transport = through(URL_OF.format(scheme=scheme, port=port))
            nursery.start_soon(partial(transport.connect, TARGET))
            await stand_in.stalled.wait()
            nursery.cancel_scope.cancel()


async def test_an_outbound_proxy_that_takes_too_long_is_named() -> None:
    async with open_server(wait_for_end) as port:
        environ = {"HTTPS_PROXY": URL_OF.format(scheme="http", port=port)}
        secure = secure_dialer(UpstreamTrust(), environ, connect_timeout=0.05)
        with pytest.raises(UpstreamError) as caught:
            await secure.connect(TARGET)
    assert caught.value.code is Code.UPSTREAM_UNREACHABLE
    words = f"through the outbound proxy http://127.0.0.1:{port} (from HTTPS_PROXY) to the"
    assert words in caught.value.message
    assert SECRET not in caught.value.message
