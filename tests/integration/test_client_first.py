"""Databases whose clients speak first: real servers, real drivers, and what they print."""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import beginnings
import pytest
import trio
from cassandra.cluster import NoHostAvailable
from clickhouse_driver.errors import ServerException
from database_clients import Psql, in_thread, refused_asyncpg, refused_psql, refused_psycopg
from database_servers import mongodb_server, redis_server
from lab_client import echo
from loopback import TLSStream, open_server
from more_clients import (
    ask_cassandra,
    ask_clickhouse,
    ask_http,
    ask_http2,
    mongo_client,
    redis_client,
    run_line,
    tls_context,
)
from pymongo.errors import ServerSelectionTimeoutError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from running_proxy import (
    PATIENCE,
    Destination,
    ProxyIn,
    RunningProxy,
    checked_modes,
    every_mode,
    running_proxy,
    tls_modes,
)

from dbproxy import Code, Mode, UsageError
from dbproxy.lab import DatabaseResource, Lab, guide, open_lab
from dbproxy.lab.keys import PrivateKey
from dbproxy.lab.postgres import EmbeddedPostgres
from dbproxy.lab.search_engine import SearchEngine
from dbproxy.protocols import protocol_named

MEBIBYTE = 1024 * 1024
Keys = tuple[PrivateKey, PrivateKey]


@asynccontextmanager
async def cluster_with(
    protocol: str, address: str, directory: Path, keys: Keys
) -> AsyncIterator[tuple[Lab, Path]]:
    """A lab with one database of a protocol, and a destination whose certificate is for it."""
    database = DatabaseResource(guide.SERVICE, address, protocol)
    async with open_lab(databases=[database], directory=directory / "lab") as lab:
        lab.create_role(guide.role_yaml())
        destination = Destination(directory / "machine-id", lab, keys)
        await destination.renew()
        yield lab, destination.directory


# Redis


@pytest.fixture
async def redis_cluster(tmp_path: Path, rsa_keys: Keys) -> AsyncIterator[tuple[Lab, Path]]:
    async with (
        redis_server() as address,
        cluster_with("redis", address, tmp_path, rsa_keys) as cluster,
    ):
        yield cluster


