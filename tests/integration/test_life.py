"""Through renewals, rotations, failures of the upstream and stops, with real clients."""

import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding
from database_clients import (
    in_thread,
    psycopg_connect,
    refused_psycopg,
    select_one,
    until_asleep,
    with_psycopg,
)
from lab_client import startup, until
from running_proxy import (
    PATIENCE,
    Destination,
    ProxyIn,
    RunningProxy,
    checked_modes,
    every_mode,
    settings_for,
)

from dbproxy import Code, DatabaseProxy, Event, Mode
from dbproxy.events import (
    ClosedBy,
    DrainingStarted,
    IdentityLoaded,
    IdentityReloadFailed,
    Stopped,
)
from dbproxy.lab import Lab
from dbproxy.lab.postgres import EmbeddedPostgres


def close(connection: psycopg.Connection) -> None:
    connection.close()


# Renewals


@every_mode
async def test_an_open_connection_outlives_renewals_and_new_ones_use_the_new_generation(
    mode: Mode, proxy_in: ProxyIn, destination: Destination, lab: Lab
) -> None:
    async with proxy_in(mode) as proxy:
        old = await in_thread(psycopg_connect, proxy)
        for generation in (2, 3):
            await destination.renew()
            assert await with_psycopg(proxy, select_one) == 1
            assert [event.generation for event in proxy.of(IdentityLoaded)][-1] == generation
        assert await in_thread(select_one, old) == 1
        await in_thread(close, old)
        records = await proxy.all_closed(3)
    assert {record.id: record.generation for record in records} == {1: 1, 2: 2, 3: 3}
    if mode is not Mode.PASSTHROUGH:
        shown = [facts.client_certificate for facts in lab.handshakes]
        assert len({one.public_bytes(Encoding.DER) for one in shown if one is not None}) == 3


@every_mode
async def test_renewals_under_load_fail_no_connection(
    mode: Mode, proxy_in: ProxyIn, destination: Destination
) -> None:
    """The clients use a copy of the first certificate, so that only dbproxy meets the renewal.

    It takes its time from file to file, so that connections begin while the files do not match.
    """
    files = destination.copy_to(destination.directory.with_name("client"))
    own = {"sslcert": files / "tlscert", "sslkey": files / "key"}
    renewed = trio.Event()

    async def renew() -> None:
        await destination.renew(gap=0.01)
        renewed.set()

    async with proxy_in(mode) as proxy:
        assert await with_psycopg(proxy, select_one, **own) == 1
        count = 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(renew)
            while not renewed.is_set() or count < 10:
                assert await with_psycopg(proxy, select_one, **own) == 1
                count += 1
        await until(lambda: len(proxy.of(IdentityLoaded)) == 2, PATIENCE)
        assert await with_psycopg(proxy, select_one, **own) == 1
        records = await proxy.all_closed(count + 1)
    assert {record.outcome for record in records} == {"relayed"}
    assert {record.generation for record in records} == {1, 2}


async def test_reload_takes_a_renewal_over_at_once(lab: Lab, destination: Destination) -> None:
    async with stoppable(Mode.TUNNEL, lab, destination) as running:
        await destination.renew()
        await running.proxy.reload()
        loaded = running.of(IdentityLoaded)
    assert [event.generation for event in loaded] == [1, 2]


async def test_a_reload_that_fails_keeps_the_last_good_identity(
    lab: Lab, destination: Destination
) -> None:
    async with stoppable(Mode.TUNNEL, lab, destination) as running:
        (destination.directory / "tlscert").write_text("no certificate")
        await running.proxy.reload()
        assert await with_psycopg(running, select_one) == 1
        failures = running.of(IdentityReloadFailed)
    assert [(event.code, event.generation) for event in failures] == [(Code.IDENTITY_MALFORMED, 1)]


@every_mode
async def test_the_authorities_of_the_cluster_may_rotate_under_way(
    mode: Mode, proxy_in: ProxyIn, destination: Destination, lab: Lab
) -> None:
    async with proxy_in(mode) as proxy:
        assert await with_psycopg(proxy, select_one) == 1
        lab.authority.begin_rotation()
        assert await with_psycopg(proxy, select_one) == 1
        await destination.renew()
        assert await with_psycopg(proxy, select_one) == 1
        lab.authority.end_rotation()
        assert await with_psycopg(proxy, select_one) == 1


@checked_modes
async def test_after_a_rotation_that_tbot_missed_connections_work_again_once_it_renews(
    mode: Mode, proxy_in: ProxyIn, destination: Destination, lab: Lab
) -> None:
    tbot = await destination.renew()
    async with proxy_in(mode) as proxy:
        lab.authority.begin_rotation()
        lab.authority.end_rotation()
        assert "[certificate-rejected]" in await refused_psycopg(proxy)
        await tbot.renew()
        assert await with_psycopg(proxy, select_one) == 1


@every_mode
async def test_an_upstream_may_go_down_and_come_back(
    mode: Mode, proxy_in: ProxyIn, lab: Lab
) -> None:
    async with proxy_in(mode) as proxy:
        cut_off = await in_thread(psycopg_connect, proxy)
        await lab.stop_proxy()
        with pytest.raises(psycopg.OperationalError):
            await in_thread(select_one, cut_off)
        await in_thread(close, cut_off)
        await refused_psycopg(proxy)
        await lab.start_proxy()
        assert await with_psycopg(proxy, select_one) == 1
        records = {record.id: record for record in await proxy.all_closed(3)}
    assert (records[1].outcome, records[1].closed_by) == ("relayed", ClosedBy.UPSTREAM)
    assert (records[2].outcome, records[2].code) == ("refused", Code.UPSTREAM_UNREACHABLE)
    assert (records[3].outcome, records[3].code) == ("relayed", None)


