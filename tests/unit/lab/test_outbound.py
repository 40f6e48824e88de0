"""The lab's proxies for outgoing connections, with clients written by hand."""

from __future__ import annotations

import base64
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import unquote, urlsplit

import pytest
import trio
from lab_client import at_end, echo, exactly
from loopback import TLSStream, open_server
from upgraded_client import Response, ask

from dbproxy.lab import (
    Action,
    Credentials,
    Fault,
    FaultPlan,
    OutboundOptions,
    OutboundProxy,
    Step,
    open_connect_proxy,
    open_socks_proxy,
)
from dbproxy.lab.authority import Authority
from dbproxy.lab.socks import Reply

NAME = "teleport.example.com:443"
ALICE = Credentials("alice", "p@ss:wörd/")


@asynccontextmanager
async def open_target() -> AsyncIterator[str]:
    async with open_server(echo) as port:
        yield f"127.0.0.1:{port}"


async def open_proxy(stack: AsyncExitStack, kind: str, options: OutboundOptions) -> OutboundProxy:
    opened = open_connect_proxy if kind == "http" else open_socks_proxy
    return await stack.enter_async_context(opened(options))


async def dial(stack: AsyncExitStack, proxy: OutboundProxy) -> trio.SocketStream:
    host, port = proxy.address.rsplit(":", 1)
    return await stack.enter_async_context(await trio.open_tcp_stream(host, int(port)))


def basic(credentials: Credentials) -> str:
    text = f"{credentials.user}:{credentials.password}"
    return f"Basic {base64.b64encode(text.encode()).decode()}"


async def connect(
    stream: trio.abc.Stream, target: str, credentials: Credentials | None = None
) -> tuple[bytes, bytes]:
    """Sends a CONNECT; returns the head of the answer and what came after it."""
    line = f"Proxy-Authorization: {basic(credentials)}\r\n" if credentials else ""
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{line}\r\n"
    await stream.send_all(request.encode())
    received = b""
    while b"\r\n\r\n" not in received:
        data = await stream.receive_some(4096)
        if not data:
            raise trio.BrokenResourceError
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


