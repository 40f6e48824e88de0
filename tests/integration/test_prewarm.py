"""Connections that are ready before clients come, with the lab and real clients."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio
from data_client import data_connection
from database_clients import in_thread, psycopg_connect, select_one, with_psycopg
from lab_client import exactly, until
from loopback import no_descriptor_left
from odd_pieces import Stream
from running_proxy import (
    PATIENCE,
    Destination,
    ProxyIn,
    RunningProxy,
    every_mode,
    running_proxy,
)
from ways import Way, every_way, named_lab, open_way

from dbproxy import Code, Mode
from dbproxy.events import PrewarmFailed, UpstreamConnected, UpstreamReady
from dbproxy.lab import Lab
from dbproxy.lab.handshake import Handshake
from dbproxy.lab.keys import PrivateKey

READY = 3
INTERVAL = 0.1
"""Seconds between pings."""


async def until_ready(proxy: RunningProxy, count: int = READY, generation: int = 1) -> None:
    """Until so many connections of a generation have been made ready."""

    def are_ready() -> bool:
        events = proxy.of(UpstreamReady)
        return sum(event.generation == generation for event in events) >= count

    await until(are_ready, PATIENCE)


def database_connections(lab: Lab) -> list[Handshake]:
    """What the lab's Proxy saw of connections for databases, finished handshakes only."""
    return [it for it in lab.handshakes if (it.alpn or "").startswith("teleport-postgres")]


@every_mode
async def test_queries_go_over_a_connection_that_was_ready_and_another_one_takes_its_place(
    mode: Mode, proxy_in: ProxyIn, lab: Lab
) -> None:
    async with proxy_in(mode, prewarm=READY) as proxy:
        await until_ready(proxy)
        await until(lambda: len(database_connections(lab)) == READY, PATIENCE)
        assert await with_psycopg(proxy, select_one) == 1
        record = await proxy.record()
        assert len(database_connections(lab)) <= READY + 1
        await until_ready(proxy, READY + 1)
    assert record.prewarmed
    assert (record.outcome, record.attempts, record.generation) == ("relayed", 1, 1)
    (connected,) = proxy.of(UpstreamConnected)
    assert connected.prewarmed
    shown = {it.client_certificate is not None for it in database_connections(lab)}
    assert shown == {mode is not Mode.PASSTHROUGH}


async def test_what_is_ready_is_no_session(proxy_in: ProxyIn, lab: Lab) -> None:
    async with proxy_in(Mode.TUNNEL, prewarm=READY) as proxy:
        await until_ready(proxy)
        await trio.sleep(0.2)
        assert not lab.audit.events
        assert await with_psycopg(proxy, select_one) == 1
        starts = [event for event in lab.audit.events if event["event"] == "db.session.start"]
        assert len(starts) == 1


@every_mode
async def test_more_clients_at_once_than_are_ready_are_all_served(
    mode: Mode, proxy_in: ProxyIn
) -> None:
    async def ask() -> None:
        assert await with_psycopg(proxy, select_one) == 1

    async with proxy_in(mode, prewarm=READY) as proxy:
        await until_ready(proxy)
        async with trio.open_nursery() as nursery:
            for _ in range(4 * READY):
                nursery.start_soon(ask)
        records = await proxy.all_closed(4 * READY)
    assert sum(record.prewarmed for record in records) >= READY
    assert {record.outcome for record in records} == {"relayed"}


async def test_a_cancelled_query_is_cancelled_by_a_connection_of_its_own(
    proxy_in: ProxyIn,
) -> None:
    def cancel_a_query() -> None:
        with psycopg_connect(proxy) as connection:
            connection.execute("SET statement_timeout = '20s'")
            connection.cancel_safe()

    async with proxy_in(Mode.TUNNEL, prewarm=READY) as proxy:
        await until_ready(proxy)
        await in_thread(cancel_a_query)
        records = await proxy.all_closed(2)
    prewarmed = {record.outcome: record.prewarmed for record in records}
    assert prewarmed == {"relayed": True, "cancel-request": False}


# The upstream


async def greet(stream: Stream, _facts: Handshake) -> None:
    """A database that greets, and then says as much as the client does."""
    if not await stream.receive_some():
        return  # nobody needed it
    await stream.send_all(b"welcome")
    while data := await stream.receive_some():
        await stream.send_all(data)


@asynccontextmanager
async def greeting(
    directory: Path, keys: tuple[PrivateKey, PrivateKey], mode: Mode = Mode.TUNNEL, **options: Any
) -> AsyncIterator[tuple[Lab, RunningProxy]]:
    """dbproxy with connections ready, and a Proxy behind it that greets."""
    async with named_lab(directory, handler=greet, **options) as lab:
        destination = Destination(directory / "machine-id", lab, keys)
        await destination.renew()
        async with running_proxy(mode, lab, destination.directory, prewarm=READY) as proxy:
            await until_ready(proxy)
            yield lab, proxy


async def come(proxy: RunningProxy) -> None:
    """One client that is greeted."""
    with trio.fail_after(PATIENCE):
        async with data_connection(proxy) as stream:
            assert await exactly(stream, 7) == b"welcome"
            await stream.send_all(b"hello")
            assert await exactly(stream, 5) == b"hello"


