"""Where connections go, and whether they are upgraded, when that is not as it usually is.

What the Teleport Proxy says, what the settings and the environment say, and what changes while
dbproxy runs. The usual ways are in `test_ways.py`.
"""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from database_clients import Psql, refused_psql, select_one, until_asleep, with_psycopg
from running_proxy import (
    PATIENCE,
    Destination,
    ProxyIn,
    RunningProxy,
    checked_modes,
    every_mode,
    running_proxy,
)
from trio.testing import MockClock
from ways import CREDENTIALS, NAME, NAMED, named_lab, no_outbound_proxy

from dbproxy import Code, Mode
from dbproxy.events import UpstreamConnected, UpstreamDiscovered, UpstreamRetried
from dbproxy.lab import (
    Action,
    BalancerOptions,
    Fault,
    FaultPlan,
    Lab,
    OutboundOptions,
    PostgresListener,
    Step,
    UnknownALPN,
    WebOptions,
    open_balancer,
    open_connect_proxy,
    open_postgres_listener,
)
from dbproxy.lab.keys import PrivateKey
from dbproxy.lab.postgres import EmbeddedPostgres

CONN_UPGRADE = "TELEPORT_TLS_ROUTING_CONN_UPGRADE"
UPGRADE_TEST = ("teleport-reversetunnel",)
"""What the test for an upgrade offers."""
RETEST_AFTER = 6.0
"""Seconds: so old must a decision be for a failure to bring it down."""


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    no_outbound_proxy(monkeypatch)
    for name in (CONN_UPGRADE, f"{CONN_UPGRADE}_MODE"):
        monkeypatch.delenv(name, raising=False)


async def connect_once(proxy: RunningProxy) -> UpstreamConnected:
    """A client that is served; how its connection went."""
    assert await with_psycopg(proxy, select_one) == 1
    return proxy.of(UpstreamConnected)[-1]


async def assert_told(proxy: RunningProxy, psql: Psql, code: Code) -> None:
    """A client is refused, and psql prints why, unless its own TLS has yet to begin."""
    printed = await refused_psql(psql, proxy)
    record = await proxy.record()
    assert (record.outcome, record.code) == ("refused", code)
    assert proxy.started.mode is Mode.PASSTHROUGH or f"[{code}]" in printed


# What the Teleport Proxy says


@every_mode
async def test_connections_go_to_the_address_that_the_proxy_publishes(
    mode: Mode, lab: Lab, proxy_in: ProxyIn
) -> None:
    async with open_balancer(lab) as balancer:
        lab.web = WebOptions(public_addr=balancer.address)
        async with proxy_in(mode) as proxy:
            connected = await connect_once(proxy)
            (discovered,) = proxy.of(UpstreamDiscovered)
    assert (connected.address, connected.upgraded) == (balancer.address, True)
    assert len(balancer.offered) == 2  # the test for an upgrade, and the connection
    assert discovered.decision == f"the public address that {lab.address} publishes"


@every_mode
async def test_without_discovery_the_given_address_is_kept(
    mode: Mode, lab: Lab, proxy_in: ProxyIn
) -> None:
    async with open_balancer(lab) as balancer:
        lab.web = WebOptions(public_addr=balancer.address)
        async with proxy_in(mode, no_discovery=True) as proxy:
            connected = await connect_once(proxy)
    assert (connected.address, connected.upgraded) == (lab.address, False)
    assert not lab.web_requests
    assert not balancer.offered


# TLS routing off


@asynccontextmanager
async def separate_listener(
    lab: Lab, faults: FaultPlan | None = None
) -> AsyncIterator[PostgresListener]:
    """TLS routing is off, and PostgreSQL has a published address of its own."""
    async with open_postgres_listener(lab, faults=faults or FaultPlan()) as listener:
        published = {"postgres_public_addr": listener.address}
        lab.web = WebOptions(tls_routing=False, databases=published)
        yield listener


@every_mode
async def test_with_tls_routing_off_the_address_for_postgresql_is_dialled(
    mode: Mode, lab: Lab, proxy_in: ProxyIn
) -> None:
    async with separate_listener(lab) as listener, proxy_in(mode) as proxy:
        connections = [await connect_once(proxy) for _ in range(2)]
        records = await proxy.all_closed(2)
    own_tls = mode is not Mode.PASSTHROUGH  # in passthrough, TLS is the client's alone
    assert {(it.address, it.alpn, it.upgraded) for it in connections} == {
        (listener.address, "", False)
    }
    assert [bool(it.tls_version) for it in connections] == [own_tls, own_tls]
    assert [it.resumed for it in connections] == [False, own_tls]
    assert listener.accepted == 2
    assert [record.outcome for record in records] == ["relayed", "relayed"]


@every_mode
async def test_with_tls_routing_off_many_bytes_arrive_both_ways(
    mode: Mode, lab: Lab, proxy_in: ProxyIn
) -> None:
    text = "grüß Gott " * 200_000
    async with separate_listener(lab), proxy_in(mode) as proxy:
        answer = await with_psycopg(
            proxy, lambda connection: connection.execute("SELECT %s::text", (text,)).fetchone()
        )
    assert answer == (text,)


