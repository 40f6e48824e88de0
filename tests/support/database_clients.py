"""Real PostgreSQL clients: psql, psycopg, asyncpg and pg8000.

The drivers run in worker threads, so that trio goes on serving meanwhile. Everything is bounded.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ssl import SSLContext, create_default_context
from typing import Any, TypeVar

import asyncpg
import pg8000.exceptions
import pg8000.native
import psycopg
import trio
from psycopg.conninfo import make_conninfo
from running_proxy import PATIENCE, RunningProxy

from dbproxy import Mode
from dbproxy.lab.postgres import EmbeddedPostgres

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """How psql ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Psql:
    """The psql on the PATH; it must be one with TLS.

    Attributes:
        program: Its path.
        environment: Without libpq's variables and with messages in English.
    """

    program: str
    environment: Mapping[str, str]

    @classmethod
    def find(cls) -> "Psql":
        """Look on the PATH.

        Raises:
            LookupError: There is none.
        """
        program = shutil.which("psql")
        if program is None:
            raise LookupError("psql is not on the PATH; on Debian: apt install postgresql-client")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return cls(program, kept | {"LC_ALL": "C", "PGCONNECT_TIMEOUT": "15"})

    async def run(self, proxy: RunningProxy, *commands: str, **changes: object) -> Outcome:
        """Run SQL or psql's own commands, each as a `-c`; `changes` are to libpq's parameters."""
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                self._command(proxy, *commands, **changes),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

    @asynccontextmanager
    async def running(
        self, proxy: RunningProxy, *commands: str, **changes: object
    ) -> AsyncIterator[trio.Process]:
        """Like `run`, in the background; its standard error is a pipe. Killed at the end."""
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    self._command(proxy, *commands, **changes),
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    check=False,
                )
            )
            yield process
            nursery.cancel_scope.cancel()

    def _command(self, proxy: RunningProxy, *commands: str, **changes: object) -> list[str]:
        conninfo = make_conninfo(**proxy.parameters(**changes))
        options = [part for command in commands for part in ("-c", command)]
        return [self.program, "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", conninfo, *options]


async def in_thread(function: Callable[..., T], *args: object) -> T:
    """Run a blocking function in a worker thread, for a bounded time."""
    with trio.fail_after(PATIENCE):
        return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)


def psycopg_connect(proxy: RunningProxy, **changes: object) -> psycopg.Connection:
    """Connect with psycopg; to be called in a worker thread."""
    return psycopg.connect(make_conninfo(**proxy.parameters(**changes)), autocommit=True)


async def with_psycopg(
    proxy: RunningProxy, use: Callable[[psycopg.Connection], T], **changes: object
) -> T:
    """Connect with psycopg, use the connection, and close it, all in a worker thread."""

    def work() -> T:
        with psycopg_connect(proxy, **changes) as connection:
            return use(connection)

    return await in_thread(work)


def select_one(connection: psycopg.Connection) -> int:
    """What a healthy connection answers: 1."""
    row = connection.execute("SELECT 1").fetchone()
    assert row is not None
    return int(row[0])


def asyncpg_arguments(proxy: RunningProxy, **changes: Any) -> dict[str, Any]:
    """The arguments of `asyncpg.connect`; those of `ssl` are made from the files named."""
    parameters = proxy.parameters()
    arguments: dict[str, Any] = {
        "host": parameters["host"],
        "port": proxy.port,
        "user": parameters["user"],
        "database": parameters["dbname"],
        "ssl": False if proxy.started.mode is Mode.TUNNEL else tls_context(proxy),
        "timeout": 15,
    }
    return arguments | changes


def tls_context(proxy: RunningProxy, *, with_certificate: bool = True) -> SSLContext:
    """Trusts what the start message says, and shows the certificate that it names."""
    parameters = proxy.parameters()
    context = create_default_context(cafile=parameters["sslrootcert"])
    if with_certificate:
        context.load_cert_chain(parameters["sslcert"], parameters["sslkey"])
    return context


