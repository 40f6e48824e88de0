"""Real clients do their usual work through dbproxy, in every mode."""

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
import trio
from database_clients import (
    Psql,
    asyncpg_arguments,
    in_thread,
    pg8000_connect,
    until_asleep,
    with_asyncpg,
    with_psycopg,
)
from lab_client import GSSENC_REQUEST, SSL_REQUEST, exactly
from psycopg.conninfo import make_conninfo
from running_proxy import PATIENCE, ProxyIn, every_mode, tls_modes

from dbproxy import Mode
from dbproxy.events import ClosedBy
from dbproxy.lab import Lab
from dbproxy.lab.postgres import EmbeddedPostgres

WORDS = ["hello", "bonjour", "grüß Gott"]
MEBIBYTE = 1024 * 1024
LINE = 1024
CREATE_BULK = "CREATE TEMP TABLE bulk (line text NOT NULL)"
AT_ONCE = 10
SLEEP = "SELECT pg_sleep(30)"


@pytest.fixture(scope="session")
def bulk_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 MiB in lines of 1 KiB that do not compress."""
    path = tmp_path_factory.mktemp("bulk") / "bulk.txt"
    noise = random.Random(64).randbytes(32 * MEBIBYTE)
    with path.open("w") as file:
        for start in range(0, len(noise), LINE // 2):
            file.write(noise[start : start + LINE // 2].hex()[1:] + "\n")
    return path


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Queries


@every_mode
async def test_psql_runs_queries(mode: Mode, proxy_in: ProxyIn, psql: Psql) -> None:
    async with proxy_in(mode) as proxy:
        done = await psql.run(proxy, "SELECT words FROM greetings ORDER BY id")
    assert (done.status, done.out.splitlines(), done.err) == (0, WORDS, "")


@every_mode
async def test_the_printed_command_works_when_pasted(
    mode: Mode, proxy_in: ProxyIn, psql: Psql
) -> None:
    async with proxy_in(mode) as proxy:
        line = f"{proxy.started.connect_command} -X -A -t -c 'SELECT current_user'"
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                line, shell=True, env=psql.environment, capture_stdout=True
            )
    assert done.stdout == b"alice\n"


@every_mode
async def test_psycopg_runs_simple_and_extended_queries(mode: Mode, proxy_in: ProxyIn) -> None:
    def use(connection: psycopg.Connection) -> None:
        simple = connection.execute("SELECT words FROM greetings ORDER BY id; SELECT 1")
        assert [row[0] for row in simple.fetchall()] == WORDS
        extended = "SELECT words FROM greetings WHERE id = %s"
        assert connection.execute(extended, [2]).fetchone() == ("bonjour",)
        assert connection.execute(extended, [3], prepare=True, binary=True).fetchone() == (
            "grüß Gott",
        )

    async with proxy_in(mode) as proxy:
        await with_psycopg(proxy, use)


@every_mode
async def test_psycopg_pipelines_queries_in_a_transaction(mode: Mode, proxy_in: ProxyIn) -> None:
    def use(connection: psycopg.Connection) -> list[Any]:
        with connection.pipeline(), connection.transaction():
            cursors = [connection.execute("SELECT %s::int", [n]) for n in range(200)]
            return [cursor.fetchone() for cursor in cursors]

    async with proxy_in(mode) as proxy:
        assert await with_psycopg(proxy, use) == [(n,) for n in range(200)]


@every_mode
async def test_an_error_of_the_database_arrives_whole(mode: Mode, proxy_in: ProxyIn) -> None:
    def use(connection: psycopg.Connection) -> int | None:
        with pytest.raises(psycopg.errors.DivisionByZero, match="division by zero"):
            connection.execute("SELECT 1/0")
        row = connection.execute("SELECT 1").fetchone()
        return row[0] if row else None

    async with proxy_in(mode) as proxy:
        assert await with_psycopg(proxy, use) == 1


@every_mode
async def test_asyncpg_runs_simple_and_extended_queries(mode: Mode, proxy_in: ProxyIn) -> None:
    async def use(connection: Any) -> None:
        assert await connection.execute("SELECT 1; SELECT 2") == "SELECT 1"
        assert await connection.fetchval("SELECT words FROM greetings WHERE id = $1", 3) == WORDS[2]
        async with connection.transaction():
            query = "SELECT generate_series(1, 1000)"
            rows = [row[0] async for row in connection.cursor(query, prefetch=7)]
        assert rows == list(range(1, 1001))

    async with proxy_in(mode) as proxy:
        await with_asyncpg(proxy, use)


@every_mode
async def test_a_connection_ends_in_a_record_of_what_it_did(
    mode: Mode, proxy_in: ProxyIn, lab: Lab, psql: Psql
) -> None:
    async with proxy_in(mode) as proxy:
        await psql.run(proxy, "SELECT 1")
        record = await proxy.record()
    assert (record.mode, record.service, record.protocol) == (mode, "example-server", "postgres")
    hidden = mode is Mode.PASSTHROUGH  # by the client's own TLS
    asked_for = (None, None) if hidden else ("alice", "example")
    assert (record.database_user, record.database_name) == asked_for
    assert (record.outcome, record.code, record.generation) == ("relayed", None, 1)
    assert record.closed_by is ClosedBy.CLIENT
    if mode is not Mode.PASSTHROUGH:  # whose bytes include the client's own TLS
        session = lab.audit.ends()[0]
        assert record.bytes_up == session["bytes_from_client"]
        assert record.bytes_down == session["bytes_to_client"]


@every_mode
async def test_pg8000_runs_queries_with_parameters(mode: Mode, proxy_in: ProxyIn) -> None:
    def use() -> object:
        connection = pg8000_connect(proxy)
        try:
            return connection.run("SELECT words FROM greetings WHERE id > :id ORDER BY id", id=1)
        finally:
            connection.close()

    async with proxy_in(mode) as proxy:
        assert await in_thread(use) == [[words] for words in WORDS[1:]]


# COPY


@every_mode
async def test_psql_copies_64_mib_both_ways(
    mode: Mode, proxy_in: ProxyIn, psql: Psql, bulk_file: Path, tmp_path: Path
) -> None:
    back = tmp_path / "back.txt"
    async with proxy_in(mode) as proxy:
        done = await psql.run(
            proxy, CREATE_BULK, f"\\copy bulk FROM '{bulk_file}'", f"\\copy bulk TO '{back}'"
        )
    assert (done.status, done.err) == (0, "")
    assert checksum(back) == checksum(bulk_file)


@every_mode
async def test_psycopg_copies_64_mib_both_ways(
    mode: Mode, proxy_in: ProxyIn, bulk_file: Path
) -> None:
    def use(connection: psycopg.Connection) -> str:
        connection.execute(CREATE_BULK)
        with connection.cursor() as cursor, bulk_file.open("rb") as file:
            with cursor.copy("COPY bulk FROM STDIN") as copy:
                while data := file.read(99_991):
                    copy.write(data)
            back = hashlib.sha256()
            with cursor.copy("COPY bulk TO STDOUT") as copy:
                for block in copy:
                    back.update(block)
            return back.hexdigest()

    async with proxy_in(mode) as proxy:
        assert await with_psycopg(proxy, use) == checksum(bulk_file)


@every_mode
async def test_asyncpg_copies_64_mib_both_ways(
    mode: Mode, proxy_in: ProxyIn, bulk_file: Path, tmp_path: Path
) -> None:
    back = tmp_path / "back.txt"

    async def use(connection: Any) -> None:
        await connection.execute(CREATE_BULK)
        await connection.copy_to_table("bulk", source=bulk_file, format="text")
        await connection.copy_from_table("bulk", output=back, format="text")

    async with proxy_in(mode) as proxy:
        await with_asyncpg(proxy, use)
    assert checksum(back) == checksum(bulk_file)


# Many at once


@every_mode
async def test_psycopg_holds_ten_connections_at_once(
    mode: Mode, proxy_in: ProxyIn, lab: Lab
) -> None:
    all_connected = threading.Barrier(AT_ONCE, timeout=PATIENCE)

    def use(connection: psycopg.Connection) -> tuple[int, int]:
        all_connected.wait()
        row = connection.execute("SELECT pg_backend_pid(), sum(n) FROM generate_series(1, 99) n")
        backend, total = row.fetchone() or (0, 0)
        return backend, int(total)

    answers: list[tuple[int, int]] = []
    async with proxy_in(mode) as proxy:
        async with trio.open_nursery() as nursery:

            async def one_client() -> None:
                answers.append(await with_psycopg(proxy, use))

            for _ in range(AT_ONCE):
                nursery.start_soon(one_client)
        records = await proxy.all_closed(AT_ONCE)
    assert len({backend for backend, _ in answers}) == AT_ONCE
    assert {total for _, total in answers} == {4950}
    assert sorted(record.id for record in records) == list(range(1, AT_ONCE + 1))
    assert len(lab.audit.ends()) == AT_ONCE


@every_mode
async def test_an_asyncpg_pool_holds_ten_connections_at_once(mode: Mode, proxy_in: ProxyIn) -> None:
    async def work(arguments: dict[str, Any]) -> set[int]:
        size = {"min_size": AT_ONCE, "max_size": AT_ONCE}
        async with asyncpg.create_pool(**arguments, **size) as pool:
            query = "SELECT pg_backend_pid(), pg_sleep(0.1)"
            rows = await asyncio.gather(*(pool.fetchrow(query) for _ in range(AT_ONCE)))
            return {row[0] for row in rows}

    async with proxy_in(mode) as proxy:
        arguments = asyncpg_arguments(proxy)
        assert len(await in_thread(lambda: asyncio.run(work(arguments)))) == AT_ONCE


# Cancelling


@every_mode
async def test_ctrl_c_in_psql_cancels_the_query(
    mode: Mode, proxy_in: ProxyIn, psql: Psql, postgres: EmbeddedPostgres
) -> None:
    name = f"ctrl-c-{mode}"
    async with (
        proxy_in(mode) as proxy,
        psql.running(proxy, SLEEP, application_name=name) as process,
    ):
        await until_asleep(postgres, name)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        with trio.fail_after(PATIENCE):
            message = b"".join([piece async for piece in process.stderr]).decode()
        assert "canceling statement due to user request" in message
        records = await proxy.all_closed(2)
    assert [record.outcome for record in records] == ["cancel-request", "relayed"]


CANCELLING_CLIENT = """
import sys, threading, psycopg
conninfo, how = sys.argv[1:]
connection = psycopg.connect(conninfo, autocommit=True)
threading.Thread(target=lambda: sys.stdin.readline() and getattr(connection, how)()).start()
try:
    connection.execute("SELECT pg_sleep(30)")
