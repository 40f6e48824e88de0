"""Renewals and CA rotations while clients come and stay; `bench/soak_renewal.py` takes longer.

The clients' own files are copies, taken when a renewal is complete: libpq reads certificate and key
one after the other, and what it meets in the middle of a rewrite is not dbproxy's to mend.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import trio
from database_clients import Psql, in_thread, psycopg_connect, refused_psql, with_psycopg
from lab_client import until
from running_proxy import (
    PATIENCE,
    Destination,
    ProxyIn,
    RunningProxy,
    checked_modes,
    every_mode,
    running_proxy,
)

from dbproxy import Mode
from dbproxy.errors import Code
from dbproxy.events import IdentityExpired, IdentityLoaded, IdentityReloadFailed
from dbproxy.lab import DatabaseResource, Lab, Phase, guide, open_lab
from dbproxy.lab.keys import PrivateKey
from dbproxy.lab.postgres import EmbeddedPostgres
from dbproxy.lab.rotation import FORCES_RENEWAL

INTERVAL = 0.03
"""Seconds between new connections."""
LONG_CONNECTIONS = 3
RENEWALS = 4

ROTATION = (Phase.INIT, Phase.UPDATE_CLIENTS, Phase.UPDATE_SERVERS, Phase.STANDBY)
ROLLBACK = (Phase.INIT, Phase.UPDATE_CLIENTS, Phase.UPDATE_SERVERS, Phase.ROLLBACK, Phase.STANDBY)


@dataclass
class Load:
    """Clients of a proxy: new ones all the time, and some that stay.

    Attributes:
        proxy: The proxy.
        files: Where the clients' copy of the latest renewal is.
        connections: How many new connections have got their answer.
        failures: Why others have not.
    """

    proxy: RunningProxy
    files: Path
    connections: int = 0
    failures: list[str] = field(default_factory=list)
    _begun: int = 0
    _under_way: set[int] = field(default_factory=set)

    def parameters(self) -> dict[str, Path]:
        """What of libpq's parameters is not as the start message says it."""
        if self.proxy.started.mode is Mode.TUNNEL:
            return {}
        files = {"sslcert": self.files / "tlscert", "sslkey": self.files / "key"}
        if self.proxy.started.mode is Mode.PASSTHROUGH:
            files["sslrootcert"] = self.files / "teleport-host-ca.crt"
        return files

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let clients come and stay during the block; all have got their answer at its end."""
        stay = [await in_thread(self._connect) for _ in range(LONG_CONNECTIONS)]
        coming = trio.Event()
        async with trio.open_nursery() as clients:
            clients.start_soon(self._come, coming, clients)
            yield
            coming.set()
        for connection in stay:
            assert await in_thread(ask, connection) == 42
            await in_thread(connection.close)

    async def more(self, count: int) -> None:
        """Wait until so many further connections have got their answer."""
        wanted = self.connections + count
        await until(lambda: self.connections >= wanted or bool(self.failures), PATIENCE)

    async def older_done(self) -> None:
        """Wait until the connections that have begun by now have ended.

        Phases of a rotation last for hours, so nobody connects with the certificate of the phase
        before last.
        """
        before = self._under_way.copy()
        await until(lambda: not before & self._under_way, PATIENCE)

    async def _come(self, stop: trio.Event, clients: trio.Nursery) -> None:
        while not stop.is_set():
            clients.start_soon(self._visit)
            await trio.sleep(INTERVAL)

    async def _visit(self) -> None:
        self._begun += 1
        number = self._begun
        self._under_way.add(number)
        try:
            assert await with_psycopg(self.proxy, ask, **self.parameters()) == 42
        except psycopg.Error as error:
            self.failures.append(str(error))
        else:
            self.connections += 1
        self._under_way.discard(number)

    def _connect(self) -> psycopg.Connection:
        return psycopg_connect(self.proxy, **self.parameters())


def ask(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT 40 + 2").fetchone()
    assert row is not None
    answer = row[0]
    assert isinstance(answer, int)
    return answer


@pytest.mark.parametrize("gap", [0.0, 0.02], ids=["at-once", "with-gaps"])
@every_mode
async def test_renewals_disturb_no_connection_and_each_is_used(
    mode: Mode,
    gap: float,
    proxy_in: ProxyIn,
    destination: Destination,
    tmp_path: Path,
) -> None:
    async with proxy_in(mode) as proxy:
        load = Load(proxy, destination.copy_to(tmp_path / "files-0"))
        async with load.running():
            for number in range(1, RENEWALS + 1):
                await load.more(5)
                await destination.renew(gap=gap)
                load.files = destination.copy_to(tmp_path / f"files-{number}")
            await load.more(5)
        generations = [event.generation for event in proxy.of(IdentityLoaded)]
    assert load.failures == []
    assert generations == list(range(1, RENEWALS + 2))  # a mixture would be one more
    assert proxy.of(IdentityReloadFailed) == []
    assert {record.generation for record in proxy.records} == set(generations)
    assert {record.outcome for record in proxy.records} == {"relayed"}


@pytest.fixture
async def own_lab(postgres: EmbeddedPostgres, tmp_path: Path) -> AsyncIterator[Lab]:
    """A cluster whose Proxy has no public certificate: dbproxy trusts it by its Host CA alone."""
    database = DatabaseResource(guide.SERVICE, postgres.address)
    async with open_lab(
        databases=[database], directory=tmp_path / "own-lab", web_from_host_ca=True
    ) as lab:
        lab.create_role(guide.role_yaml())
        yield lab


@pytest.mark.parametrize("phases", [ROTATION, ROLLBACK], ids=["through", "back"])
@every_mode
async def test_a_ca_rotation_disturbs_no_connection(
    mode: Mode,
    phases: tuple[Phase, ...],
    own_lab: Lab,
    rsa_keys: tuple[PrivateKey, PrivateKey],
    tmp_path: Path,
) -> None:
    destination = Destination(tmp_path / "machine-id", own_lab, rsa_keys)
    tbot = await destination.renew(gap=0.01)
    async with running_proxy(mode, own_lab, destination.directory, proxy_ca=None) as proxy:
        load = Load(proxy, destination.copy_to(tmp_path / "files"))
        async with load.running():
            for phase in phases:
                own_lab.rotate(phase)
                await load.more(3)
                if phase in FORCES_RENEWAL:
                    await tbot.renew()
                    load.files = destination.copy_to(tmp_path / f"files-{phase}")
                    await load.older_done()
                    await load.more(3)
        trusted = proxy.of(IdentityLoaded)
    assert load.failures == []
    assert len(trusted) == 1 + len(FORCES_RENEWAL & set(phases))
    assert proxy.of(IdentityReloadFailed) == []
    assert {record.outcome for record in proxy.records} == {"relayed"}


async def test_in_terminate_mode_clients_of_both_authorities_are_taken_during_a_rotation(
    own_lab: Lab, rsa_keys: tuple[PrivateKey, PrivateKey], tmp_path: Path
) -> None:
    destination = Destination(tmp_path / "machine-id", own_lab, rsa_keys)
    await destination.renew()
    old = destination.copy_to(tmp_path / "old")
    async with running_proxy(
        Mode.TERMINATE, own_lab, destination.directory, proxy_ca=None
    ) as proxy:
        own_lab.rotate(Phase.INIT)
        own_lab.rotate(Phase.UPDATE_CLIENTS)
        await destination.renew()
        new = destination.copy_to(tmp_path / "new")
        for files in (old, new):
            await with_psycopg(proxy, ask, sslcert=files / "tlscert", sslkey=files / "key")


@checked_modes
async def test_after_an_expiry_it_goes_on_as_soon_as_tbot_writes_again(
    mode: Mode, proxy_in: ProxyIn, destination: Destination, psql: Psql
) -> None:
    await destination.renew(certificate_ttl="3s")
    async with proxy_in(mode) as proxy:
        expiry = proxy.of(IdentityLoaded)[0].not_valid_after
        await trio.sleep((expiry - datetime.now(UTC)).total_seconds() + 0.01)
        refusal = await refused_psql(psql, proxy)
        assert f"the certificate in {destination.directory / 'tlscert'} expired at " in refusal
        await until(lambda: bool(proxy.of(IdentityExpired)), PATIENCE)
        assert proxy.of(IdentityExpired)[0].code is Code.CERTIFICATE_EXPIRED
        await destination.renew()
        assert await with_psycopg(proxy, ask) == 42
