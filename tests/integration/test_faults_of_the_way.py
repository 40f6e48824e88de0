"""What goes wrong on the way to a Teleport Proxy, at each step: bounded in time, and named.

Each row is a fault of the lab and the code that the client is told:

- a stall is `upstream-unreachable` wherever it happens: a time-out cannot know what would come;
- who breaks off names the code: an outbound proxy `outbound-proxy-refused`, whoever has to answer
  an upgrade `upgrade-failed`, whoever shakes hands `upstream-tls-failed`;
- a close without a word right after a ClientHello with ALPN values is how a Teleport Proxy turns
  down all of them, hence `alpn-not-supported`; after one without any it is `upstream-tls-failed`;
- once our handshake is over it is `upstream-closed-early`, and an alert about certificates is
  `certificate-rejected` at any step.

A connection that is dialled
well and then stalls before its first byte is not among them: Teleport itself may wait for a
database for a minute, and how long is too long only the client knows.
"""

import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from lab_client import startup
from loopback import no_descriptor_left
from odd_pieces import Stream
from running_proxy import PATIENCE, Destination, RunningProxy, running_proxy
from stream_ends import receive_all
from ways import NAME, NAMED

from dbproxy import Code, Mode
from dbproxy.lab import (
    Action,
    BalancerOptions,
    DatabaseResource,
    Fault,
    FaultPlan,
    Lab,
    OutboundOptions,
    Step,
    Variant,
    guide,
    open_balancer,
    open_connect_proxy,
    open_lab,
    open_socks_proxy,
)
from dbproxy.lab.alerts import Alert
from dbproxy.lab.handshake import Handshake
from dbproxy.lab.keys import PrivateKey

LIMIT = 0.4
"""Seconds for each step: the faults are made to last for ever."""
LONGEST = 5.0
"""Seconds that a row may take on a machine that others use, too."""


@dataclass(frozen=True)
class Row:
    """A fault, and what the client is told."""

    step: Step
    action: Action | Alert
    code: Code

    def __str__(self) -> str:
        return str(Fault(self.step, self.action))


STALL, RESET, CLOSE, GOODBYE = Action.STALL, Action.RESET, Action.CLOSE, Action.GOODBYE
UNREACHABLE, TLS_FAILED = Code.UPSTREAM_UNREACHABLE, Code.UPSTREAM_TLS_FAILED
NO_ALPN, EARLY = Code.ALPN_NOT_SUPPORTED, Code.UPSTREAM_CLOSED_EARLY
REJECTED, UPGRADE = Code.CERTIFICATE_REJECTED, Code.UPGRADE_FAILED
REFUSED = Code.OUTBOUND_PROXY_REFUSED