except psycopg.errors.QueryCanceled:
    print(connection.execute("SELECT 'still usable'").fetchone()[0], flush=True)
"""
"""A process of its own, because psycopg's `cancel` holds Python's lock while it waits."""


@every_mode
@pytest.mark.parametrize("cancel", ["cancel", "cancel_safe"])
async def test_psycopg_cancels_a_query(
    mode: Mode, cancel: str, proxy_in: ProxyIn, postgres: EmbeddedPostgres
) -> None:
    assert psycopg.capabilities.has_cancel_safe(), "libpq 17 brought encrypted cancel requests"
    name = f"{cancel}-{mode}"
    async with proxy_in(mode) as proxy:
        conninfo = make_conninfo(**proxy.parameters(application_name=name))
        async with python_process(CANCELLING_CLIENT, conninfo, cancel) as client:
            await until_asleep(postgres, name)
            assert client.stdin is not None
            await client.stdin.send_all(b"now\n")
            assert client.stdout is not None
            with trio.fail_after(PATIENCE):
                answer = b"".join([piece async for piece in client.stdout])
        records = await proxy.all_closed(2)
    assert answer == b"still usable\n"
    # The encrypted request of a client whose TLS ends at Teleport cannot be told from a session.
    opaque = mode is Mode.PASSTHROUGH and cancel == "cancel_safe"
    expected = "relayed" if opaque else "cancel-request"
    assert next(record for record in records if record.id == 2).outcome == expected


@asynccontextmanager
async def python_process(program: str, *arguments: str) -> AsyncIterator[trio.Process]:
    """Runs Python in the background; its standard input and output are pipes. Killed at the end."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                await trio.aclose_forcefully(pipe)