@every_mode
@pytest.mark.parametrize("protocol", [2, 3])
async def test_redis_py(mode: Mode, protocol: int, redis_cluster: tuple[Lab, Path]) -> None:
    value = bytes(range(256)) * (4 * MEBIBYTE // 256)

    def work() -> None:
        for _ in range(2):
            with redis_client(proxy, protocol=protocol) as client:
                assert client.ping() is True
                client.set("key", value)
                assert client.get("key") == value
                pipeline = client.pipeline()
                for _ in range(3):
                    pipeline.echo("hello")
                assert pipeline.execute() == [b"hello"] * 3

    async with running_proxy(mode, *redis_cluster) as proxy:
        await in_thread(work)
        for record in await proxy.all_closed(2):
            assert (record.protocol, record.outcome, record.code) == ("redis", "relayed", None)


@every_mode
async def test_the_pasted_line_is_a_redis_cli(mode: Mode, redis_cluster: tuple[Lab, Path]) -> None:
    async with running_proxy(mode, *redis_cluster) as proxy:
        line = f"{proxy.started.connect_command} ECHO hello"
        assert await in_thread(run_line, line) == (0, "hello\n", "")


async def test_the_pasted_line_for_a_unix_socket(
    redis_cluster: tuple[Lab, Path], tmp_path: Path
) -> None:
    listen = f"unix://{tmp_path}/r.sock"
    async with running_proxy(Mode.TUNNEL, *redis_cluster, listen=listen) as proxy:
        assert str(tmp_path / "r.sock") in proxy.started.connect_command
        line = f"{proxy.started.connect_command} PING"
        assert await in_thread(run_line, line) == (0, "PONG\n", "")


@every_mode
async def test_an_unknown_protocol_is_carried_by_the_value_that_is_given(
    mode: Mode, redis_cluster: tuple[Lab, Path]
) -> None:
    def ping() -> object:
        with redis_client(proxy) as client:
            return client.ping()

    lab, directory = redis_cluster
    async with running_proxy(
        mode, lab, directory, protocol="unheard", alpn="teleport-redis"
    ) as proxy:
        assert proxy.started.protocol == "unheard"
        assert await in_thread(ping) is True
        assert lab.handshakes[-1].alpn == "teleport-redis-ping"


async def test_silent_and_foreign_clients_do_not_disturb_others(
    redis_cluster: tuple[Lab, Path],
) -> None:
    def ping() -> object:
        with redis_client(proxy) as client:
            return client.ping()

    async with running_proxy(Mode.TUNNEL, *redis_cluster, prologue_timeout=1.0) as proxy:
        streams = [await proxy.connect() for _ in range(60)]
        for number, stream in enumerate(streams[:20]):
            await stream.send_all(bytes([number, 255]) * 16)
        assert await in_thread(ping) is True
        records = await proxy.all_closed(61)
        codes = [record.code for record in records]
        assert codes.count(Code.CLIENT_STALLED) == 40
        assert codes.count(Code.CLIENT_PROTOCOL_ERROR) == 20
        for stream in streams:
            await stream.aclose()


# MongoDB


@every_mode
async def test_pymongo(mode: Mode, tmp_path: Path, rsa_keys: Keys) -> None:
    documents: list[dict[str, Any]] = [{"_id": n, "text": "x" * 10_000} for n in range(100)]

    def work() -> None:
        with mongo_client(proxy, tmp_path) as client:
            collection = client["example"]["greetings"]
            collection.insert_many(documents)
            found = collection.find(batch_size=20)  # sorted here: the server sorts ids as text
            assert sorted(found, key=lambda document: document["_id"]) == documents

    async with (
        mongodb_server() as address,
        cluster_with("mongodb", address, tmp_path, rsa_keys) as cluster,
        running_proxy(mode, *cluster) as proxy,
    ):
        await in_thread(work)
        records = await proxy.all_closed(1)
        assert {(record.protocol, record.outcome) for record in records} == {("mongodb", "relayed")}


# Every protocol

LARGE = bytes(range(256)) * (MEBIBYTE // 256)


@every_mode
async def test_the_bytes_of_every_protocol_arrive_as_they_are(
    mode: Mode, tmp_path: Path, rsa_keys: Keys
) -> None:
    """A database that echoes: what comes back has been both ways."""
    async with open_server(echo) as port:
        databases = [
            DatabaseResource(f"{name}-server", f"127.0.0.1:{port}", name)
            for name in beginnings.OF_PROTOCOL
            if mode is not Mode.PASSTHROUGH or protocol_named(name).passthrough
        ]
        async with open_lab(databases=databases, directory=tmp_path / "lab") as lab:
            lab.create_role(guide.role_yaml())
            destination = Destination(tmp_path / "machine-id", lab, rsa_keys)
            for database in databases:
                await destination.renew(service=database.name)
                async with running_proxy(mode, lab, destination.directory) as proxy:
                    for sent in beginnings.OF_PROTOCOL[database.protocol]:
                        await echoed(proxy, sent + LARGE)
                    alpn = protocol_named(database.protocol).alpn
                    assert lab.handshakes[-1].alpn == alpn[0]
                    assert lab.handshakes[-1].tunnel is (mode is not Mode.PASSTHROUGH)


async def echoed(proxy: RunningProxy, sent: bytes) -> None:
    """Send it and read it again, with TLS where the mode has it."""
    with trio.fail_after(PATIENCE):
        tcp = await proxy.connect()
        context = tls_context(proxy)
        tls = TLSStream(tcp, context, server_side=False) if context is not None else None
        async with tls or tcp as stream, trio.open_nursery() as nursery:
            if tls is not None:
                await tls.do_handshake()
            nursery.start_soon(stream.send_all, sent)
            received = b""
            while len(received) < len(sent):
                received += await stream.receive_some(65536)
            assert received == sent


# Over HTTP


@every_mode
async def test_the_pasted_line_is_a_curl(mode: Mode, tmp_path: Path, rsa_keys: Keys) -> None:
    async with (
        open_server(SearchEngine({"/": {"name": "a stand-in"}}).serve) as port,
        cluster_with("elasticsearch", f"127.0.0.1:{port}", tmp_path, rsa_keys) as cluster,
        running_proxy(mode, *cluster) as proxy,
    ):
        line = proxy.started.connect_command.replace("curl ", "curl --silent --noproxy '*' ")
        status, out, _ = await in_thread(run_line, line)
        assert (status, json.loads(out)) == (0, {"name": "a stand-in"})


@checked_modes
async def test_a_grpc_call_ends_with_the_reason(mode: Mode, proxy_in: ProxyIn) -> None:
    async with proxy_in(mode, protocol="spanner", proxy=NOBODY) as proxy:
        response = await in_thread(ask_http2, proxy)
    assert response.http_version == "HTTP/2"
    assert (response.status_code, response.headers["grpc-status"]) == (502, "14")
    assert "[upstream-unreachable]" in response.headers["grpc-message"]


# CockroachDB


@every_mode
async def test_psql_with_a_database_of_cockroachdbs_protocol(
    mode: Mode, postgres: EmbeddedPostgres, psql: Psql, tmp_path: Path, rsa_keys: Keys
) -> None:
    async with (
        cluster_with("cockroachdb", postgres.address, tmp_path, rsa_keys) as cluster,
        running_proxy(mode, *cluster) as proxy,
    ):
        done = await psql.run(proxy, "SELECT words FROM greetings WHERE id = 1")
        assert (done.status, done.out) == (0, "hello\n")
        assert proxy.started.connect_command.startswith("cockroach sql --url ")
        assert (await proxy.record()).protocol == "cockroachdb"


# Refusals


def failing_redis(proxy: RunningProxy, directory: Path) -> None:
    del directory
    with redis_client(proxy) as client:
        client.ping()


def failing_old_redis(proxy: RunningProxy, directory: Path) -> None:
    del directory
    with redis_client(proxy, protocol=2) as client:
        client.ping()


def failing_mongo(proxy: RunningProxy, directory: Path) -> None:
    with mongo_client(proxy, directory) as client:
        client.admin.command("ping")


def failing_cassandra(proxy: RunningProxy, directory: Path) -> None:
    del directory
    ask_cassandra(proxy)


def failing_clickhouse(proxy: RunningProxy, directory: Path) -> None:
    del directory
    ask_clickhouse(proxy)


Fails = Callable[[RunningProxy, Path], None]
DRIVERS: list[tuple[str, Fails, type[Exception]]] = [
    ("redis", failing_redis, ResponseError),
    ("redis", failing_old_redis, ResponseError),
    ("mongodb", failing_mongo, ServerSelectionTimeoutError),
    ("cassandra", failing_cassandra, NoHostAvailable),
    ("clickhouse", failing_clickhouse, ServerException),
]
NOBODY = "127.0.0.1:1"
"""Where no Teleport Proxy listens."""


@checked_modes
@pytest.mark.parametrize(
    ("protocol", "fails", "error"), DRIVERS, ids=lambda value: getattr(value, "__name__", None)
)
async def test_a_driver_prints_why_teleport_cannot_be_reached(
    mode: Mode,
    protocol: str,
    fails: Fails,
    error: type[Exception],
    proxy_in: ProxyIn,
    tmp_path: Path,
) -> None:
    async with proxy_in(mode, protocol=protocol, proxy=NOBODY) as proxy:
        with pytest.raises(error) as caught:
            await in_thread(fails, proxy, tmp_path)
        text = str(caught.value)
        assert "dbproxy: " in text
        assert NOBODY in text
        assert "[upstream-unreachable]" in text
        assert "try again later" in text
        record = await proxy.record()
        assert (record.outcome, record.code) == ("refused", Code.UPSTREAM_UNREACHABLE)


@checked_modes
@pytest.mark.parametrize(
    ("protocol", "place"),
    [("elasticsearch", "reason"), ("dynamodb", "message"), ("snowflake", "message")],
)
async def test_an_http_client_gets_a_status_and_the_reason(
    mode: Mode, protocol: str, place: str, proxy_in: ProxyIn
) -> None:
    async with proxy_in(mode, protocol=protocol, proxy=NOBODY) as proxy:
        response = await in_thread(ask_http, proxy)
    assert response.status_code == 502
    document = response.json()
    text = document.get("error", document)[place]
    assert "[upstream-unreachable]" in text


@tls_modes
async def test_a_redis_client_without_tls_is_told(mode: Mode, proxy_in: ProxyIn) -> None:
    def ping() -> None:
        with redis_client(proxy, ssl=False) as client:
            client.ping()

    async with proxy_in(mode, protocol="redis") as proxy:
        with pytest.raises(ResponseError, match=r"connected without TLS.*\[client-not-tls\]"):
            await in_thread(ping)


async def test_a_redis_client_with_tls_on_a_tunnel_gets_an_alert(proxy_in: ProxyIn) -> None:
    def ping() -> None:
        with redis_client(proxy, ssl=True, ssl_cert_reqs="none") as client:
            client.ping()

    async with proxy_in(Mode.TUNNEL, protocol="redis") as proxy:
        with pytest.raises(RedisConnectionError, match=r"(?i)handshake.failure"):
            await in_thread(ping)
        assert (await proxy.record()).code is Code.CLIENT_TLS_ON_TUNNEL


async def test_in_passthrough_a_refusal_is_an_alert_and_the_log_has_the_reason(
    proxy_in: ProxyIn,
) -> None:
    def ping() -> None:
        with redis_client(proxy) as client:
            client.ping()

    async with proxy_in(Mode.PASSTHROUGH, protocol="redis", proxy=NOBODY) as proxy:
        with pytest.raises(RedisConnectionError, match=r"(?i)handshake.failure"):
            await in_thread(ping)
        record = await proxy.record()
        assert record.code is Code.UPSTREAM_UNREACHABLE
        assert NOBODY in (record.reason or "")


async def test_redis_cli_prints_the_reason(proxy_in: ProxyIn) -> None:
    async with proxy_in(Mode.TUNNEL, protocol="redis", proxy=NOBODY) as proxy:
        _, out, _ = await in_thread(run_line, f"{proxy.started.connect_command} PING")
    assert out.startswith("ERR dbproxy: ")
    assert "[upstream-unreachable]" in out


async def test_curl_gets_what_the_port_carries(proxy_in: ProxyIn) -> None:
    async with proxy_in(Mode.TUNNEL, protocol="redis") as proxy:
        response = await in_thread(ask_http, proxy)
    assert response.status_code == 400
    assert "this port carries Redis, and the client began with an HTTP request" in response.text


@pytest.mark.parametrize("protocol", ["redis", "mysql", "sqlserver"])
async def test_postgresqls_clients_print_what_the_port_carries_although_they_prefer_tls(
    protocol: str, proxy_in: ProxyIn, psql: Psql
) -> None:
    words = f"this port carries {protocol_named(protocol).readable_name}"
    async with proxy_in(Mode.TUNNEL, protocol=protocol) as proxy:
        preferred = {"sslmode": "prefer"}
        assert words in await refused_psql(psql, proxy, **preferred)
        assert words in await refused_psycopg(proxy, **preferred)
        assert words in (await refused_asyncpg(proxy, **preferred)).text
        for record in await proxy.all_closed(3):
            assert (record.outcome, record.code) == ("refused", Code.CLIENT_PROTOCOL_ERROR)


async def test_a_mysql_client_waits_to_be_greeted_and_is_told(proxy_in: ProxyIn) -> None:
    async with proxy_in(Mode.TUNNEL, protocol="redis", prologue_timeout=0.2) as proxy:
        with trio.fail_after(PATIENCE):
            async with await proxy.connect() as stream:
                answer = b"".join([data async for data in stream])
    assert answer[4:5] == b"\xff"
    assert b"this port carries Redis, and the client said nothing" in answer


# Starting


@pytest.mark.parametrize("protocol", ["cassandra", "clickhouse", "dynamodb", "oracle", "snowflake"])
async def test_passthrough_is_refused_at_start_where_teleport_does_not_have_it(
    protocol: str, proxy_in: ProxyIn
) -> None:
    with pytest.raises(UsageError) as caught:
        async with proxy_in(Mode.PASSTHROUGH, protocol=protocol):
            pass
    assert re.search(r"--terminate.*--tunnel", caught.value.next_step)


async def test_the_start_message_names_the_protocol(proxy_in: ProxyIn) -> None:
    async with proxy_in(Mode.TUNNEL, protocol="mongodb") as proxy:
        assert proxy.started.protocol == "mongodb"
        assert proxy.started.connect_command.startswith("mongosh ")
