"""How connections end that were dialled well, or nearly: each ending has its name.

Certificates that are rejected, closes without a word, upstreams that break off or fall silent,
clients that leave while they wait, and the queue for handshakes.
"""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from data_client import data_connection, reset, take_first_message
from database_clients import Psql, refused_psql
from lab_client import exactly, startup, until
from loopback import no_descriptor_left
from odd_pieces import Stream
from running_proxy import (
    PATIENCE,
    Destination,
    ProxyIn,
    RunningProxy,
    checked_modes,
    every_mode,
    running_proxy,
)
from stream_ends import receive_all

from dbproxy import Code, Mode
from dbproxy.events import ClosedBy, UpstreamRetried
from dbproxy.lab import (
    Action,
    DatabaseResource,
    Fault,
    FaultPlan,
    Lab,
    Step,
    guide,
    open_lab,
)
from dbproxy.lab.alerts import Alert
from dbproxy.lab.handshake import Handshake
from dbproxy.lab.keys import PrivateKey
from dbproxy.lab.postgres import EmbeddedPostgres

ALERTS = (
    Alert.CERTIFICATE_EXPIRED,
    Alert.UNKNOWN_CA,
    Alert.CERTIFICATE_REVOKED,
    Alert.BAD_CERTIFICATE,
)
EVERY_CERTIFICATE = datetime.max.replace(tzinfo=UTC)
INTERVAL = 0.1
"""Seconds between pings."""
WAIT = 20.0
"""Seconds that dbproxy would let a client wait: far more than a test takes."""


@pytest.fixture(autouse=True)
def _nothing_left(postgres: EmbeddedPostgres, psql: Psql) -> Iterator[None]:
    with no_descriptor_left():
        yield


# Before the first byte


@checked_modes
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_psql_prints_the_alert_that_rejected_our_certificate(
    mode: Mode,
    version: ssl.TLSVersion,
    postgres: EmbeddedPostgres,
    rsa_keys: tuple[PrivateKey, PrivateKey],
    psql: Psql,
    tmp_path: Path,
) -> None:
    """With TLS 1.2 our handshake fails; with TLS 1.3 it succeeds, and the alert comes later."""
    database = DatabaseResource(guide.SERVICE, postgres.address, labels={"env": "dev"})
    async with AsyncExitStack() as stack:
        lab = await stack.enter_async_context(
            open_lab(databases=[database], directory=tmp_path / "lab", maximum_tls_version=version)
        )
        lab.create_role(guide.role_yaml())
        destination = Destination(tmp_path / "machine-id", lab, rsa_keys)
        await destination.renew()
        proxy = await stack.enter_async_context(running_proxy(mode, lab, destination.directory))
        for number, alert in enumerate(ALERTS, 1):
            lab.reject_certificates(alert, issued_before=EVERY_CERTIFICATE)
            printed = await refused_psql(psql, proxy)
            assert f"client certificate with the TLS alert {alert.name.lower()}" in printed
            assert "[certificate-rejected]" in printed
            record = await proxy.record(number)
            assert (record.code, record.attempts) == (Code.CERTIFICATE_REJECTED, 1)
        lab.accept_certificates()
        assert (await psql.run(proxy, "SELECT 1")).out == "1\n"


@checked_modes
async def test_a_close_without_a_word_comes_with_what_to_check(
    mode: Mode, proxy_in: ProxyIn, lab: Lab, psql: Psql
) -> None:
    async with proxy_in(mode) as proxy:
        lab.admission.locked.add("bot-app")
        printed = await refused_psql(psql, proxy)
        record = await proxy.record()
    assert "[upstream-closed-early]" in printed
    assert "check locks, limits and the service" in printed
    assert (record.code, record.closed_by) == (Code.UPSTREAM_CLOSED_EARLY, ClosedBy.UPSTREAM)


# After the first byte: a server of our own, which says as much as the client does


@asynccontextmanager
async def talking_proxy(
    mode: Mode,
    directory: Path,
    keys: tuple[PrivateKey, PrivateKey],
    *faults: Fault,
    **settings: Any,
) -> AsyncIterator[tuple[Lab, RunningProxy]]:
    """dbproxy, and a Teleport Proxy behind it that echoes after the first message.

    The faults concern database connections only.
    """

    async def echo(stream: Stream, _facts: Handshake) -> None:
        await take_first_message(stream)
        while data := await stream.receive_some():
            await stream.send_all(data)

    database = DatabaseResource(guide.SERVICE, "127.0.0.1:1", labels={"env": "dev"})
    async with open_lab(
        databases=[database],
        directory=directory / "lab",
        handler=echo,
        ping_interval=INTERVAL,
        faults=FaultPlan(*faults),
    ) as lab:
        lab.create_role(guide.role_yaml())
        destination = Destination(directory / "machine-id", lab, keys)
        await destination.renew()
        async with running_proxy(mode, lab, destination.directory, **settings) as proxy:
            yield lab, proxy


async def to_the_end(stream: trio.abc.ReceiveStream) -> tuple[bytes, bool]:
    """What still comes, and whether the end is a clean one."""
    received = b""
    with trio.fail_after(PATIENCE):
        try:
            while data := await stream.receive_some():
                received += data
        except trio.BrokenResourceError:
            return received, False
    return received, True


