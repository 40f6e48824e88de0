"""Connections inside of the lab's connection upgrade, with a client of the tests' own."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from lab_client import (
    ECHO_ALPN,
    ECHO_PING_ALPN,
    Client,
    FramedStream,
    at_end,
    exactly,
    issue,
    open_echo_lab,
    routed,
    until,
)
from upgraded_client import LEGACY, WEBSOCKET, Response, WebSocket, ask, frame, start_tls

from dbproxy.lab import Action, Fault, FaultPlan, Step, UpgradeOptions
from dbproxy.lab.upgrade import choose_mode, choose_protocol

PATH = "/webapi/connectionupgrade"
MODES = {"websocket": WEBSOCKET, "legacy": LEGACY}
BOTH = {**LEGACY, **WEBSOCKET, "Upgrade": "alpn, websocket"}
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MONGO = routed(protocol="mongodb")


@asynccontextmanager
async def open_client(
    directory: Path, upgrade: UpgradeOptions | None = None, *, ping: bool = True
) -> AsyncIterator[Client]:
    async with open_echo_lab(directory, upgrade=upgrade, ping=ping) as lab:
        yield Client(lab, directory)


@asynccontextmanager
async def upgraded(
    client: Client, headers: dict[str, str], key: bytes | None = bytes(4)
) -> AsyncIterator[trio.abc.Stream]:
    """What the upgrade carries: the stream for the inner ClientHello."""
    async with client.connect(alpn=()) as outer:
        answer = await ask(outer, PATH, headers)
        assert answer.status == 101
        assert not answer.rest
        if answer.headers["upgrade"] == "websocket":
            yield WebSocket(outer, key)
        else:
            yield outer


async def shake_hands_inside(
    client: Client,
    below: trio.abc.Stream,
    alpn: tuple[str, ...] = ECHO_ALPN,
    *,
    tunnel: bool = True,
    version: ssl.TLSVersion | None = None,
) -> trio.abc.Stream:
    """The connection inside, which the Host CA vouches for."""
    pair = issue(client.lab, MONGO) if tunnel else None
    context = client.context(client.lab.authority.host_ca.pem, pair, alpn, version)
    stream = await start_tls(below, context)
    framed = (stream.selected_alpn_protocol() or "").endswith("-ping")
    return FramedStream(stream) if framed else stream


async def echoed(stream: trio.abc.Stream, data: bytes = b"hello") -> bool:
    await stream.send_all(data)
    return await exactly(stream, len(data)) == data


@pytest.mark.parametrize(
    ("headers", "mode", "protocol"),
    [
        ({"upgrade": "websocket", "sec-websocket-protocol": "alpn"}, "websocket", "alpn"),
        (
            {"upgrade": "websocket", "sec-websocket-protocol": "x, alpn-ping"},
            *["websocket", "alpn-ping"],
        ),
        ({"upgrade": "websocket"}, "websocket", ""),
        ({"upgrade": "alpn", "x-teleport-upgrade": "alpn-ping"}, "alpn-ping", "alpn-ping"),
        ({"upgrade": "alpn"}, "alpn", "alpn"),
        ({"x-teleport-upgrade": "alpn", "upgrade": "h2c"}, "alpn", "alpn"),
        ({"upgrade": "h2c"}, "", ""),
        ({}, "", ""),
    ],
)
def test_the_servers_order_decides(headers: dict[str, str], mode: str, protocol: str) -> None:
    assert choose_mode(headers, UpgradeOptions()) == mode
    assert choose_protocol(headers, mode) == protocol


def test_an_older_server_knows_less() -> None:
    both = {"upgrade": "websocket", "x-teleport-upgrade": "alpn"}
    assert choose_mode(both, UpgradeOptions(websocket=False)) == "alpn"
    assert choose_mode(both, UpgradeOptions(legacy=False)) == "websocket"
    assert choose_mode(both, UpgradeOptions(websocket=False, legacy=False)) == ""


async def answer_to(client: Client, headers: dict[str, str]) -> Response:
    async with client.connect(alpn=()) as outer:
        return await ask(outer, PATH, headers)


async def test_the_websocket_answer_follows_the_rfc(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        answer = await answer_to(client, WEBSOCKET)
        assert answer.status == 101
        assert answer.headers["upgrade"] == "websocket"
        assert answer.headers["connection"] == "Upgrade"
        assert answer.headers["sec-websocket-protocol"] == "alpn"
        assert answer.headers["sec-websocket-accept"] == ACCEPT
        record = client.lab.upgrades[-1]
        assert (record.mode, record.protocol, record.status) == ("websocket", "alpn", 101)
        assert record.headers["sec-websocket-version"] == "13"


async def test_the_legacy_answer_has_no_websocket_headers(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        answer = await answer_to(client, LEGACY)
        assert answer.headers["upgrade"] == "alpn"
        assert "sec-websocket-accept" not in answer.headers


async def test_a_client_that_asks_for_both_gets_the_websocket(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        assert (await answer_to(client, BOTH)).headers["upgrade"] == "websocket"
        client.lab.upgrade = UpgradeOptions(websocket=False)
        assert (await answer_to(client, BOTH)).headers["upgrade"] == "alpn"


async def test_servers_may_refuse_or_lie(tmp_path: Path) -> None:
    async with open_client(tmp_path, UpgradeOptions(websocket=False, legacy=False)) as client:
        assert (await answer_to(client, WEBSOCKET)).status == 404
        client.lab.upgrade = UpgradeOptions(websocket=False)
        assert (await answer_to(client, WEBSOCKET)).status == 404
        client.lab.upgrade = UpgradeOptions(status=503)
        assert (await answer_to(client, WEBSOCKET)).status == 503
        client.lab.upgrade = UpgradeOptions(wrong_accept=True)
        assert (await answer_to(client, WEBSOCKET)).headers["sec-websocket-accept"] != ACCEPT
        client.lab.upgrade = UpgradeOptions()
        without_key = {k: v for k, v in WEBSOCKET.items() if k != "Sec-WebSocket-Key"}
        assert (await answer_to(client, without_key)).status == 400


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("alpn", [ECHO_ALPN, ECHO_PING_ALPN])
@pytest.mark.parametrize("mode", MODES)
async def test_a_tunnel_runs_inside(
    tmp_path: Path, mode: str, alpn: tuple[str, ...], version: ssl.TLSVersion
) -> None:
    async with open_client(tmp_path) as client, upgraded(client, MODES[mode]) as below:
        stream = await shake_hands_inside(client, below, alpn, version=version)
        assert isinstance(stream, FramedStream) == (alpn is ECHO_PING_ALPN)
        assert await echoed(stream, b"x" * 300_000)
        outer, inner = client.lab.handshakes
        assert outer.upgrade is None
        assert inner.upgrade is client.lab.upgrades[-1]
        assert inner.tunnel
        assert inner.alpn == alpn[0]
        assert inner.peer == "127.0.0.1"
        assert not client.lab.upgrades[-1].violations
        assert client.lab.upgrades[-1].zero_keys_only


@pytest.mark.parametrize("mode", MODES)
async def test_three_layers_of_tls_outside_a_tunnel(tmp_path: Path, mode: str) -> None:
    async with open_client(tmp_path) as client, upgraded(client, MODES[mode]) as below:
        outer = await shake_hands_inside(client, below, ECHO_PING_ALPN, tunnel=False)
        inner = await client.start_inner_tls(outer, issue(client.lab, MONGO))
        assert await echoed(inner)


async def test_the_web_certificate_is_not_shown_inside(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client, upgraded(client, WEBSOCKET) as below:
        context = client.context(client.lab.web_ca_file.read_bytes(), alpn=ECHO_ALPN)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await start_tls(below, context)
        assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value.__cause__)


@pytest.mark.parametrize(("unmask", "works"), [(True, True), (False, False)])
async def test_a_server_of_15_1_needs_the_zero_key(
    tmp_path: Path, unmask: bool, works: bool
) -> None:
    async with open_client(tmp_path, UpgradeOptions(unmask=unmask)) as client:
        async with upgraded(client, WEBSOCKET) as below:
            assert await echoed(await shake_hands_inside(client, below))
        async with upgraded(client, WEBSOCKET, b"\1\2\3\4") as below:
            if works:
                assert await echoed(await shake_hands_inside(client, below))
            else:
                with pytest.raises(trio.BrokenResourceError):
                    await shake_hands_inside(client, below)
            assert not client.lab.upgrades[-1].zero_keys_only


async def test_violations_are_recorded(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client, client.connect(alpn=()) as outer:
        await ask(outer, PATH, WEBSOCKET)
        await outer.send_all(frame(1, b"text") + frame(2, b"\x16", key=None))
        record = client.lab.upgrades[-1]
        await until(lambda: len(record.violations) == 2)
        assert "not masked" in record.violations[1]


async def test_a_close_frame_is_the_end_without_an_answer(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client, client.connect(alpn=()) as outer:
        await ask(outer, PATH, WEBSOCKET)
        await outer.send_all(frame(8, b""))
        assert await at_end(outer)


@pytest.mark.parametrize(
    ("protocol", "always", "pings"),
    [("alpn-ping", False, True), ("alpn", True, True), ("alpn", False, False)],
)
async def test_websocket_pings_are_sent_and_pongs_recorded(
    tmp_path: Path, protocol: str, always: bool, pings: bool
) -> None:
    options = UpgradeOptions(ping_interval=0.005, ping_always=always)
    headers = {**WEBSOCKET, "Sec-WebSocket-Protocol": protocol}
    async with open_client(tmp_path, options) as client, upgraded(client, headers) as below:
        stream = await shake_hands_inside(client, below)
        for _ in range(5):
            assert await echoed(stream)
            await trio.sleep(0.01)
        record = client.lab.upgrades[-1]
        assert isinstance(below, WebSocket)
        assert (9 in below.opcodes) == pings
        if pings:
            await until(lambda: b"teleport" in record.pongs)
        assert (record.pings > 0) == pings


async def test_legacy_ping_frames_the_raw_stream(tmp_path: Path) -> None:
    headers = {**LEGACY, "Upgrade": "alpn-ping", "X-Teleport-Upgrade": "alpn-ping"}
    options = UpgradeOptions(ping_interval=0.005)
    async with open_client(tmp_path, options) as client, upgraded(client, headers) as below:
        framed = FramedStream(below)
        stream = await shake_hands_inside(client, framed)
        await trio.sleep(0.02)
        assert await echoed(stream)
        assert framed.pings


async def test_frames_that_a_client_has_to_drop_can_be_mixed_in(tmp_path: Path) -> None:
    options = UpgradeOptions(noise=True)
    async with open_client(tmp_path, options) as client, upgraded(client, WEBSOCKET) as below:
        assert await echoed(await shake_hands_inside(client, below))
        assert isinstance(below, WebSocket)
        assert {0, 1, 2, 10} <= set(below.opcodes)


async def test_there_is_no_upgrade_inside_of_an_upgrade(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client, upgraded(client, WEBSOCKET) as below:
        stream = await shake_hands_inside(client, below, (), tunnel=False)
        assert (await ask(stream, PATH, WEBSOCKET)).status == 404
        assert (await ask(stream, "/webapi/find")).status == 200


STEPS = [Step.BEFORE_ANSWER, Step.MID_ANSWER, Step.AFTER_ANSWER]


@pytest.mark.parametrize("action", [Action.RESET, Action.CLOSE, Action.GOODBYE])
@pytest.mark.parametrize("step", STEPS)
async def test_the_answer_may_fail(tmp_path: Path, step: Step, action: Action) -> None:
    faults = FaultPlan(Fault(step, action, first=1))
    async with open_client(tmp_path, UpgradeOptions(faults=faults)) as client:
        async with client.connect(alpn=()) as outer:
            await outer.send_all(request_bytes(LEGACY))
            received = await all_bytes(outer)
        if action is not Action.RESET:
            expected = {Step.BEFORE_ANSWER: 0, Step.MID_ANSWER: 1, Step.AFTER_ANSWER: 2}[step]
            assert (received[:8] == b"HTTP/1.1") + (b"\r\n\r\n" in received) == expected
        async with upgraded(client, LEGACY) as below:
            assert await echoed(await shake_hands_inside(client, below))
        assert [fault.step for fault in client.lab.upgrade_faults.injected] == [step]


def request_bytes(headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode()


async def all_bytes(stream: trio.abc.ReceiveStream) -> bytes:
    received = b""
    try:
        while data := await stream.receive_some(4096):
            received += data
    except trio.BrokenResourceError:
        return received
    return received


@pytest.mark.parametrize("step", [Step.CLIENT_HELLO, Step.MID_HANDSHAKE, Step.HANDSHAKE])
async def test_the_connection_inside_may_fail(tmp_path: Path, step: Step) -> None:
    faults = FaultPlan(Fault(step, Action.RESET, first=1))
    async with open_client(tmp_path, UpgradeOptions(faults=faults)) as client:
        async with upgraded(client, WEBSOCKET) as below:
            with pytest.raises(trio.BrokenResourceError):
                await echoed(await shake_hands_inside(client, below))
        async with upgraded(client, WEBSOCKET) as below:
            assert await echoed(await shake_hands_inside(client, below))
