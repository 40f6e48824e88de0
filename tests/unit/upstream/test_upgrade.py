"""The connection upgrade against stand-ins for Teleport Proxies of all versions."""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import trio
from openssl_ends import client_layer, server_layer
from stream_ends import Duplex, FakeStream, memory_pair, receive_all
from tls_peers import Credentials, make_credentials
from trio.testing import MockClock
from websocket_frames import BINARY, CLOSE, PING, PONG, frame, split

from dbproxy.errors import Code, Prospect, UpstreamError
from dbproxy.layers import PingLayer, TLSLayer, TruncatedError, WebSocketError
from dbproxy.relay import LayeredStream
from dbproxy.upstream import ProxyAddress
from dbproxy.upstream.upgrade import upgrade
from dbproxy.upstream.upgrade_override import UpgradeMode

ADDRESS = ProxyAddress("teleport.example.com", 443)
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PRIORITY = ["websocket", "alpn-ping", "alpn"]
LEGACY_ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: alpn\r\nConnection: Upgrade\r\n\r\n"
Headers = dict[str, list[str]]


@dataclass
class Server:
    """A Teleport Proxy that knows some kinds of upgrade and looks at some headers.

    Attributes:
        kinds: Those it knows.
        looks_at: The headers, in small letters, in which it looks for them.
        accepts: Makes `Sec-WebSocket-Accept` from the key.
        protocol: What it says in `Sec-WebSocket-Protocol`.
        behind: Sent in one piece with its answer.
    """

    kinds: tuple[str, ...] = ("websocket", "alpn")
    looks_at: tuple[str, ...] = ("x-teleport-upgrade", "upgrade")
    accepts: Callable[[str], str] = lambda key: b64encode(
        hashlib.sha1(key.encode() + GUID).digest()
    ).decode()
    protocol: str = "alpn"
    behind: bytes = b""
    request: str = field(default="", init=False)
    headers: Headers = field(default_factory=dict, init=False)

    async def serve(self, stream: Duplex) -> None:
        """Answer one request."""
        while "\r\n\r\n" not in self.request:
            self.request += bytes(await stream.receive_some()).decode()
        for line in self.request.split("\r\n")[1:-2]:
            name, _, value = line.partition(": ")
            self.headers.setdefault(name.lower(), []).append(value)
        await stream.send_all(self._answer() + self.behind)

    def _answer(self) -> bytes:
        wanted = [value for name in self.looks_at for value in self.headers.get(name, [])]
        kind = next((kind for kind in PRIORITY if kind in wanted and kind in self.kinds), None)
        if kind is None:
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        lines = ["HTTP/1.1 101 Switching Protocols", f"Upgrade: {kind}", "Connection: Upgrade"]
        if kind == "websocket":
            lines.append(f"Sec-WebSocket-Accept: {self.accepts(self.headers[KEY][0])}")
            lines.append(f"Sec-WebSocket-Protocol: {self.protocol}")
        return "\r\n".join([*lines, "", ""]).encode()


KEY = "sec-websocket-key"
RESET = trio.BrokenResourceError()


async def upgraded(
    server: Server, mode: UpgradeMode = UpgradeMode.BOTH
) -> tuple[LayeredStream, Duplex]:
    """Our end after the upgrade, and the server's."""
    near, far = memory_pair()
    stream = LayeredStream(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, far)
        try:
            await upgrade(stream, ADDRESS, mode)
        finally:
            nursery.cancel_scope.cancel()
    return stream, far


async def failure(transport: Duplex, mode: UpgradeMode = UpgradeMode.BOTH) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await upgrade(LayeredStream(transport), ADDRESS, mode)
    assert caught.value.code is Code.UPGRADE_FAILED
    assert "the Teleport Proxy teleport.example.com:443" in caught.value.message
    return caught.value


class TestRequest:
    """What is asked for."""

    async def test_both_kinds_in_one_request(self) -> None:
        server = Server()
        await upgraded(server)
        assert server.request.startswith("GET /webapi/connectionupgrade HTTP/1.1\r\n")
        assert server.headers["host"] == ["teleport.example.com:443"]
        assert server.headers["connection"] == ["Upgrade"]
        assert server.headers["upgrade"] == ["websocket", "alpn"]
        assert server.headers["x-teleport-upgrade"] == ["alpn"]
        assert server.headers["sec-websocket-protocol"] == ["alpn"]
        assert server.headers["sec-websocket-version"] == ["13"]
        assert len(b64decode(server.headers[KEY][0])) == 16

    async def test_websocket_only(self) -> None:
        server = Server()
        await upgraded(server, UpgradeMode.WEBSOCKET)
        assert server.headers["upgrade"] == ["websocket"]
        assert "x-teleport-upgrade" not in server.headers

    async def test_the_legacy_kind_only(self) -> None:
        server = Server()
        await upgraded(server, UpgradeMode.LEGACY)
        assert server.headers["upgrade"] == server.headers["x-teleport-upgrade"] == ["alpn"]
        assert not any(name.startswith("sec-") for name in server.headers)

    async def test_each_request_has_a_key_of_its_own(self) -> None:
        one, other = Server(), Server()
        await upgraded(one)
        await upgraded(other)
        assert one.headers[KEY] != other.headers[KEY]