def host_bytes(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return bytes((3, len(host))) + host.encode()
    return bytes((1 if address.version == 4 else 4,)) + address.packed


async def socks(
    stream: trio.abc.Stream, target: str, credentials: Credentials | None = None
) -> int:
    """Goes through SOCKS5; returns the reply code, or 255 for refused authentication."""
    method = b"\0" if credentials is None else b"\2"
    await stream.send_all(b"\5\1" + method)
    if await exactly(stream, 2) != b"\5" + method:
        return 255
    if credentials is not None:
        user, password = credentials.user.encode(), credentials.password.encode()
        await stream.send_all(bytes((1, len(user))) + user + bytes((len(password),)) + password)
        if await exactly(stream, 2) != b"\1\0":
            return 255
    host, _, port = target.rpartition(":")
    await stream.send_all(b"\5\1\0" + host_bytes(host) + int(port).to_bytes(2, "big"))
    reply = await exactly(stream, 4)
    if len(reply) < 4:
        raise trio.BrokenResourceError
    rest = {1: 4, 4: 16}[reply[3]] + 2
    if len(await exactly(stream, rest)) < rest:
        raise trio.BrokenResourceError
    return reply[1]


async def echoed(stream: trio.abc.Stream) -> bool:
    await stream.send_all(b"hello")
    return await exactly(stream, 5) == b"hello"


async def get_through(
    stream: trio.abc.Stream, kind: str, target: str, credentials: Credentials | None = None
) -> bool:
    if kind == "http":
        head, _ = await connect(stream, target, credentials)
        return head.startswith(b"HTTP/1.1 200")
    return await socks(stream, target, credentials) == 0


@pytest.mark.parametrize("credentials", [None, ALICE], ids=["open", "with credentials"])
@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_bytes_go_through_to_where_the_routes_lead(
    kind: str, credentials: Credentials | None
) -> None:
    async with open_target() as target, AsyncExitStack() as stack:
        options = OutboundOptions(credentials=credentials, routes={NAME: target})
        proxy = await open_proxy(stack, kind, options)
        for name in (NAME, target):
            stream = await dial(stack, proxy)
            assert await get_through(stream, kind, name, credentials)
            assert await echoed(stream)
            request = proxy.requests[-1]
            assert (request.target, request.credentials) == (name, credentials)
        assert proxy.tunnels == 2
        assert len(proxy.requests) == 2


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_its_url_has_the_credentials_percent_encoded(kind: str) -> None:
    async with AsyncExitStack() as stack:
        proxy = await open_proxy(stack, kind, OutboundOptions(credentials=ALICE))
        url = urlsplit(proxy.url)
        assert (url.scheme, url.netloc.rpartition("@")[2]) == (kind, proxy.address)
        assert Credentials(unquote(url.username or ""), unquote(url.password or "")) == ALICE
        assert proxy.url_with(None) == f"{kind}://{proxy.address}"


@pytest.mark.parametrize("shown", [None, Credentials("alice", "wrong")])
@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_wrong_credentials_are_refused_and_recorded(
    kind: str, shown: Credentials | None
) -> None:
    async with AsyncExitStack() as stack:
        proxy = await open_proxy(stack, kind, OutboundOptions(credentials=ALICE))
        stream = await dial(stack, proxy)
        assert not await get_through(stream, kind, NAME, shown)
        assert proxy.requests[-1].credentials == shown
        assert proxy.requests[-1].answer == (407 if kind == "http" else 255)
        assert "wrong" not in repr(proxy.requests)


async def test_a_challenge_leaves_the_connection_open_for_another_try() -> None:
    async with open_target() as target, AsyncExitStack() as stack:
        proxy = await open_proxy(stack, "http", OutboundOptions(credentials=ALICE))
        stream = await dial(stack, proxy)
        head, _ = await connect(stream, target)
        assert b'\r\nProxy-Authenticate: Basic realm="lab"' in head
        assert await get_through(stream, "http", target, ALICE)


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_connect_answers_as_planned(status: int) -> None:
    async with open_target() as target, AsyncExitStack() as stack:
        proxy = await open_proxy(stack, "http", OutboundOptions())
        proxy.planned.append(status)
        head, _ = await connect(await dial(stack, proxy), target)
        assert head.startswith(f"HTTP/1.1 {status} ".encode())
        assert await get_through(await dial(stack, proxy), "http", target)


@pytest.mark.parametrize("reply", list(Reply)[1:])
async def test_socks_replies_as_planned(reply: Reply) -> None:
    async with open_target() as target, AsyncExitStack() as stack:
        proxy = await open_proxy(stack, "socks5", OutboundOptions())
        proxy.planned.append(reply)
        assert await socks(await dial(stack, proxy), target) == reply
        assert proxy.requests[-1].answer == reply
        assert await socks(await dial(stack, proxy), target) == 0


async def test_targets_that_do_not_answer_are_told_apart() -> None:
    async with open_target() as target:
        pass
    async with AsyncExitStack() as stack:
        socks_proxy = await open_proxy(stack, "socks5", OutboundOptions())
        stream = await dial(stack, socks_proxy)
        assert await socks(stream, target) == Reply.CONNECTION_REFUSED
        connect_proxy = await open_proxy(stack, "http", OutboundOptions())
        head, _ = await connect(await dial(stack, connect_proxy), target)
        assert head.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("target", ["127.0.0.1:9", "[::1]:9", "db.example.com:9"])
async def test_socks_knows_all_address_types(target: str) -> None:
    async with open_target() as real, AsyncExitStack() as stack:
        proxy = await open_proxy(stack, "socks5", OutboundOptions(routes={target: real}))
        stream = await dial(stack, proxy)
        assert await socks(stream, target) == 0
        assert await echoed(stream)
        assert proxy.requests[-1].target == target


async def test_connect_takes_no_other_method() -> None:
    async with AsyncExitStack() as stack:
        proxy = await open_proxy(stack, "http", OutboundOptions())
        answer: Response = await ask(await dial(stack, proxy), "http://example.com/")
        assert answer.status == 405


async def test_bytes_may_come_right_behind_the_answer() -> None:
    async with open_target() as target, AsyncExitStack() as stack:
        proxy = await open_proxy(stack, "http", OutboundOptions(extra=b"early"))
        stream = await dial(stack, proxy)
        _, rest = await connect(stream, target)
        assert rest + await exactly(stream, 5 - len(rest)) == b"early"
        assert await echoed(stream)


async def test_bytes_behind_the_request_are_kept() -> None:
    async with open_target() as target, AsyncExitStack() as stack:
        proxy = await open_proxy(stack, "http", OutboundOptions())
        stream = await dial(stack, proxy)
        await stream.send_all(f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\nhello".encode())
        received = b""
        while not received.endswith(b"hello"):
            received += await stream.receive_some(4096)


async def test_the_way_to_a_connect_proxy_may_be_tls() -> None:
    authority = Authority.create()
    async with open_target() as target, AsyncExitStack() as stack:
        certificate = authority.issue_web_certificate()
        proxy = await stack.enter_async_context(open_connect_proxy(certificate=certificate))
        assert proxy.url == f"https://{proxy.address}"
        context = ssl_context(authority)
        stream = TLSStream(await dial(stack, proxy), context, server_side=False)
        await stream.do_handshake()
        assert await get_through(stream, "http", target)
        assert await echoed(stream)


def ssl_context(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.web_ca.pem.decode())


@pytest.mark.parametrize("action", [Action.RESET, Action.CLOSE, Action.GOODBYE])
@pytest.mark.parametrize(
    "step", [Step.ACCEPT, Step.BEFORE_ANSWER, Step.MID_ANSWER, Step.AFTER_ANSWER]
)
@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_fault_is_met_once(kind: str, step: Step, action: Action) -> None:
    async with open_target() as target, AsyncExitStack() as stack:
        options = OutboundOptions(faults=FaultPlan(Fault(step, action, first=1)))
        proxy = await open_proxy(stack, kind, options)
        async with await dial(stack, proxy) as stream:
            with pytest.raises((trio.BrokenResourceError, AssertionError)):  # noqa: PT012 - where it breaks, varies
                assert await get_through(stream, kind, target)
                assert await echoed(stream)
        assert [fault.step for fault in proxy.faults.injected] == [step]
        stream = await dial(stack, proxy)
        assert await get_through(stream, kind, target)
        assert await echoed(stream)


@pytest.mark.usefixtures("no_descriptor_may_be_left")
@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_leaving_the_proxy_closes_what_is_open(kind: str) -> None:
    async with AsyncExitStack() as clients, open_target() as target:
        async with AsyncExitStack() as stack:
            proxy = await open_proxy(stack, kind, OutboundOptions())
            stream = await dial(clients, proxy)
            assert await get_through(stream, kind, target)
            await dial(clients, proxy)
        assert await at_end(stream)


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_stall_lasts(kind: str) -> None:
    async with open_target() as target, AsyncExitStack() as stack:
        options = OutboundOptions(faults=FaultPlan(Fault(Step.BEFORE_ANSWER, Action.STALL)))
        proxy = await open_proxy(stack, kind, options)
        with trio.move_on_after(0.05) as scope:
            await get_through(await dial(stack, proxy), kind, target)
        assert scope.cancelled_caught