@every_mode
async def test_with_tls_routing_off_a_query_can_be_cancelled(
    mode: Mode, lab: Lab, proxy_in: ProxyIn, psql: Psql, postgres: EmbeddedPostgres
) -> None:
    name = f"unrouted-{mode}"
    async with (
        separate_listener(lab) as listener,
        proxy_in(mode) as proxy,
        psql.running(proxy, "SELECT pg_sleep(30)", application_name=name) as process,
    ):
        await until_asleep(postgres, name)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        with trio.fail_after(PATIENCE):
            message = b"".join([piece async for piece in process.stderr]).decode()
        records = await proxy.all_closed(2)
    assert "canceling statement due to user request" in message
    assert [record.outcome for record in records] == ["cancel-request", "relayed"]
    assert listener.accepted == 2


@every_mode
async def test_with_tls_routing_off_and_nothing_published_postgresql_is_on_the_web_port(
    mode: Mode, lab: Lab, proxy_in: ProxyIn
) -> None:
    lab.web = WebOptions(tls_routing=False)
    async with proxy_in(mode) as proxy:
        connected = await connect_once(proxy)
    assert (connected.address, connected.alpn) == (lab.address, "")


@every_mode
async def test_with_tls_routing_off_and_no_usable_address_the_client_is_told(
    mode: Mode, lab: Lab, proxy_in: ProxyIn, psql: Psql
) -> None:
    lab.web = WebOptions(tls_routing=False, databases={"postgres_public_addr": "h:x"})
    async with proxy_in(mode) as proxy:
        await assert_told(proxy, psql, Code.TLS_ROUTING_OFF)
        record = await proxy.record()
    assert record.reason is not None
    assert "publishes proxy.db.postgres_public_addr as 'h:x'" in record.reason


@checked_modes
async def test_a_postgresql_listener_that_closes_without_a_word_is_said_to_do_so(
    mode: Mode, lab: Lab, proxy_in: ProxyIn, psql: Psql
) -> None:
    faults = FaultPlan(Fault(Step.ACCEPT, Action.CLOSE))
    async with separate_listener(lab, faults), proxy_in(mode) as proxy:
        await assert_told(proxy, psql, Code.UPSTREAM_CLOSED_EARLY)


@checked_modes
async def test_a_certificate_that_the_postgresql_listener_rejects_is_named(
    mode: Mode, lab: Lab, proxy_in: ProxyIn, psql: Psql
) -> None:
    async with separate_listener(lab), proxy_in(mode) as proxy:
        lab.reject_certificates()
        await assert_told(proxy, psql, Code.CERTIFICATE_REJECTED)
        record = await proxy.record()
    assert record.reason is not None
    assert "certificate_expired" in record.reason