class TestVersions:
    """Every Teleport Proxy since version 10 is reached by the request that is sent by default."""

    @pytest.mark.parametrize(
        ("server", "frames"),
        [
            pytest.param(Server(kinds=("alpn",), looks_at=("upgrade",)), False, id="10 to 12"),
            pytest.param(Server(kinds=("alpn-ping", "alpn")), False, id="13 to 15.0"),
            pytest.param(Server(kinds=("websocket", "alpn-ping", "alpn")), True, id="15.1 to 18"),
            pytest.param(Server(kinds=("websocket",)), True, id="19"),
            pytest.param(
                Server(kinds=("alpn",), looks_at=("x-teleport-upgrade",)), False, id="rewritten"
            ),
        ],
    )
    async def test_bytes_go_both_ways(self, server: Server, frames: bool) -> None:
        server.request, server.headers = "", {}
        stream, far = await upgraded(server)
        await stream.send_all(b"up")
        await far.send_all(frame(BINARY, b"down") if frames else b"down")
        assert await stream.receive_some() == b"down"
        sent = bytes(await far.receive_some())
        assert sent == (b"\x82\x82\0\0\0\0up" if frames else b"up")

    @pytest.mark.parametrize("cut", range(9))
    @pytest.mark.parametrize("kinds", [("websocket",), ("alpn",)])
    async def test_bytes_behind_the_answer_are_kept(self, kinds: tuple[str, ...], cut: int) -> None:
        wire = frame(BINARY, b"early!") if kinds == ("websocket",) else b"early!"
        stream, far = await upgraded(Server(kinds=kinds, behind=wire[:cut]))
        await far.send_all(wire[cut:])
        await far.send_eof()
        assert await receive_all(stream) == b"early!"

    async def test_pings_are_answered(self) -> None:
        stream, far = await upgraded(Server(behind=frame(PING, b"teleport")))
        await far.send_all(frame(BINARY, b"x"))
        await stream.receive_some()
        await stream.send_all(b"y")
        frames, rest = split(bytes(await far.receive_some()))
        assert sorted(frames) == [(BINARY, b"y"), (PONG, b"teleport")]
        assert rest == b""

    async def test_the_case_of_an_upgrade_header_does_not_matter(self) -> None:
        class Shouting(Server):
            def _answer(self) -> bytes:
                return super()._answer().replace(b"Upgrade: websocket", b"UPGRADE: WebSocket")

        stream, far = await upgraded(Shouting())
        await far.send_all(frame(BINARY, b"down"))
        assert await stream.receive_some() == b"down"


@pytest.fixture(scope="module")
def credentials() -> Credentials:
    return make_credentials(None, "localhost")


class TestLayers:
    """What runs inside: TLS in frames in TLS, and ping framing on top."""

    @pytest.fixture
    async def ends(self, credentials: Credentials) -> tuple[LayeredStream, LayeredStream]:
        """Our end with all layers, and the balancer's: the outer TLS only."""
        near, far = memory_pair()
        client, balancer = LayeredStream(near), LayeredStream(far)
        server = Server()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(balancer.add_layer, server_layer(credentials))
            await client.add_layer(client_layer())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, balancer)
            await upgrade(client, ADDRESS)
        return client, balancer

    async def test_an_end_is_told_inside_and_the_balancer_sees_none(
        self, ends: tuple[LayeredStream, LayeredStream], credentials: Credentials
    ) -> None:
        client, balancer = ends
        inner = server_layer(credentials)
        await self.shake_hands(client, balancer, inner)
        await client.add_layer(PingLayer())
        await client.send_all(b"question")
        await client.send_eof()
        received = b""
        while not inner.ended:
            received += inner.receive(await self.payload(balancer))
        assert received == b"\0\0\0\x08question"
        inner.send(b"\0\0\0\x06answer")
        inner.send_eof()
        await balancer.send_all(frame(BINARY, inner.outgoing()))
        assert await receive_all(client) == b"answer", "the other direction is still open"

    async def test_an_end_that_only_the_balancer_tells_is_truncation(
        self, ends: tuple[LayeredStream, LayeredStream], credentials: Credentials
    ) -> None:
        client, balancer = ends
        await self.shake_hands(client, balancer, server_layer(credentials))
        await balancer.send_all(frame(CLOSE, b""))
        await balancer.send_eof()
        with pytest.raises(TruncatedError):
            await client.receive_some()

    async def test_an_end_inside_needs_no_end_outside(
        self, ends: tuple[LayeredStream, LayeredStream], credentials: Credentials
    ) -> None:
        client, balancer = ends
        inner = server_layer(credentials)
        await self.shake_hands(client, balancer, inner)
        inner.send(b"last")
        inner.send_eof()
        await balancer.send_all(frame(BINARY, inner.outgoing()))
        await balancer.aclose()
        assert await receive_all(client) == b"last"

    async def shake_hands(
        self, client: LayeredStream, balancer: LayeredStream, inner: TLSLayer
    ) -> None:
        """Complete the inner handshake, frame by frame."""
        inner.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.add_layer, client_layer())
            while inner.handshaking:
                assert inner.receive(await self.payload(balancer)) == b""
                if flight := inner.outgoing():
                    await balancer.send_all(frame(BINARY, flight))

    async def payload(self, balancer: LayeredStream) -> bytes:
        """The next bytes inside of the frames."""
        wire = b""
        while True:
            wire += await balancer.receive_some()
            frames, rest = split(wire)
            if frames and not rest:
                return b"".join(payload for _opcode, payload in frames)