async def with_asyncpg(
    proxy: RunningProxy, use: Callable[[Any], Awaitable[T]], **changes: Any
) -> T:
    """Connect with asyncpg, use the connection, and close it, in an event loop of its own."""
    arguments = asyncpg_arguments(proxy, **changes)

    async def work() -> T:
        connection = await asyncpg.connect(**arguments)
        try:
            return await use(connection)
        finally:
            await connection.close()

    return await in_thread(asyncio.run, work())


async def until_asleep(postgres: EmbeddedPostgres, application_name: str) -> None:
    """Wait until the session with this name is in `pg_sleep`."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        f" AND application_name = '{application_name}'"
    )
    with trio.fail_after(PATIENCE):
        while (await postgres.execute(query)).strip() != "1":  # noqa: ASYNC110 - no event to await
            await trio.sleep(0.01)


REFUSED_ASYNCPG = """
import asyncio, asyncpg, json, ssl, sys
arguments = json.loads(sys.argv[1])
if files := arguments.pop("tls"):
    arguments["ssl"] = ssl.create_default_context(cafile=files["ca"])
    if files["certificate"]:
        arguments["ssl"].load_cert_chain(files["certificate"], files["key"])
try:
    asyncio.run(asyncpg.connect(**arguments))
except (asyncpg.PostgresError, OSError) as error:
    facts = {name: getattr(error, name, None) for name in ("sqlstate", "hint")}
    print(json.dumps(facts | {"kind": type(error).__name__, "text": str(error)}))
"""
"""A process of its own, because asyncpg leaves the sockets of refused connections open."""


@dataclass(frozen=True)
class AsyncpgError:
    """What asyncpg raised, as far as it is of interest here."""

    kind: str
    text: str
    sqlstate: str | None
    hint: str | None


async def refused_asyncpg(proxy: RunningProxy, **changes: object) -> AsyncpgError:
    """Connect with asyncpg, which must fail; `changes` are to libpq's parameters."""
    parameters = proxy.parameters(**changes)
    arguments: dict[str, object] = {
        "host": parameters["host"],
        "port": proxy.port,
        "user": parameters["user"],
        "database": parameters["dbname"],
        "tls": None,
        "timeout": 15,
    }
    if parameters["sslmode"] == "verify-full":
        arguments["tls"] = {
            "ca": parameters["sslrootcert"],
            "certificate": parameters.get("sslcert"),
            "key": parameters.get("sslkey"),
        }
    else:
        arguments["ssl"] = parameters["sslmode"]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [sys.executable, "-c", REFUSED_ASYNCPG, json.dumps(arguments)],
            env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
            capture_stdout=True,
        )
    return AsyncpgError(**json.loads(done.stdout))


async def refused_psql(psql: Psql, proxy: RunningProxy, **changes: object) -> str:
    """Connect with psql, which must fail, and return what it prints."""
    done = await psql.run(proxy, "SELECT 1", **changes)
    assert (done.status, done.out) == (2, "")
    return done.err


async def refused_psycopg(proxy: RunningProxy, **changes: object) -> str:
    """Connect with psycopg, which must fail, and return the text of its exception."""

    def connect() -> str:
        try:
            psycopg_connect(proxy, **changes).close()
        except psycopg.OperationalError as error:
            return str(error)
        raise AssertionError("psycopg could connect")

    return await in_thread(connect)


def pg8000_connect(proxy: RunningProxy, **changes: Any) -> Any:
    """Connect with pg8000; to be called in a worker thread."""
    parameters = proxy.parameters()
    arguments: dict[str, Any] = {
        "host": parameters["host"],
        "port": proxy.port,
        "user": parameters["user"],
        "database": parameters["dbname"],
        "ssl_context": False if proxy.started.mode is Mode.TUNNEL else tls_context(proxy),
        "timeout": 15,
    }
    return pg8000.native.Connection(**(arguments | changes))


async def refused_pg8000(proxy: RunningProxy, **changes: Any) -> dict[str, str]:
    """Connect with pg8000, which must fail, and return the fields of the error in its exception."""

    def connect() -> dict[str, str]:
        try:
            pg8000_connect(proxy, **changes).close()
        except pg8000.exceptions.DatabaseError as error:
            fields: dict[str, str] = error.args[0]
            return fields
        raise AssertionError("pg8000 could connect")

    return await in_thread(connect)