@every_mode
async def test_asyncpg_cancels_a_query_that_takes_too_long(mode: Mode, proxy_in: ProxyIn) -> None:
    async def use(connection: Any) -> object:
        with pytest.raises(TimeoutError):
            await connection.execute(SLEEP, timeout=0.2)
        return await connection.fetchval("SELECT 'still usable'")

    async with proxy_in(mode) as proxy:
        assert await with_asyncpg(proxy, use) == "still usable"


# Ways of connecting


async def test_psql_connects_through_a_unix_socket_in_tunnel_mode(
    proxy_in: ProxyIn, psql: Psql
) -> None:
    with tempfile.TemporaryDirectory() as directory:  # a socket's path must be short
        async with proxy_in(Mode.TUNNEL, listen=f"unix://{directory}/.s.PGSQL.6543") as proxy:
            parameters = {"host": directory, "port": 6543}
            done = await psql.run(proxy, "SELECT current_user", **parameters)
            record = await proxy.record()
    assert (done.out, done.err) == ("alice\n", "")
    assert f"uid={os.getuid()}" in record.peer


def hello(connection: psycopg.Connection) -> object:
    row = connection.execute("SELECT words FROM greetings WHERE id = 1").fetchone()
    return row[0] if row else None


@pytest.mark.parametrize("gssencmode", ["prefer", "disable"])
@every_mode
async def test_gssencmode_does_no_harm(mode: Mode, gssencmode: str, proxy_in: ProxyIn) -> None:
    async with proxy_in(mode) as proxy:
        assert await with_psycopg(proxy, hello, gssencmode=gssencmode) == "hello"


@every_mode
async def test_a_gssapi_request_is_declined_and_the_client_goes_on(
    mode: Mode, proxy_in: ProxyIn
) -> None:
    async with proxy_in(mode) as proxy, await proxy.connect() as client:
        await client.send_all(GSSENC_REQUEST)
        assert await exactly(client, 1) == b"N"
        await client.send_all(SSL_REQUEST)
        assert await exactly(client, 1) == (b"N" if mode is Mode.TUNNEL else b"S")


async def test_libpq_starts_tls_directly_in_terminate_mode(proxy_in: ProxyIn) -> None:
    async with proxy_in(Mode.TERMINATE) as proxy:
        assert await with_psycopg(proxy, hello, sslnegotiation="direct") == "hello"


@tls_modes
async def test_asyncpg_starts_tls_directly(mode: Mode, proxy_in: ProxyIn) -> None:
    async def use(connection: Any) -> object:
        return await connection.fetchval("SELECT words FROM greetings WHERE id = 1")

    async with proxy_in(mode) as proxy:
        assert await with_asyncpg(proxy, use, direct_tls=True) == "hello"