@every_way
async def test_they_are_made_on_every_way(
    way: Way,
    rsa_keys: tuple[PrivateKey, PrivateKey],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with named_lab(tmp_path, handler=greet) as lab:
        destination = Destination(tmp_path / "machine-id", lab, rsa_keys)
        await destination.renew()
        async with (
            open_way(way, lab, monkeypatch) as settings,
            running_proxy(
                Mode.TUNNEL, lab, destination.directory, prewarm=READY, **settings
            ) as proxy,
        ):
            await until_ready(proxy)
            await come(proxy)
            record = await proxy.record()
    assert record.prewarmed
    (connected,) = proxy.of(UpstreamConnected)
    assert connected.upgraded == (way.upgrade is not None)


@every_mode
async def test_pings_that_come_meanwhile_are_absorbed(
    mode: Mode, rsa_keys: tuple[PrivateKey, PrivateKey], tmp_path: Path
) -> None:
    async with greeting(tmp_path, rsa_keys, mode, ping_interval=INTERVAL) as (lab, proxy):
        await until(
            lambda: [facts.pings >= 5 for facts in database_connections(lab)] == [True] * READY,
            PATIENCE,
        )
        await come(proxy)
        record = await proxy.record()
    assert record.prewarmed
    assert record.bytes_down == 12


@every_mode
async def test_no_client_notices_that_the_proxy_was_restarted_while_they_waited(
    mode: Mode, proxy_in: ProxyIn, lab: Lab
) -> None:
    """There is no grace, so that only what was ready could fail."""
    async with proxy_in(mode, prewarm=READY) as proxy:
        await until_ready(proxy)
        await lab.stop_proxy()
        await lab.start_proxy()
        for _ in range(READY + 1):
            assert await with_psycopg(proxy, select_one) == 1
        await until_ready(proxy, READY + 1)
        records = await proxy.all_closed(READY + 1)
    assert {record.outcome for record in records} == {"relayed"}


async def test_a_client_that_comes_while_the_proxy_is_away_waits_for_it(
    proxy_in: ProxyIn, lab: Lab
) -> None:
    async def ask() -> None:
        assert await with_psycopg(proxy, select_one) == 1

    async with proxy_in(Mode.TUNNEL, prewarm=READY, connect_grace=PATIENCE) as proxy:
        await until_ready(proxy)
        await lab.stop_proxy()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.3)
            await lab.start_proxy()
        record = await proxy.record()
    assert record.attempts > 1


async def test_a_proxy_that_turns_them_away_is_left_in_peace(proxy_in: ProxyIn, lab: Lab) -> None:
    lab.admission.locked.add("bot-app")
    async with proxy_in(Mode.TUNNEL, prewarm=READY) as proxy:
        await trio.sleep(3)
        made = len(database_connections(lab))
        (failed,) = proxy.of(PrewarmFailed)
    assert failed.code is Code.UPSTREAM_CLOSED_EARLY
    assert READY <= made <= READY + 3, "one after 0.5 to 1 s, one 1 to 2 s later, and so on"
    assert proxy.records == []


# The identity


@every_mode
async def test_a_renewal_ends_those_of_the_generation_before(
    mode: Mode, proxy_in: ProxyIn, destination: Destination, lab: Lab
) -> None:
    async with proxy_in(mode, prewarm=READY) as proxy:
        await until_ready(proxy)
        await until(lambda: len(database_connections(lab)) == READY, PATIENCE)
        await destination.renew()
        await until_ready(proxy, generation=2)
        assert await with_psycopg(proxy, select_one) == 1
        record = await proxy.record()
        await until(lambda: len(database_connections(lab)) >= 2 * READY, PATIENCE)
        certificates = [it.client_certificate for it in database_connections(lab)]
    assert (record.prewarmed, record.generation) == (True, 2)
    if mode is not Mode.PASSTHROUGH:
        assert set(certificates[:READY]).isdisjoint(certificates[READY:])


async def test_an_open_connection_that_was_ready_outlives_a_renewal(
    proxy_in: ProxyIn, destination: Destination
) -> None:
    def close(connection: psycopg.Connection) -> None:
        connection.close()

    async with proxy_in(Mode.TUNNEL, prewarm=READY) as proxy:
        await until_ready(proxy)
        connection = await in_thread(psycopg_connect, proxy)
        await destination.renew()
        await until_ready(proxy, generation=2)
        assert await in_thread(select_one, connection) == 1
        await in_thread(close, connection)
        record = await proxy.record()
    assert (record.prewarmed, record.generation) == (True, 1)


# The end


@every_mode
async def test_a_drain_leaves_none_open(mode: Mode, proxy_in: ProxyIn, lab: Lab) -> None:
    with no_descriptor_left():
        async with proxy_in(mode, prewarm=READY) as proxy:
            await until_ready(proxy)
            assert await with_psycopg(proxy, select_one) == 1
        await until(lambda: lab.connections == 0, PATIENCE)
