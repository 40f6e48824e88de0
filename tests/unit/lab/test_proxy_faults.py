"""What a client meets when the lab's Proxy follows a fault plan."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from lab_client import (
    ECHO_ALPN,
    ECHO_PING_ALPN,
    Client,
    at_end,
    exactly,
    issue,
    open_echo_lab,
    routed,
    until,
)
from loopback import TLSStream

from dbproxy.lab import Action, Alert, Fault, FaultPlan, Step, Variant

MONGO = routed(protocol="mongodb")
ENDS = [Action.RESET, Action.CLOSE, Action.GOODBYE]


@asynccontextmanager
async def open_client(
    directory: Path,
    *faults: Fault,
    variant: Variant | None = None,
    ping_interval: float = 30.0,
) -> AsyncIterator[Client]:
    async with open_echo_lab(
        directory, faults=FaultPlan(*faults), variant=variant, ping_interval=ping_interval
    ) as lab:
        with closing(Client(lab, directory)) as client:
            yield client


async def works(client: Client, alpn: tuple[str, ...] = ECHO_ALPN) -> bool:
    async with client.connect(issue(client.lab, MONGO), alpn) as stream:
        await stream.send_all(b"hello")
        return await exactly(stream, 5) == b"hello"


async def shake_hands(client: Client) -> TLSStream:
    context = client.context(
        client.lab.web_ca_file.read_bytes(), issue(client.lab, MONGO), ECHO_ALPN
    )
    stream = TLSStream(await client.connect_tcp(), context, server_side=False)
    await stream.do_handshake()
    return stream


@pytest.mark.parametrize("action", ENDS)
@pytest.mark.parametrize("step", [Step.ACCEPT, Step.CLIENT_HELLO, Step.MID_HANDSHAKE])
async def test_a_handshake_fails_for_the_first_two_clients(
    tmp_path: Path, step: Step, action: Action
) -> None:
    fault = Fault(step, action, first=2)
    async with open_client(tmp_path, fault) as client:
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError):
                await shake_hands(client)
        client.close()
        assert await works(client)
        assert list(client.lab.faults.injected) == [fault, fault]
        await until(lambda: client.lab.handshakes[0].error == f"fault: {action} at {step}")
        await until(lambda: client.lab.connections == 0)


@pytest.mark.parametrize("step", [Step.CLIENT_HELLO, Step.MID_HANDSHAKE])
async def test_bytes_come_up_to_the_middle_of_the_servers_flight(
    tmp_path: Path, step: Step
) -> None:
    async with open_client(tmp_path, Fault(step, Action.CLOSE)) as client:
        stream = await client.connect_tcp()
        context = client.context(client.lab.web_ca_file.read_bytes(), alpn=ECHO_ALPN)
        tls = TLSStream(stream, context, server_side=False)
        tls.end.start()
        await stream.send_all(tls.end.outgoing())
        received = b""
        while data := await stream.receive_some(65536):
            received += data
        assert (len(received) > 100) == (step is Step.MID_HANDSHAKE)


@pytest.mark.parametrize("action", ENDS)
async def test_an_end_after_the_handshake(tmp_path: Path, action: Action) -> None:
    async with open_client(tmp_path, Fault(Step.HANDSHAKE, action, first=1)) as client:
        stream = await shake_hands(client)
        if action is Action.GOODBYE:
            assert await stream.receive_some() == b""
        else:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        assert await works(client)


async def bytes_before_the_end(stream: trio.abc.ReceiveStream) -> bytes:
    received = b""
    try:
        while data := await stream.receive_some(100):
            received += data
    except trio.BrokenResourceError:
        return received
    raise AssertionError("the connection was not reset")


@pytest.mark.parametrize("alpn", [ECHO_ALPN, ECHO_PING_ALPN])
async def test_a_reset_after_so_many_bytes_to_the_client(
    tmp_path: Path, alpn: tuple[str, ...]
) -> None:
    async with open_client(tmp_path, Fault(Step.SENT, Action.RESET, size=3)) as client:
        pair = issue(client.lab, MONGO)
        async with client.connect(pair, alpn) as stream:
            await stream.send_all(b"hello")
            # A reset may overtake what was sent before it.
            assert await bytes_before_the_end(stream) in {b"", b"hel"}


async def test_a_close_after_so_many_bytes_from_the_client(tmp_path: Path) -> None:
    fault = Fault(Step.RECEIVED, Action.GOODBYE, size=3, first=1)
    async with open_client(tmp_path, fault) as client:
        async with client.connect(issue(client.lab, MONGO), ECHO_ALPN) as stream:
            await stream.send_all(b"hello")
            assert await at_end(stream)
        assert client.lab.audit.ends()[-1]["bytes_to_client"] == 0
        assert await works(client)


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault(step, Action.STALL) for step in (Step.ACCEPT, Step.CLIENT_HELLO)),
        Fault(Step.MID_HANDSHAKE, Action.STALL),
        Fault(Step.HANDSHAKE, Action.STALL),
        Fault(Step.SENT, Action.STALL, size=2),
        Fault(Step.RECEIVED, Action.STALL, size=2),
    ],
    ids=str,
)
async def test_a_stall_lasts_until_the_proxy_stops(tmp_path: Path, fault: Fault) -> None:
    async with open_client(tmp_path, fault, ping_interval=0.001) as client:
        with trio.move_on_after(0.05) as scope:
            await works(client, ECHO_PING_ALPN)
        assert scope.cancelled_caught
        assert client.lab.connections == 1
        assert len(client.lab.faults.injected) == 1
        await client.lab.stop_proxy()
        assert client.lab.connections == 0


async def test_a_stalled_connection_sends_no_pings(tmp_path: Path) -> None:
    fault = Fault(Step.SENT, Action.STALL, size=5)
    async with open_client(tmp_path, fault, ping_interval=0.001) as client:
        pair = issue(client.lab, MONGO)
        async with client.connect(pair, ECHO_PING_ALPN) as stream:
            await stream.send_all(b"hello")
            assert await exactly(stream, 5) == b"hello"
            await until(lambda: len(client.lab.faults.injected) == 1)
            below = getattr(stream, "below")  # noqa: B009 - the framed stream's own
            with trio.move_on_after(0.05):
                while await below.receive_some(100):
                    pass
            with trio.move_on_after(0.05) as scope:
                await below.receive_some(1)
            assert scope.cancelled_caught


@pytest.mark.parametrize("alert", [Alert.CERTIFICATE_EXPIRED, Alert.UNKNOWN_CA])
async def test_an_alert_instead_of_the_servers_hello(tmp_path: Path, alert: Alert) -> None:
    async with open_client(tmp_path, Fault(Step.CLIENT_HELLO, alert)) as client:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await works(client)
        assert alert.name in str(caught.value.__cause__).upper().replace(" ", "_")


async def test_a_plan_may_come_later(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        assert await works(client)
        client.lab.faults.plan = FaultPlan(Fault(Step.ACCEPT, Action.RESET))
        with pytest.raises(trio.BrokenResourceError):
            await shake_hands(client)
        client.lab.faults.plan = FaultPlan()
        assert await works(client)


async def test_a_fault_of_another_protocol_does_no_harm(tmp_path: Path) -> None:
    fault = Fault(Step.CLIENT_HELLO, Action.RESET, alpn="teleport-postgres")
    async with open_client(tmp_path, fault) as client:
        assert await works(client)


async def test_more_connections_than_allowed_are_closed_without_a_word(tmp_path: Path) -> None:
    async with open_client(tmp_path, variant=Variant(max_connections=1)) as client:
        async with client.connect(issue(client.lab, MONGO), ECHO_ALPN) as first:
            await first.send_all(b"x")
            assert await exactly(first, 1) == b"x"
            refused = await shake_hands(client)
            assert await refused.receive_some() == b""
            await refused.aclose()
            await until(lambda: client.lab.handshakes[-1].error == "too many connections, max is 1")
        await until(lambda: client.lab.admission.admitted == 0)
        assert await works(client)


async def test_a_locked_user_is_turned_away_without_a_word(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        client.lab.admission.locked.add("bot-app")
        refused = await shake_hands(client)
        assert await refused.receive_some() == b""
        await refused.aclose()
        await until(lambda: client.lab.handshakes[-1].error == "user bot-app is locked")
        client.lab.admission.locked.clear()
        assert await works(client)


@pytest.mark.parametrize(("pinned", "allowed"), [("127.0.0.1", True), ("192.0.2.1", False)])
async def test_a_certificate_pinned_to_another_address_is_turned_away(
    tmp_path: Path, pinned: str, allowed: bool
) -> None:
    async with open_client(tmp_path) as client:
        pair = issue(client.lab, replace(MONGO, pinned_ip=pinned))
        async with client.connect(pair, ECHO_ALPN) as stream:
            await stream.send_all(b"x")
            assert await exactly(stream, 1) == (b"x" if allowed else b"")