@every_mode
async def test_an_upstream_that_falls_silent_after_its_pings_is_given_up(
    mode: Mode, rsa_keys: tuple[PrivateKey, PrivateKey], tmp_path: Path
) -> None:
    stall = Fault(Step.SENT, Action.STALL, size=8)
    async with talking_proxy(mode, tmp_path, rsa_keys, stall) as (lab, proxy):
        async with data_connection(proxy) as stream:
            await stream.send_all(b"hello")
            assert await exactly(stream, 5) == b"hello"
            await trio.sleep(6 * INTERVAL)  # pings alone keep a connection, however long
            assert proxy.records == []
            began = trio.current_time()
            await stream.send_all(b"again")
            received, clean = await to_the_end(stream)
            taken = trio.current_time() - began
        record = await proxy.record()
        assert len(lab.faults.injected) == 1
    assert received == b"aga"
    assert clean is (mode is not Mode.TERMINATE), "half an answer must not look like a whole one"
    assert 2 * INTERVAL < taken < PATIENCE / 2
    assert (record.code, record.closed_by) == (Code.UPSTREAM_SILENT, ClosedBy.UPSTREAM)
    assert record.bytes_down == 8


async def test_silence_before_the_first_byte_is_told_to_the_client(
    rsa_keys: tuple[PrivateKey, PrivateKey], tmp_path: Path
) -> None:
    stall = Fault(Step.RECEIVED, Action.STALL, size=100)
    async with talking_proxy(Mode.TUNNEL, tmp_path, rsa_keys, stall) as (_lab, proxy):
        async with await proxy.connect() as stream:
            await stream.send_all(startup(user="alice"))
            await trio.sleep(4 * INTERVAL)
            await stream.send_all(bytes(100))
            with trio.fail_after(PATIENCE):
                answer = await receive_all(stream)
        record = await proxy.record()
    assert b"[upstream-silent]" in answer
    assert record.code is Code.UPSTREAM_SILENT


@pytest.mark.parametrize("mode", [Mode.TERMINATE, Mode.TUNNEL])
@pytest.mark.parametrize(
    ("action", "code"),
    [
        (Action.RESET, Code.UPSTREAM_LOST),
        (Action.CLOSE, Code.UPSTREAM_LOST),
        (Action.GOODBYE, None),  # TLS says that this is the end
    ],
    ids=str,
)
async def test_an_upstream_that_breaks_off_is_told_from_one_that_ends(
    action: Action,
    code: Code | None,
    mode: Mode,
    rsa_keys: tuple[PrivateKey, PrivateKey],
    tmp_path: Path,
) -> None:
    fault = Fault(Step.SENT, action, size=8)
    async with (
        talking_proxy(mode, tmp_path, rsa_keys, fault, connect_grace=WAIT) as (_lab, proxy),
        data_connection(proxy) as stream,
    ):
        await stream.send_all(b"hello")
        assert await exactly(stream, 5) == b"hello"
        await stream.send_all(b"again")
        received, clean = await to_the_end(stream)
        await stream.aclose()
        record = await proxy.record()
    if action is not Action.RESET:  # which may overtake what was sent before it
        assert received == b"aga"
    assert clean or (mode is Mode.TERMINATE and code is not None)
    assert (record.code, record.closed_by) == (code, ClosedBy.UPSTREAM)
    assert (record.outcome, record.attempts) == ("relayed", 1), "what was answered is not repeated"


async def test_an_upstream_that_never_answers_is_left_for_the_client_to_give_up(
    rsa_keys: tuple[PrivateKey, PrivateKey], tmp_path: Path
) -> None:
    """Teleport may wait for a database for a minute: how long is too long only the client knows.

    A client that closes has ended its direction; that it is gone shows when something is sent to
    it, such as a keepalive probe. The reset that answers the probe is made here by hand.
    """
    stall = Fault(Step.HANDSHAKE, Action.STALL)
    settings = {"handshake_timeout": 0.3, "connect_timeout": 0.3, "connection_upgrade": "never"}
    async with talking_proxy(
        Mode.TUNNEL, tmp_path, rsa_keys, stall, no_discovery=True, **settings
    ) as (lab, proxy):
        stream = await proxy.connect()
        await stream.send_all(startup(user="alice"))
        await trio.sleep(0.6)
        assert proxy.records == [], "no time-out of ours is for this"
        assert len(lab.faults.injected) == 1
        await stream.send_eof()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert proxy.records == [], "the answer may still come"
        reset(stream)
        record = await proxy.record()
    assert (record.outcome, record.closed_by) == ("relayed", ClosedBy.CLIENT)


# While clients wait


def waits(proxy: RunningProxy) -> bool:
    """Whether a client is kept waiting, or was."""
    return bool(proxy.of(UpstreamRetried))


