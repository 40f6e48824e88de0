"""PostgreSQL's clients, which are CockroachDB's too."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import asyncpg
import pg8000.dbapi
import psycopg
from psycopg.conninfo import make_conninfo

from drivers.base import (
    TIMEOUT,
    Driver,
    Endpoint,
    ProgramFailed,
    Session,
    first_version,
    run_program,
)

GREETING = "SELECT words FROM greetings WHERE id = 1"
LARGE = "SELECT words FROM large_lines ORDER BY id"


def conninfo(endpoint: Endpoint) -> str:
    """What libpq needs."""
    files: dict[str, str] = {}
    if endpoint.has_tls:
        files = {
            "sslrootcert": str(endpoint.ca_file),
            "sslcert": str(endpoint.certificate_file or "/nonexistent"),
            "sslkey": str(endpoint.key_file or "/nonexistent"),
        }
    return make_conninfo(
        "",
        host="localhost",
        port=endpoint.port,
        user=endpoint.user,
        dbname=endpoint.database,
        sslmode="verify-full" if endpoint.has_tls else "disable",
        connect_timeout=TIMEOUT,
        **files,
    )


@dataclass(frozen=True)
class PsqlSession(Session):
    conninfo: str

    def greeting(self) -> str:
        return self.ask(GREETING)

    def large(self) -> str:
        return self.ask(LARGE)

    def ask(self, sql: str) -> str:
        words = ["psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", self.conninfo, "-c", sql]
        return run_program(words).removesuffix("\n")


class Psql(Driver):
    name = "psql"
    protocol = "postgres"
    errors = (ProgramFailed,)
    is_program = True

    @cached_property
    def version(self) -> str:
        return first_version(run_program(["psql", "--version"]))

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[Session]:
        session = PsqlSession(conninfo(endpoint))
        session.ask("SELECT 1")
        yield session


@dataclass(frozen=True)
class PsycopgSession(Session):
    connection: psycopg.Connection

    def greeting(self) -> str:
        return self.ask(GREETING)

    def large(self) -> str:
        return self.ask(LARGE)

    def ask(self, sql: str) -> str:
        return "\n".join(row[0] for row in self.connection.execute(sql))


class Psycopg(Driver):
    name = "psycopg"
    protocol = "postgres"
    errors = (psycopg.OperationalError,)

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[Session]:
        with closing(psycopg.connect(conninfo(endpoint), autocommit=True)) as connection:
            yield PsycopgSession(connection)


@dataclass(frozen=True)
class AsyncpgSession(Session):
    connection: Any
    runner: asyncio.Runner

    def greeting(self) -> str:
        return self.ask(GREETING)

    def large(self) -> str:
        return self.ask(LARGE)

    def ask(self, sql: str) -> str:
        rows = self.runner.run(self.connection.fetch(sql, timeout=TIMEOUT))
        return "\n".join(row["words"] for row in rows)


class Asyncpg(Driver):
    name = "asyncpg"
    protocol = "postgres"
    errors = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
    leaves_sockets = True

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[Session]:
        with asyncio.Runner() as runner:
            connection = runner.run(self._connect(endpoint))
            yield AsyncpgSession(connection, runner)
            runner.run(connection.close(timeout=TIMEOUT))

    async def _connect(self, endpoint: Endpoint) -> Any:
        return await asyncpg.connect(
            host="localhost",
            port=endpoint.port,
            user=endpoint.user,
            database=endpoint.database,
            ssl=endpoint.context() or False,
            timeout=TIMEOUT,
        )


@dataclass(frozen=True)
class Pg8000Session(Session):
    connection: Any

    def greeting(self) -> str:
        return self.ask(GREETING)

    def large(self) -> str:
        return self.ask(LARGE)

    def ask(self, sql: str) -> str:
        cursor = self.connection.cursor()
        cursor.execute(sql)
        return "\n".join(row[0] for row in cursor.fetchall())


class Pg8000(Driver):
    name = "pg8000"
    leaves_sockets = True
    protocol = "postgres"
    errors = (pg8000.dbapi.Error, OSError)

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[Session]:
        connection = pg8000.dbapi.connect(
            host="localhost",
            port=endpoint.port,
            user=endpoint.user,
            database=endpoint.database,
            ssl_context=endpoint.context() or False,
            timeout=TIMEOUT,
        )
        try:
            yield Pg8000Session(connection)
        finally:
            with suppress(pg8000.dbapi.InterfaceError):  # of a connection that has ended
                connection.close()


class CockroachPsql(Psql):
    protocol = "cockroachdb"


class CockroachPsycopg(Psycopg):
    protocol = "cockroachdb"