PROXY_ROWS = (
    Row(Step.ACCEPT, STALL, UNREACHABLE),
    Row(Step.ACCEPT, RESET, TLS_FAILED),
    Row(Step.ACCEPT, CLOSE, NO_ALPN),  # a Teleport Proxy that knows no ALPN value does the same
    Row(Step.CLIENT_HELLO, STALL, UNREACHABLE),
    Row(Step.CLIENT_HELLO, RESET, TLS_FAILED),
    Row(Step.CLIENT_HELLO, CLOSE, NO_ALPN),
    Row(Step.CLIENT_HELLO, Alert.NO_APPLICATION_PROTOCOL, NO_ALPN),
    Row(Step.CLIENT_HELLO, Alert.INTERNAL_ERROR, TLS_FAILED),
    Row(Step.CLIENT_HELLO, Alert.PROTOCOL_VERSION, Code.UPSTREAM_TLS_TOO_OLD),
    Row(Step.CLIENT_HELLO, Alert.CERTIFICATE_EXPIRED, REJECTED),
    Row(Step.MID_HANDSHAKE, STALL, UNREACHABLE),
    Row(Step.MID_HANDSHAKE, RESET, TLS_FAILED),
    Row(Step.MID_HANDSHAKE, CLOSE, TLS_FAILED),
    Row(Step.HANDSHAKE, RESET, EARLY),
    Row(Step.HANDSHAKE, CLOSE, EARLY),
    Row(Step.HANDSHAKE, GOODBYE, EARLY),
)
UPGRADE_ROWS = (
    Row(Step.BEFORE_ANSWER, STALL, UNREACHABLE),
    Row(Step.BEFORE_ANSWER, RESET, UPGRADE),
    Row(Step.BEFORE_ANSWER, CLOSE, UPGRADE),
    Row(Step.MID_ANSWER, STALL, UNREACHABLE),
    Row(Step.MID_ANSWER, RESET, UPGRADE),
    Row(Step.MID_ANSWER, CLOSE, UPGRADE),
    Row(Step.AFTER_ANSWER, STALL, UNREACHABLE),
    Row(Step.AFTER_ANSWER, RESET, TLS_FAILED),
    Row(Step.AFTER_ANSWER, CLOSE, NO_ALPN),
    Row(Step.CLIENT_HELLO, STALL, UNREACHABLE),
    Row(Step.CLIENT_HELLO, RESET, TLS_FAILED),
    Row(Step.CLIENT_HELLO, CLOSE, NO_ALPN),
    Row(Step.CLIENT_HELLO, Alert.UNKNOWN_CA, REJECTED),
    Row(Step.MID_HANDSHAKE, STALL, UNREACHABLE),
    Row(Step.MID_HANDSHAKE, RESET, TLS_FAILED),
    Row(Step.MID_HANDSHAKE, CLOSE, TLS_FAILED),
    Row(Step.HANDSHAKE, RESET, EARLY),
    Row(Step.HANDSHAKE, CLOSE, EARLY),
    Row(Step.HANDSHAKE, GOODBYE, EARLY),
)
BALANCER_ROWS = (
    Row(Step.ACCEPT, STALL, UNREACHABLE),
    Row(Step.ACCEPT, RESET, TLS_FAILED),
    Row(Step.ACCEPT, CLOSE, TLS_FAILED),  # it was offered no ALPN value that it could dislike
    Row(Step.CLIENT_HELLO, STALL, UNREACHABLE),
    Row(Step.CLIENT_HELLO, RESET, TLS_FAILED),
    Row(Step.CLIENT_HELLO, CLOSE, TLS_FAILED),
    Row(Step.MID_HANDSHAKE, STALL, UNREACHABLE),
    Row(Step.MID_HANDSHAKE, RESET, TLS_FAILED),
    Row(Step.MID_HANDSHAKE, CLOSE, TLS_FAILED),
    Row(Step.HANDSHAKE, STALL, UNREACHABLE),
    Row(Step.HANDSHAKE, RESET, UPGRADE),
    Row(Step.HANDSHAKE, CLOSE, UPGRADE),
    Row(Step.BEFORE_ANSWER, STALL, UNREACHABLE),
    Row(Step.BEFORE_ANSWER, RESET, UPGRADE),
    Row(Step.BEFORE_ANSWER, CLOSE, UPGRADE),
    Row(Step.MID_ANSWER, STALL, UNREACHABLE),
    Row(Step.MID_ANSWER, RESET, UPGRADE),
    Row(Step.MID_ANSWER, CLOSE, UPGRADE),
    Row(Step.AFTER_ANSWER, STALL, UNREACHABLE),
    Row(Step.AFTER_ANSWER, RESET, TLS_FAILED),
    Row(Step.AFTER_ANSWER, CLOSE, NO_ALPN),
)
OUTBOUND_ROWS = (
    Row(Step.ACCEPT, STALL, UNREACHABLE),
    Row(Step.ACCEPT, RESET, REFUSED),
    Row(Step.ACCEPT, CLOSE, REFUSED),
    Row(Step.BEFORE_ANSWER, STALL, UNREACHABLE),
    Row(Step.BEFORE_ANSWER, RESET, REFUSED),
    Row(Step.BEFORE_ANSWER, CLOSE, REFUSED),
    Row(Step.MID_ANSWER, STALL, UNREACHABLE),
    Row(Step.MID_ANSWER, RESET, REFUSED),
    Row(Step.MID_ANSWER, CLOSE, REFUSED),
    Row(Step.AFTER_ANSWER, STALL, UNREACHABLE),
    Row(Step.AFTER_ANSWER, RESET, TLS_FAILED),
    Row(Step.AFTER_ANSWER, CLOSE, NO_ALPN),
)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    with no_descriptor_left():
        yield


async def greet(stream: Stream, _facts: Handshake) -> None:
    await stream.receive_some()
    await stream.send_all(b"welcome")