@every_mode
@pytest.mark.parametrize("rejected", [False, True], ids=["down", "rejected"])
async def test_nobody_is_dialled_for_who_has_left(
    mode: Mode, rejected: bool, rsa_keys: tuple[PrivateKey, PrivateKey], tmp_path: Path
) -> None:
    settings = {"connect_grace": WAIT, "no_discovery": True}
    async with talking_proxy(mode, tmp_path, rsa_keys, **settings) as (lab, proxy):
        if rejected and mode is not Mode.PASSTHROUGH:  # where dbproxy shows no certificate
            lab.reject_certificates(issued_before=EVERY_CERTIFICATE)
        else:
            await lab.stop_proxy()
        async with data_connection(proxy):
            await until(lambda: waits(proxy), PATIENCE)
        record = await proxy.record()
        handshakes = len(lab.handshakes)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(lab.handshakes) == handshakes
    assert (record.outcome, record.closed_by) == ("abandoned", ClosedBy.CLIENT)
    assert record.code in {Code.UPSTREAM_UNREACHABLE, Code.CERTIFICATE_REJECTED}
    assert record.duration < WAIT / 2


async def test_who_waits_for_a_handshake_does_so_in_a_queue(
    rsa_keys: tuple[PrivateKey, PrivateKey], tmp_path: Path
) -> None:
    """The upstream stalls, so each turn takes its time; three have one at the same time."""
    at_once, count, limit = 3, 12, 0.4
    stall = Fault(Step.CLIENT_HELLO, Action.STALL)
    dialled: list[tuple[float, int]] = []
    settings = {"max_handshakes": at_once, "handshake_timeout": limit, "no_discovery": True}
    async with talking_proxy(
        Mode.TUNNEL, tmp_path, rsa_keys, stall, connection_upgrade="never", **settings
    ) as (lab, proxy):

        async def come() -> None:
            async with await proxy.connect() as stream:
                await stream.send_all(startup(user="alice"))
                with trio.fail_after(PATIENCE):
                    assert b"TLS handshake" in await receive_all(stream)

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(come)
                await trio.testing.wait_all_tasks_blocked(0.002)
            while len(proxy.records) < count:
                dialled.append((trio.current_time() - began, len(lab.faults.injected)))
                await trio.sleep(0.01)
        records = proxy.records
    for seconds, number in dialled:  # a turn takes as long as the limit, and never less
        assert number <= at_once * (1 + int(seconds / limit)), f"{number} after {seconds} s"
    assert max(number for _, number in dialled) == count
    turns = [{record.id for record in records[at:][:at_once]} for at in range(0, count, at_once)]
    assert turns == [set(range(at + 1, at + at_once + 1)) for at in range(0, count, at_once)]
    assert {record.code for record in records} == {Code.UPSTREAM_UNREACHABLE}


async def test_who_leaves_the_queue_for_handshakes_frees_its_place_and_who_stays_loses_no_byte(
    rsa_keys: tuple[PrivateKey, PrivateKey], tmp_path: Path
) -> None:
    stall = Fault(Step.CLIENT_HELLO, Action.STALL, first=1)
    settings = {"max_handshakes": 1, "handshake_timeout": 1.0, "no_discovery": True}
    async with talking_proxy(
        Mode.TUNNEL, tmp_path, rsa_keys, stall, connection_upgrade="never", **settings
    ) as (lab, proxy):
        async with await proxy.connect() as first:
            await first.send_all(startup(user="alice"))
            await until(lambda: len(lab.faults.injected) == 1, PATIENCE)
            leaves, stays = await proxy.connect(), await proxy.connect()
            await leaves.send_all(startup(user="alice"))
            async with stays:
                await stays.send_all(startup(user="alice"))
                await stays.send_all(b"one ")
                await trio.testing.wait_all_tasks_blocked(0.05)
                await leaves.aclose()
                record = await proxy.record(2)
                assert len(proxy.records) == 1, "the handshake still stalls"
                await stays.send_all(b"two")
                assert await exactly(stays, 7) == b"one two"
                assert (await proxy.record(1)).code is Code.UPSTREAM_UNREACHABLE
        assert len(lab.handshakes) == 2
    assert (record.outcome, record.closed_by) == ("abandoned", ClosedBy.CLIENT)
    assert record.code is Code.UPSTREAM_UNREACHABLE
    assert record.reason is not None
    assert "waited for its turn" in record.reason


async def test_who_leaves_while_the_proxy_is_asked_where_to_dial_is_not_waited_for(
    rsa_keys: tuple[PrivateKey, PrivateKey], tmp_path: Path
) -> None:
    stall = Fault(Step.CLIENT_HELLO, Action.STALL)
    async with talking_proxy(
        Mode.TUNNEL, tmp_path, rsa_keys, stall, connection_upgrade="never"
    ) as (lab, proxy):
        async with await proxy.connect() as leaves:
            await leaves.send_all(startup(user="alice"))
            await until(lambda: len(lab.faults.injected) > 0, PATIENCE)
        record = await proxy.record(1)
    assert (record.outcome, record.closed_by) == ("abandoned", ClosedBy.CLIENT)
    assert record.code is Code.UPSTREAM_UNREACHABLE
    assert record.duration < WAIT / 2
    assert record.reason is not None
    assert "was being asked where to dial" in record.reason
