"""Several tunnels of one tbot.yaml against the lab: real clients, real files, real sockets."""

import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio
import trio.testing
from database_clients import in_thread, select_one
from lab_client import until
from running_proxy import PATIENCE

from dbproxy import Event, Settings, Started
from dbproxy.backoff import Backoff
from dbproxy.errors import Code
from dbproxy.events import (
    AuthoritiesPassedOver,
    ConnectionClosed,
    IdentityLoaded,
    Stopped,
    TunnelFailed,
)
from dbproxy.fleet import Fleet, Tunnel, tunnels_of
from dbproxy.fleet.tunnels import settings_for
from dbproxy.identity import parse_tbot_config
from dbproxy.lab import DatabaseResource, Lab, guide, open_lab
from dbproxy.lab.keys import PrivateKey
from dbproxy.lab.postgres import EmbeddedPostgres

FIRST, SECOND = "example-server", "other-server"

TBOT_YAML = """\
version: v2
proxy_server: {proxy}
onboarding: {{join_method: token, token: {token}, ca_pins: ["{pin}"], ca_path: "{ca_path}"}}
storage: {{type: memory}}
services:
  - type: database
    destination: {{type: directory, path: {directory}/{first}}}
    service: {first}
    username: alice
    database: example
{more}
  - {{type: database-tunnel, name: one, listen: "{listen_one}",
     service: {first}, username: alice, database: example}}
  - {{type: database-tunnel, name: two, listen: "{listen_two}",
     service: {second}, username: alice, database: example}}
"""
SECOND_OUTPUT = """\
  - type: database
    destination: {{type: directory, path: {directory}/{second}}}
    service: {second}
    username: alice
    database: example
"""


@dataclass
class Site:
    """A lab with two databases, and the tbot.yaml for both.

    Attributes:
        lab: The cluster.
        directory: Where the destinations and tbot.yaml are.
        keys: What renewals take turns with.
    """

    lab: Lab
    directory: Path
    keys: tuple[PrivateKey, PrivateKey] = field(repr=False)
    _renewals: int = 0

    @property
    def config(self) -> Path:
        return self.directory / "tbot.yaml"

    def write_config(
        self,
        *,
        second: bool = True,
        listen_one: str = "tcp://127.0.0.1:0",
        listen_two: str = "tcp://127.0.0.1:0",
        ca_path: Path | str = "",
    ) -> None:
        """Write tbot.yaml, with an output for the second service or without."""
        token = self.lab.tokens[guide.BOT]
        names = {"directory": self.directory, "first": FIRST, "second": SECOND}
        self.config.write_text(
            TBOT_YAML.format(
                proxy=self.lab.address,
                token=token.token,
                pin=token.ca_pin,
                more=SECOND_OUTPUT.format(**names) if second else "",
                listen_one=listen_one,
                listen_two=listen_two,
                ca_path=ca_path,
                **names,
            )
        )

    async def renew(self) -> None:
        """Do what tbot does with the present tbot.yaml, with another key than last time."""
        self._renewals += 1
        key = self.keys[self._renewals % 2]
        await self.lab.tbot(self.config, generate_key=lambda: key).renew()


@dataclass
class RunningFleet:
    """Tunnels that are open or about to be."""

    fleet: Fleet
    started: dict[str, Started] = field(default_factory=dict)
    events: list[tuple[str, Event]] = field(default_factory=list)

    def of(self, name: str, kind: type[Event]) -> list[Any]:
        return [event for owner, event in self.events if owner == name and isinstance(event, kind)]

    async def open(self, *names: str) -> None:
        await until(lambda: set(names) <= self.started.keys(), PATIENCE)

    async def failed(self, name: str) -> TunnelFailed:
        await until(lambda: bool(self.of(name, TunnelFailed)), PATIENCE)
        failure = self.of(name, TunnelFailed)[-1]
        assert isinstance(failure, TunnelFailed)
        return failure

    async def query(self, name: str, sql: str = "SELECT current_user") -> object:
        """Wait until a tunnel is open, and ask its database something."""
        await self.open(name)

        def work() -> object:
            with self.connect(name) as connection:
                row = connection.execute(sql).fetchone()
                return row[0] if row else None

        return await in_thread(work)

    def connect(self, name: str) -> psycopg.Connection:
        """Connect; to be called in a worker thread."""
        host, port = _host_and_port(self.started[name].address)
        return psycopg.connect(
            host=host,
            port=port,
            user="alice",
            dbname="example",
            sslmode="disable",
            autocommit=True,
            connect_timeout=10,
        )


