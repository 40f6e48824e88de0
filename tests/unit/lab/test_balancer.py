"""The lab's L7 balancer between a client of the tests and the Proxy."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from lab_client import (
    ECHO_ALPN,
    ECHO_PING_ALPN,
    Client,
    FramedStream,
    exactly,
    issue,
    open_echo_lab,
    routed,
    until,
)
from loopback import TLSStream
from upgraded_client import LEGACY, WEBSOCKET, WebSocket, ask, start_tls

from dbproxy.lab import (
    Action,
    Balancer,
    BalancerOptions,
    Fault,
    FaultPlan,
    Step,
    UnknownALPN,
    open_balancer,
    open_lab,
)

PATH = "/webapi/connectionupgrade"
PROBE_ALPN = ("teleport-reversetunnel",)
MONGO = routed(protocol="mongodb")


@dataclass(frozen=True)
class Behind:
    """A balancer, and a client of the lab behind it."""

    balancer: Balancer
    client: Client

    async def connect_tcp(self) -> trio.SocketStream:
        host, port = self.balancer.address.rsplit(":", 1)
        stream = await trio.open_tcp_stream(host, int(port))
        self.client.sockets.append(stream)
        return stream

    def context(self, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
        return self.client.context(self.client.lab.web_ca_file.read_bytes(), alpn=alpn)

    async def connect(self, alpn: tuple[str, ...] = ()) -> TLSStream:
        stream = TLSStream(await self.connect_tcp(), self.context(alpn), server_side=False)
        await stream.do_handshake()
        return stream


@asynccontextmanager
async def open_behind(
    directory: Path, options: BalancerOptions | None = None
) -> AsyncIterator[Behind]:
    async with open_echo_lab(directory) as lab, open_balancer(lab, options) as balancer:
        with closing(Client(lab, directory)) as client:
            yield Behind(balancer, client)


async def test_unknown_alpn_values_may_be_ignored(tmp_path: Path) -> None:
    async with open_behind(tmp_path) as behind:
        stream = await behind.connect(PROBE_ALPN)
        assert stream.end.tls.selected_alpn_protocol() is None
        assert behind.balancer.offered[-1] == PROBE_ALPN


async def test_unknown_alpn_values_may_get_the_alert(tmp_path: Path) -> None:
    async with open_behind(tmp_path, BalancerOptions(unknown_alpn=UnknownALPN.ALERT)) as behind:
        with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
            await behind.connect(PROBE_ALPN)
        stream = await behind.connect(("h2", "http/1.1"))
        assert stream.end.tls.selected_alpn_protocol() == "http/1.1"


async def test_unknown_alpn_values_may_get_an_end(tmp_path: Path) -> None:
    async with open_behind(tmp_path, BalancerOptions(unknown_alpn=UnknownALPN.CLOSE)) as behind:
        with pytest.raises(trio.BrokenResourceError):
            await behind.connect(PROBE_ALPN)
        assert (await ask(await behind.connect(), "/webapi/find")).status == 200


async def test_requests_go_through(tmp_path: Path) -> None:
    async with open_behind(tmp_path) as behind:
        stream = await behind.connect()
        for _ in range(2):
            assert (await ask(stream, "/webapi/find")).status == 200
        assert behind.client.lab.handshakes[-1].alpn == "http/1.1"


@pytest.mark.parametrize("alpn", [ECHO_ALPN, ECHO_PING_ALPN])
@pytest.mark.parametrize("headers", [WEBSOCKET, LEGACY], ids=["websocket", "legacy"])
async def test_an_upgraded_connection_goes_through(
    tmp_path: Path, headers: dict[str, str], alpn: tuple[str, ...]
) -> None:
    async with open_behind(tmp_path) as behind:
        lab = behind.client.lab
        outer = await behind.connect()
        assert (await ask(outer, PATH, headers)).status == 101
        below = WebSocket(outer) if headers is WEBSOCKET else outer
        pair = issue(lab, MONGO)
        context = behind.client.context(lab.authority.host_ca.pem, pair, alpn)
        inner: trio.abc.Stream = await start_tls(below, context)
        if alpn is ECHO_PING_ALPN:
            inner = FramedStream(inner)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inner.send_all, bytes(1 << 20))
            assert await exactly(inner, 1 << 20) == bytes(1 << 20)


async def test_its_certificate_may_have_further_names(tmp_path: Path) -> None:
    name = "teleport.example.com"
    async with open_behind(tmp_path, BalancerOptions(names=(name,))) as behind:
        stream = await start_tls(await behind.connect_tcp(), behind.context(), name)
        assert (await ask(stream, "/webapi/find")).status == 200


async def test_a_proxy_without_a_public_certificate_may_be_behind_it(tmp_path: Path) -> None:
    async with (
        open_lab(databases=[], directory=tmp_path / "lab", web_from_host_ca=True) as lab,
        open_balancer(lab) as balancer,
    ):
        with closing(Client(lab, tmp_path)) as client:
            stream = await Behind(balancer, client).connect()
            assert (await ask(stream, "/webapi/find")).status == 200


async def test_what_is_not_http_does_not_go_through(tmp_path: Path) -> None:
    async with open_behind(tmp_path) as behind:
        stream = await behind.connect()
        await stream.send_all(b"\x16\x03\x01\x02\x00\x01\r\n\r\n")
        assert (await stream.receive_some(12)) == b"HTTP/1.1 400"
        assert not behind.client.lab.handshakes


async def test_an_idle_connection_is_closed(tmp_path: Path) -> None:
    async with open_behind(tmp_path, BalancerOptions(idle_timeout=0.05)) as behind:
        outer = await behind.connect()
        await ask(outer, PATH, LEGACY)
        assert await outer.receive_some(1) == b""
        assert behind.balancer.timeouts == 1


async def test_a_proxy_that_is_down_is_a_bad_gateway(tmp_path: Path) -> None:
    async with open_behind(tmp_path) as behind:
        await behind.client.lab.stop_proxy()
        assert (await ask(await behind.connect(), "/webapi/find")).status == 502


@pytest.mark.parametrize("action", [Action.RESET, Action.CLOSE])
@pytest.mark.parametrize(
    "step",
    [
        Step.ACCEPT,
        Step.CLIENT_HELLO,
        Step.MID_HANDSHAKE,
        Step.HANDSHAKE,
        Step.BEFORE_ANSWER,
        Step.MID_ANSWER,
        Step.AFTER_ANSWER,
    ],
)
async def test_a_fault_is_met_once(tmp_path: Path, step: Step, action: Action) -> None:
    options = BalancerOptions(faults=FaultPlan(Fault(step, action, first=1)))
    async with open_behind(tmp_path, options) as behind:
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 - where it breaks, varies
            stream = await behind.connect()
            await ask(stream, "/webapi/find")
            await stream.receive_some(1)
        behind.client.close()
        assert (await ask(await behind.connect(), "/webapi/find")).status == 200
        assert [fault.step for fault in behind.balancer.faults.injected] == [step]


@pytest.mark.usefixtures("no_descriptor_may_be_left")
async def test_leaving_the_balancer_closes_what_is_open(tmp_path: Path) -> None:
    async with open_behind(tmp_path) as behind:
        outer = await behind.connect()
        assert (await ask(outer, PATH, WEBSOCKET)).status == 101
        await behind.connect()
        await behind.connect_tcp()


async def test_a_client_that_leaves_takes_its_connection_with_it(tmp_path: Path) -> None:
    async with open_behind(tmp_path) as behind:
        outer = await behind.connect()
        await ask(outer, PATH, LEGACY)
        await outer.aclose()
        await until(lambda: behind.balancer.connections == behind.client.lab.connections == 0)