# Stopping


@dataclass
class StoppableProxy(RunningProxy):
    """A proxy that the test stops itself.

    Attributes:
        proxy: To stop it.
        ended: Set when `run` has returned.
    """

    proxy: DatabaseProxy
    ended: trio.Event = field(default_factory=trio.Event)


@asynccontextmanager
async def stoppable(
    mode: Mode, lab: Lab, destination: Destination, **settings: Any
) -> AsyncIterator[StoppableProxy]:
    """A proxy that runs until it is stopped, or the block ends."""
    events: list[Event] = []
    settings_ = settings_for(mode, lab, destination.directory, **settings)
    proxy = DatabaseProxy(settings_, events.append)
    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[StoppableProxy]) -> None:
            async with trio.open_nursery() as inner:
                started = await inner.start(proxy.run)
                running = StoppableProxy(started, events, proxy)
                task_status.started(running)
            running.ended.set()

        yield await nursery.start(run)
        nursery.cancel_scope.cancel()


async def ended(running: StoppableProxy) -> Stopped:
    """Wait until it has stopped; what it said last."""
    with trio.fail_after(PATIENCE):
        await running.ended.wait()
    stopped = running.events[-1]
    assert isinstance(stopped, Stopped)
    return stopped


class Query(threading.Thread):
    """A query in a thread of its own; how it ends is kept."""

    def __init__(self, connection: psycopg.Connection, sql: str) -> None:
        super().__init__(daemon=True)
        self.connection = connection
        self.sql = sql
        self.row: tuple[Any, ...] | None = None
        self.error: psycopg.OperationalError | None = None

    def run(self) -> None:
        try:
            self.row = self.connection.execute(self.sql.encode()).fetchone()
        except psycopg.OperationalError as error:
            self.error = error
        finally:
            self.connection.close()


@asynccontextmanager
async def sleeping_query(
    running: StoppableProxy, postgres: EmbeddedPostgres, name: str, seconds: float
) -> AsyncIterator[Query]:
    """A query that is asleep in the database; at the end of the block it has ended."""
    connection = await in_thread(lambda: psycopg_connect(running, application_name=name))
    query = Query(connection, f"SELECT 'done', pg_sleep({seconds})")
    query.start()
    await until_asleep(postgres, name)
    yield query
    await in_thread(query.join, PATIENCE)


@every_mode
async def test_stop_closes_the_port_and_lets_an_open_query_finish(
    mode: Mode, lab: Lab, destination: Destination, postgres: EmbeddedPostgres
) -> None:
    async with stoppable(mode, lab, destination, drain_timeout=PATIENCE) as running:
        async with sleeping_query(running, postgres, f"drain-{mode}", 0.5) as query:
            running.proxy.stop()
            await until(lambda: bool(running.of(DrainingStarted)))
            assert not is_open(running.port)
            assert running.of(DrainingStarted)[0].open_connections == 1
        assert query.row == ("done", "")
        assert (await ended(running)).ended_early == 0
        assert [record.outcome for record in running.records] == ["relayed"]


@every_mode
async def test_the_drain_timeout_ends_what_is_still_open(
    mode: Mode, lab: Lab, destination: Destination, postgres: EmbeddedPostgres
) -> None:
    async with stoppable(mode, lab, destination, drain_timeout=0.2) as running:
        async with sleeping_query(running, postgres, f"timeout-{mode}", 30) as query:
            running.proxy.stop()
            assert (await ended(running)).ended_early == 1
        assert query.error is not None
    (record,) = running.records
    assert (record.outcome, record.closed_by) == ("stopped", ClosedBy.DBPROXY)


@every_mode
async def test_stop_now_ends_everything_at_once(
    mode: Mode, lab: Lab, destination: Destination, postgres: EmbeddedPostgres
) -> None:
    async with stoppable(mode, lab, destination, drain_timeout=600) as running:
        async with sleeping_query(running, postgres, f"now-{mode}", 30) as query:
            running.proxy.stop()
            await until(lambda: bool(running.of(DrainingStarted)))
            running.proxy.stop_now()
            assert (await ended(running)).ended_early == 1
        assert query.error is not None
    assert [record.outcome for record in running.records] == ["stopped"]


async def test_clients_who_have_arrived_when_it_is_told_to_stop_are_served(
    lab: Lab, destination: Destination
) -> None:
    async with stoppable(Mode.TUNNEL, lab, destination, drain_timeout=PATIENCE) as running:
        # Nobody accepts them before the next turn, and to them it seems as if they were connected.
        arrived = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(3)]
        running.proxy.stop()
        await until(lambda: bool(running.of(DrainingStarted)))
        assert running.of(DrainingStarted)[0].open_connections == 3
        assert not is_open(running.port)
        for client in arrived:
            with client:
                client.sendall(startup(user="alice", database="example"))
                client.settimeout(PATIENCE)
                assert await in_thread(lambda: client.recv(1)) == b"R"  # noqa: B023 (awaited here)
        assert (await ended(running)).ended_early == 0
    assert [record.outcome for record in running.records] == ["relayed"] * 3


async def test_stopping_an_idle_proxy_takes_no_time(lab: Lab, destination: Destination) -> None:
    async with stoppable(Mode.TUNNEL, lab, destination, drain_timeout=600) as running:
        running.proxy.stop()
        assert (await ended(running)).ended_early == 0
        assert not is_open(running.port)


def is_open(port: int) -> bool:
    """Whether the port takes connections; a loopback connection is made or refused at once."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
