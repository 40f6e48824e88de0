"""Every way to a Teleport Proxy, with and without pings, in every mode, with both versions of TLS.

The version of TLS is that of the Proxy's own handshake: the outer one, and in an upgraded
connection the one inside. Every cell runs queries, copies 16 MiB in and out again, and looks at the
lab whether the way was the one meant. Discovery and the upgrade test find it, as they do for users.
"""

import hashlib
import random
import ssl
from pathlib import Path

import psycopg
import pytest
import trio
from data_client import data_connection, take_first_message
from database_clients import select_one, with_psycopg
from lab_client import until
from odd_pieces import MEBIBYTE, Stream, echo, receive, send
from running_proxy import PATIENCE, Destination, RunningProxy, running_proxy
from ways import Way, every_way, named_lab, open_way

from dbproxy import Mode
from dbproxy.events import IdentityLoaded, UpstreamConnected
from dbproxy.lab import Lab
from dbproxy.lab.handshake import Handshake
from dbproxy.lab.keys import PrivateKey
from dbproxy.lab.postgres import EmbeddedPostgres

ROWS = 16
COPY_OUT = "COPY (SELECT lpad(number::text, 7, '0'), words FROM copied) TO STDOUT"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def rows() -> bytes:
    """16 MiB for COPY: rows of a number and a text of nearly a mebibyte."""
    chance = random.Random(4)
    size = MEBIBYTE // 2 - 8
    return b"".join(
        b"%07d\t%s\n" % (number, chance.randbytes(size).hex().encode()) for number in range(ROWS)
    )


def query_and_copy(connection: psycopg.Connection, rows: bytes) -> None:
    """Ask, copy in, have the server compute a checksum, copy out."""
    assert connection.execute("SELECT words FROM greetings WHERE id = 1").fetchone() == ("hello",)
    assert connection.execute("SELECT %s::int + 1", (41,)).fetchone() == (42,)
    connection.execute("CREATE TEMP TABLE copied (number int, words text STORAGE EXTERNAL)")
    with connection.cursor() as cursor:
        with cursor.copy("COPY copied FROM STDIN") as copy:
            copy.write(rows)
        back = hashlib.sha256()
        with cursor.copy(COPY_OUT) as copy:
            for block in copy:
                back.update(block)
    assert back.digest() == hashlib.sha256(rows).digest()


def check_connection(proxy: RunningProxy, lab: Lab, way: Way, alpn: str, tls_version: str) -> None:
    """The connection of the cell went as it was meant to."""
    (connected,) = proxy.of(UpstreamConnected)
    assert connected.alpn == alpn
    assert connected.tls_version == tls_version
    assert connected.upgraded == (way.upgrade is not None)
    used = [facts for facts in lab.handshakes if facts.alpn == alpn]
    assert {facts.tls_version for facts in used} == {tls_version}


@pytest.mark.parametrize("version", VERSIONS, ids=["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("ping", [False, True], ids=["plain", "ping"])
@every_way
@pytest.mark.parametrize("mode", list(Mode))
async def test_queries_and_16_mib_go_every_way(
    way: Way,
    ping: bool,
    version: ssl.TLSVersion,
    mode: Mode,
    postgres: EmbeddedPostgres,
    rsa_keys: tuple[PrivateKey, PrivateKey],
    rows: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alpn = "teleport-postgres-ping" if ping else "teleport-postgres"
    versions = {"minimum_tls_version": version, "maximum_tls_version": version}
    async with named_lab(tmp_path, postgres, ping=ping, **versions) as lab:
        destination = Destination(tmp_path / "machine-id", lab, rsa_keys)
        await destination.renew()
        async with (
            open_way(way, lab, monkeypatch) as settings,
            running_proxy(mode, lab, destination.directory, **settings) as proxy,
        ):
            await with_psycopg(proxy, lambda connection: query_and_copy(connection, rows))
            record = await proxy.record()
            assert (record.outcome, record.code) == ("relayed", None)
            assert min(record.bytes_up, record.bytes_down) > ROWS * (MEBIBYTE - 16)
            check_connection(proxy, lab, way, alpn, version.name.replace("_", "."))


@every_way
async def test_64_mib_are_echoed_while_they_are_sent(
    way: Way,
    rsa_keys: tuple[PrivateKey, PrivateKey],
    blob: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def serve(stream: Stream, facts: Handshake) -> None:
        await take_first_message(stream)
        await echo(stream, facts)

    async with named_lab(tmp_path, handler=serve, ping_interval=0.01) as lab:
        destination = Destination(tmp_path / "machine-id", lab, rsa_keys)
        await destination.renew()
        async with (
            open_way(way, lab, monkeypatch) as settings,
            running_proxy(Mode.TUNNEL, lab, destination.directory, **settings) as proxy,
        ):
            with trio.fail_after(2 * PATIENCE):
                async with data_connection(proxy) as stream, trio.open_nursery() as nursery:
                    nursery.start_soon(send, stream, blob)
                    await receive(stream, blob)
            record = await proxy.record()
            assert (record.outcome, record.bytes_down) == ("relayed", len(blob))
            check_connection(proxy, lab, way, "teleport-postgres-ping", "TLSv1.3")
            (facts,) = [facts for facts in lab.handshakes if facts.tunnel]
            assert facts.pings > 1, "no pings among the data"


@every_way
@pytest.mark.parametrize("version", VERSIONS, ids=["TLSv1.2", "TLSv1.3"])
async def test_a_session_is_resumed_within_a_generation_and_not_in_the_next(
    way: Way,
    version: ssl.TLSVersion,
    postgres: EmbeddedPostgres,
    rsa_keys: tuple[PrivateKey, PrivateKey],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions = {"minimum_tls_version": version, "maximum_tls_version": version}
    async with named_lab(tmp_path, postgres, **versions) as lab:
        destination = Destination(tmp_path / "machine-id", lab, rsa_keys)
        await destination.renew()
        async with (
            open_way(way, lab, monkeypatch) as settings,
            running_proxy(Mode.TUNNEL, lab, destination.directory, **settings) as proxy,
        ):
            for _ in range(3):
                assert await with_psycopg(proxy, select_one) == 1
            await destination.renew()
            await until(lambda: len(proxy.of(IdentityLoaded)) == 2, PATIENCE)
            assert await with_psycopg(proxy, select_one) == 1
            resumed = [connected.resumed for connected in proxy.of(UpstreamConnected)]
        served = [facts.session_reused for facts in lab.handshakes if facts.tunnel]
    assert resumed == [False, True, True, False]
    assert served == resumed