def _host_and_port(address: str) -> tuple[str, int]:
    if address.startswith("unix://"):
        path = Path(address.removeprefix("unix://"))
        return str(path.parent), int(path.name.rpartition(".")[2])
    host, _, port = address.rpartition(":")
    return host, int(port)


@pytest.fixture
async def site(
    postgres: EmbeddedPostgres, tmp_path: Path, rsa_keys: tuple[PrivateKey, PrivateKey]
) -> AsyncIterator[Site]:
    databases = [
        DatabaseResource(name, postgres.address, labels={"env": "dev"}) for name in (FIRST, SECOND)
    ]
    async with open_lab(databases=databases, directory=tmp_path / "lab") as lab:
        lab.create_role(guide.role_yaml())
        lab.add_bot(guide.BOT, roles=[guide.ROLE_NAME])
        site = Site(lab, tmp_path, rsa_keys)
        site.write_config()
        yield site


@asynccontextmanager
async def running_fleet(site: Site, **settings: Any) -> AsyncIterator[RunningFleet]:
    """Run the tunnels for the length of the block; then drain them."""
    running: RunningFleet

    def tell(tunnel: Tunnel, started: Started) -> None:
        running.started[tunnel.name] = started

    def subscriber_for(tunnel: Tunnel) -> Any:
        return lambda event: running.events.append((tunnel.name, event))

    chosen = Settings(config=site.config, **({"proxy_ca": site.lab.web_ca_file} | settings))
    running = RunningFleet(
        Fleet(
            chosen,
            tell=tell,
            subscriber_for=subscriber_for,
            backoff=lambda: Backoff(0.05, 0.2),
        )
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(running.fleet.run)
        yield running
        running.fleet.stop()


@contextmanager
def occupied_port() -> Iterator[tuple[int, socket.socket]]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1], listener


def test_the_guides_example_has_an_output_for_its_tunnel() -> None:
    guide_page = Path(__file__).resolve().parents[2] / "docs" / "guide.md"
    example = guide_page.read_text().partition("<!-- sample: tunnels -->\n```yaml\n")[2]
    config = parse_tbot_config(example.partition("```")[0].encode(), Path("tbot.yaml"))
    (tunnel,) = tunnels_of(config)
    assert (tunnel.name, tunnel.listen) == ("reports", "tcp://127.0.0.1:25432")
    assert settings_for(tunnel, Settings(), config).destination_dir == Path("/opt/machine-id")


async def test_two_tunnels_of_one_file_lead_to_their_services(site: Site) -> None:
    await site.renew()
    async with running_fleet(site) as tunnels:
        await tunnels.open("one", "two")
        assert await tunnels.query("one") == "alice"
        assert await tunnels.query("two") == "alice"
    for name, service in (("one", FIRST), ("two", SECOND)):
        (closed,) = tunnels.of(name, ConnectionClosed)
        assert (closed.record.service, closed.record.outcome) == (service, "relayed")
        assert tunnels.of(name, TunnelFailed) == []
        assert len(tunnels.of(name, Stopped)) == 1


async def test_a_tunnel_whose_identity_is_missing_opens_once_tbot_has_written_it(
    site: Site,
) -> None:
    site.write_config(second=False)
    await site.renew()
    site.write_config()
    async with running_fleet(site) as tunnels:
        failure = await tunnels.failed("two")
        assert failure.code is Code.IDENTITY_MISSING
        assert str(site.directory / SECOND) in failure.reason
        assert await tunnels.query("one") == "alice"
        assert "two" not in tunnels.started
        await site.renew()
        await tunnels.open("two")
        assert await tunnels.query("two") == "alice"


async def test_a_tunnel_without_an_output_opens_once_the_file_has_one(site: Site) -> None:
    site.write_config(second=False)
    await site.renew()
    async with running_fleet(site) as tunnels:
        failure = await tunnels.failed("two")
        assert failure.code is Code.DESTINATION_NOT_FOUND
        assert f"{{type: database, service: {SECOND}, username: alice" in failure.next_step
        await tunnels.open("one")
        site.write_config()
        await site.renew()
        await tunnels.open("two")
        assert await tunnels.query("two") == "alice"