@asynccontextmanager
async def greeting_lab(directory: Path, **options: Any) -> AsyncIterator[Lab]:
    database = DatabaseResource(guide.SERVICE, "127.0.0.1:1", labels={"env": "dev"})
    async with open_lab(
        databases=[database],
        directory=directory,
        handler=greet,
        variant=Variant(names=[NAME]),
        **options,
    ) as lab:
        lab.create_role(guide.role_yaml())
        yield lab


async def told(proxy: RunningProxy) -> Code | None:
    """What the next client is told."""
    count = len(proxy.records)
    async with await proxy.connect() as stream:
        await stream.send_all(startup(user="alice"))
        with trio.fail_after(PATIENCE):
            answer = await receive_all(stream)
    record = (await proxy.all_closed(count + 1))[count]
    assert (answer == b"welcome") == (record.code is None)
    assert record.code is None or f"[{record.code}]".encode() in answer
    assert record.duration < LONGEST
    return record.code


@asynccontextmanager
async def proxy_to(
    lab: Lab, directory: Path, keys: Sequence[PrivateKey], **settings: Any
) -> AsyncIterator[RunningProxy]:
    destination = Destination(directory, lab, keys)
    await destination.renew()
    chosen = {
        "connect_timeout": LIMIT,
        "handshake_timeout": LIMIT,
        "no_discovery": True,
        "connection_upgrade": "never",
        **settings,
    }
    async with running_proxy(Mode.TUNNEL, lab, destination.directory, **chosen) as proxy:
        yield proxy


async def check(proxy: RunningProxy, faults: Any, rows: Sequence[Row]) -> None:
    """One row after another; between them the way is good again."""
    wrong = {}
    for row in rows:
        faults.plan = FaultPlan(Fault(row.step, row.action))
        if (code := await told(proxy)) is not row.code:
            wrong[str(row)] = code
        faults.plan = FaultPlan()
        assert await told(proxy) is None, f"not good again after {row}"
    assert wrong == {}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_faults_of_the_proxy(
    version: ssl.TLSVersion, rsa_keys: tuple[PrivateKey, PrivateKey], tmp_path: Path
) -> None:
    versions = {"minimum_tls_version": version, "maximum_tls_version": version}
    async with (
        greeting_lab(tmp_path / "lab", **versions) as lab,
        proxy_to(lab, tmp_path / "machine-id", rsa_keys) as proxy,
    ):
        await check(proxy, lab.faults, PROXY_ROWS)


async def test_faults_of_an_upgrade(
    rsa_keys: tuple[PrivateKey, PrivateKey], tmp_path: Path
) -> None:
    async with (
        greeting_lab(tmp_path / "lab") as lab,
        proxy_to(lab, tmp_path / "machine-id", rsa_keys, connection_upgrade="always") as proxy,
    ):
        await check(proxy, lab.upgrade_faults, UPGRADE_ROWS)


async def test_faults_of_a_balancer(
    rsa_keys: tuple[PrivateKey, PrivateKey], tmp_path: Path
) -> None:
    async with (
        greeting_lab(tmp_path / "lab") as lab,
        open_balancer(lab, BalancerOptions()) as balancer,
        proxy_to(
            lab,
            tmp_path / "machine-id",
            rsa_keys,
            proxy=balancer.address,
            connection_upgrade="always",
        ) as proxy,
    ):
        await check(proxy, balancer.faults, BALANCER_ROWS)


@pytest.mark.parametrize("kind", ["connect", "socks5"])
async def test_faults_of_an_outbound_proxy(
    kind: str,
    rsa_keys: tuple[PrivateKey, PrivateKey],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with AsyncExitStack() as stack:
        lab = await stack.enter_async_context(greeting_lab(tmp_path / "lab"))
        opened = open_connect_proxy if kind == "connect" else open_socks_proxy
        options = OutboundOptions(routes={NAMED: lab.address})
        outbound = await stack.enter_async_context(opened(options))
        monkeypatch.setenv("HTTPS_PROXY", outbound.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        proxy = await stack.enter_async_context(
            proxy_to(lab, tmp_path / "machine-id", rsa_keys, proxy=NAMED)
        )
        await check(proxy, outbound.faults, OUTBOUND_ROWS)