async def test_with_tls_routing_off_the_outbound_proxy_is_used_too(
    postgres: EmbeddedPostgres,
    rsa_keys: tuple[PrivateKey, PrivateKey],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = f"{NAME}:5432"
    async with named_lab(tmp_path, postgres) as lab, open_postgres_listener(lab) as listener:
        routes = {NAMED: lab.address, database: listener.address}
        lab.web = WebOptions(
            public_addr=NAMED, tls_routing=False, databases={"postgres_public_addr": database}
        )
        destination = Destination(tmp_path / "machine-id", lab, rsa_keys)
        await destination.renew()
        options = OutboundOptions(credentials=CREDENTIALS, routes=routes)
        async with open_connect_proxy(options) as outbound:
            monkeypatch.setenv("HTTPS_PROXY", outbound.url)
            async with running_proxy(
                Mode.TUNNEL, lab, destination.directory, proxy=NAMED, no_discovery=False
            ) as proxy:
                connected = await connect_once(proxy)
        assert [request.target for request in outbound.requests] == [NAMED, database]
    assert connected.address == database


# Settings and environment


@dataclass(frozen=True)
class Choice:
    """What somebody says about upgrades; `ADDRESS` stands for the one that is dialled.

    Attributes:
        setting: `--connection-upgrade`.
        variable: Teleport's environment variable.
        mode: Teleport's other one.
    """

    setting: str = "auto"
    variable: str | None = None
    mode: str | None = None

    def apply(self, monkeypatch: pytest.MonkeyPatch, address: str) -> dict[str, str]:
        if self.variable is not None:
            monkeypatch.setenv(CONN_UPGRADE, self.variable.replace("ADDRESS", address))
        if self.mode is not None:
            monkeypatch.setenv(f"{CONN_UPGRADE}_MODE", self.mode)
        return {"connection_upgrade": self.setting}


@pytest.mark.parametrize(
    ("choice", "kind"),
    [
        (Choice("always"), "websocket"),
        (Choice("always", variable="no"), "websocket"),
        (Choice("always", mode="legacy"), "alpn"),
        (Choice("always", mode="websocket"), "websocket"),
        (Choice(variable="yes"), "websocket"),
        (Choice(variable="no;ADDRESS=true", mode="Legacy"), "alpn"),
    ],
    ids=str,
)
async def test_connections_are_upgraded_where_somebody_says_so(
    choice: Choice, kind: str, lab: Lab, proxy_in: ProxyIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = choice.apply(monkeypatch, lab.address)
    async with proxy_in(Mode.TERMINATE, **settings) as proxy:
        connected = await connect_once(proxy)
    assert connected.upgraded
    (upgrade,) = lab.upgrades
    assert (upgrade.mode, upgrade.status) == (kind, 101)
    assert UPGRADE_TEST not in {facts.alpn_offered for facts in lab.handshakes}


async def test_a_balancer_that_the_test_cannot_tell_is_passed_when_somebody_says_so(
    lab: Lab, proxy_in: ProxyIn
) -> None:
    """One that closes without a word: Teleport's own tools do not take it for a balancer either."""
    options = BalancerOptions(unknown_alpn=UnknownALPN.CLOSE)
    async with open_balancer(lab, options) as balancer:
        lab.web = WebOptions(public_addr=balancer.address)
        async with proxy_in(Mode.TUNNEL, connection_upgrade="always") as proxy:
            assert (await connect_once(proxy)).upgraded


@pytest.mark.parametrize(
    "choice",
    [
        Choice("never"),
        Choice("never", variable="yes"),
        Choice(variable="no"),
        Choice(variable="yes,ADDRESS=0"),
        Choice(variable="other.example.com:443=yes"),
    ],
    ids=str,
)
async def test_connections_are_not_upgraded_where_somebody_says_so(
    choice: Choice, lab: Lab, proxy_in: ProxyIn, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_balancer(lab) as balancer:
        lab.web = WebOptions(public_addr=balancer.address)
        settings = choice.apply(monkeypatch, balancer.address)
        async with proxy_in(Mode.TERMINATE, **settings) as proxy:
            await assert_told(proxy, psql, Code.ALPN_NOT_SUPPORTED)
    assert not lab.upgrades
    assert UPGRADE_TEST not in balancer.offered


# What changes while dbproxy runs


@pytest.fixture
def clock() -> MockClock:
    """Goes as time does, and jumps when it is told to."""
    return MockClock(rate=1.0)


@every_mode
@pytest.mark.parametrize("unknown_alpn", [UnknownALPN.IGNORE, UnknownALPN.ALERT])
async def test_a_balancer_that_appears_costs_no_client_an_error(
    mode: Mode,
    unknown_alpn: UnknownALPN,
    clock: MockClock,
    postgres: EmbeddedPostgres,
    rsa_keys: tuple[PrivateKey, PrivateKey],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with named_lab(tmp_path, postgres, web=WebOptions(public_addr=NAMED)) as lab:
        routes = {NAMED: lab.address}
        destination = Destination(tmp_path / "machine-id", lab, rsa_keys)
        await destination.renew()
        balancing = BalancerOptions(unknown_alpn=unknown_alpn, names=[NAME])
        async with (
            open_balancer(lab, balancing) as balancer,
            open_connect_proxy(OutboundOptions(routes=routes)) as outbound,
        ):
            monkeypatch.setenv("HTTPS_PROXY", outbound.url)
            settings = {"proxy": NAMED, "no_discovery": False, "connect_grace": 5.0}
            async with running_proxy(mode, lab, destination.directory, **settings) as proxy:
                assert not (await connect_once(proxy)).upgraded
                clock.jump(RETEST_AFTER)
                routes[NAMED] = balancer.address
                assert (await connect_once(proxy)).upgraded
                retried = proxy.of(UpstreamRetried)
                assert (await connect_once(proxy)).upgraded
                routes[NAMED] = lab.address
                await connect_once(proxy)
                assert proxy.of(UpstreamRetried) == retried
    assert [event.code for event in retried] == [Code.ALPN_NOT_SUPPORTED]


@every_mode
async def test_a_proxy_that_publishes_another_address_is_followed_when_the_old_one_fails(
    mode: Mode, clock: MockClock, lab: Lab, proxy_in: ProxyIn
) -> None:
    async with open_balancer(lab) as new, proxy_in(mode, connect_grace=5.0) as proxy:
        async with open_balancer(lab) as old:
            lab.web = WebOptions(public_addr=old.address)
            assert (await connect_once(proxy)).address == old.address
            clock.jump(RETEST_AFTER)
            lab.web = WebOptions(public_addr=new.address)
            assert (await connect_once(proxy)).address == old.address  # it works: nobody asks
        assert (await connect_once(proxy)).address == new.address
        told = [event.address for event in proxy.of(UpstreamDiscovered)]
        retried = {event.code for event in proxy.of(UpstreamRetried)}
    assert told == [old.address, new.address]
    assert retried == {Code.UPSTREAM_UNREACHABLE}