class TestFailures:
    """What answers mean, and answers that do not fit."""

    @pytest.mark.parametrize(
        ("status", "meaning"),
        [
            ("404 Not Found", "no Teleport Proxy, or one too old"),
            ("400 Bad Request", "does not pass the upgrade on"),
            ("403 Forbidden", "forbids the upgrade"),
            ("302 Found", "sends us to another address"),
            ("502 Bad Gateway", "the load balancer does not reach the Teleport Proxy"),
            ("503 Service Unavailable", "does not reach"),
            ("504 Gateway Timeout", "does not reach"),
            ("200 OK", "it answered 200 OK"),
            ("418 I'm a teapot", "it answered 418 I'm a teapot"),
        ],
    )
    async def test_the_status_and_its_meaning_are_told(self, status: str, meaning: str) -> None:
        wire = f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno".encode()
        error = await failure(FakeStream(wire))
        assert f"it answered {status}" in error.message
        assert meaning in error.message

    @pytest.mark.parametrize(
        ("server", "words"),
        [
            (Server(accepts=lambda _key: "bm9uc2Vuc2U="), "does not fit the key"),
            (Server(accepts=lambda key: key), "does not fit the key"),
            (Server(protocol="alpn-ping"), "WebSocket protocol 'alpn'"),
            (Server(protocol=""), "WebSocket protocol 'alpn'"),
        ],
    )
    async def test_a_websocket_answer_that_does_not_fit_is_refused(
        self, server: Server, words: str
    ) -> None:
        near, far = memory_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, far)
            error = await failure(near)
        assert words in error.message

    @pytest.mark.parametrize(
        ("script", "words", "prospect"),
        [
            ([b"SSH-2.0-x"], "it looks like an SSH server", Prospect.NONE),
            ([b""], "closed the connection without an answer", Prospect.ONCE),
            ([b"HTTP/1.1 101 Swi", b""], "closed the connection in the middle", Prospect.ONCE),
            ([b"HTTP/1.1 xyz\r\n\r\n"], "not valid HTTP/1.1", Prospect.NONE),
            ([RESET], "it reset the connection", Prospect.SOON),
            ([b"HTTP/1.1 101 S\r\n", RESET], "it reset the connection", Prospect.SOON),
        ],
    )
    async def test_what_is_no_answer_is_told(
        self, script: list[bytes | Exception], words: str, prospect: Prospect
    ) -> None:
        error = await failure(FakeStream(*script))
        assert words in error.message
        assert error.prospect is prospect

    @pytest.mark.parametrize(
        ("status", "prospect"), [(502, Prospect.SOON), (503, Prospect.SOON), (403, Prospect.NONE)]
    )
    async def test_a_balancer_without_a_proxy_behind_it_is_asked_again(
        self, status: int, prospect: Prospect
    ) -> None:
        wire = f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode()
        assert (await failure(FakeStream(wire))).prospect is prospect

    async def test_a_request_that_cannot_be_sent_is_told(self) -> None:
        transport = FakeStream(send_error=trio.BrokenResourceError())
        assert "it reset the connection" in (await failure(transport)).message

    async def test_a_bad_frame_right_behind_the_answer_is_told(self) -> None:
        server = Server(behind=b"\xff\x00")
        near, far = memory_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, far)
            error = await failure(near)
        assert isinstance(error.__cause__, WebSocketError)


@pytest.mark.parametrize("received", [b"", LEGACY_ANSWER[:-1]])
async def test_waiting_for_the_answer_can_be_cancelled(
    received: bytes, autojump_clock: MockClock
) -> None:
    transport = FakeStream(*filter(None, [received]))
    stream = LayeredStream(transport)
    with trio.move_on_after(5) as scope:
        await upgrade(stream, ADDRESS)
    assert scope.cancelled_caught
    await stream.aclose()
    assert transport.closed