async def test_a_tunnel_whose_port_is_taken_opens_once_it_is_free(site: Site) -> None:
    await site.renew()
    with occupied_port() as (port, listener):
        site.write_config(listen_two=f"tcp://127.0.0.1:{port}")
        async with running_fleet(site) as tunnels:
            failure = await tunnels.failed("two")
            assert failure.code is Code.ADDRESS_IN_USE
            assert await tunnels.query("one") == "alice"
            await until(lambda: len(tunnels.of("two", TunnelFailed)) >= 3, PATIENCE)
            listener.close()
            await tunnels.open("two")
            assert tunnels.started["two"].address == f"127.0.0.1:{port}"
            assert await tunnels.query("two") == "alice"
    assert len(tunnels.of("two", IdentityLoaded)) == 1


async def test_a_directory_given_by_name_serves_the_tunnel_without_an_output(site: Site) -> None:
    await site.renew()
    site.write_config(second=False)
    async with running_fleet(site, destination_dir=site.directory / SECOND) as tunnels:
        await tunnels.open("one", "two")
        assert await tunnels.query("one") == "alice"
        assert await tunnels.query("two") == "alice"


async def test_a_directory_for_another_service_is_no_identity_for_the_tunnel(site: Site) -> None:
    await site.renew()
    site.write_config(second=False)
    async with running_fleet(site, destination_dir=site.directory / FIRST) as tunnels:
        assert (await tunnels.failed("two")).code is Code.SERVICE_MISMATCH
        await tunnels.open("one")


async def test_reloading_takes_up_the_new_identity_of_every_tunnel(site: Site) -> None:
    await site.renew()
    async with running_fleet(site) as tunnels:
        await tunnels.open("one", "two")
        await site.renew()
        await tunnels.fleet.reload()
        for name in ("one", "two"):
            assert [event.generation for event in tunnels.of(name, IdentityLoaded)] == [1, 2]
            assert await tunnels.query(name) == "alice"


async def test_a_unix_socket_is_for_its_owner_and_goes_away_at_the_end(site: Site) -> None:
    await site.renew()
    directory = site.directory / "run"
    directory.mkdir()
    path = directory / ".s.PGSQL.5432"
    site.write_config(listen_two=f"unix://{path}")
    async with running_fleet(site) as tunnels:
        await tunnels.open("two")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await tunnels.query("two") == "alice"
    assert not path.exists()


async def test_open_connections_of_every_tunnel_are_drained(site: Site) -> None:
    await site.renew()
    async with running_fleet(site, drain_timeout=PATIENCE) as tunnels:
        await tunnels.open("one", "two")
        connections = [await in_thread(tunnels.connect, name) for name in ("one", "two")]
        tunnels.fleet.stop()
        await trio.testing.wait_all_tasks_blocked()
        for connection in connections:
            row = await in_thread(select_one, connection)
            assert row == 1
            connection.close()
    for name in ("one", "two"):
        assert [event.ended_early for event in tunnels.of(name, Stopped)] == [0]


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_cancelling_leaves_no_socket_behind(site: Site) -> None:
    await site.renew()
    before = open_files()
    for pause in (0, 0.001, 0.01, 0.05, 0.2):
        with trio.move_on_after(pause):
            async with running_fleet(site):
                await trio.sleep_forever()
    await until(lambda: open_files() <= before, PATIENCE)


async def test_the_authorities_that_tbot_joins_with_are_trusted(site: Site) -> None:
    site.write_config(ca_path=site.lab.web_ca_file)
    await site.renew()
    async with running_fleet(site, proxy_ca=None) as tunnels:
        assert await tunnels.query("one") == "alice"
    assert tunnels.of("one", AuthoritiesPassedOver) == []


async def test_authorities_that_tbot_no_longer_needs_may_be_gone(site: Site) -> None:
    site.write_config(ca_path="/nonexistent/ca.pem")
    await site.renew()
    async with running_fleet(site, proxy_ca=None) as tunnels:
        with pytest.raises(psycopg.OperationalError, match="authority"):
            await tunnels.query("one")
    (passed_over,) = tunnels.of("one", AuthoritiesPassedOver)
    assert passed_over.code is Code.FILE_UNUSABLE
    assert "onboarding.ca_path" in passed_over.reason
    assert "/nonexistent/ca.pem" in passed_over.reason
    (closed,) = tunnels.of("one", ConnectionClosed)
    assert closed.record.code is Code.UPSTREAM_UNTRUSTED


async def test_authorities_named_for_dbproxy_leave_those_for_tbot_unread(site: Site) -> None:
    site.write_config(ca_path="/nonexistent/ca.pem")
    await site.renew()
    async with running_fleet(site) as tunnels:
        assert await tunnels.query("one") == "alice"
    assert tunnels.of("one", AuthoritiesPassedOver) == []
