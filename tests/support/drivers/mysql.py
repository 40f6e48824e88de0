"""Clients of MySQL and MariaDB."""

import asyncio
import shlex
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import asyncmy
import asyncmy.errors
import mysql.connector
import pymysql

from drivers.base import (
    TIMEOUT,
    Driver,
    Endpoint,
    ProgramFailed,
    Session,
    run_program,
)

GREETING = "SELECT words FROM greetings WHERE id = 1"
LARGE = "SELECT words FROM large_lines ORDER BY id"


@dataclass(frozen=True)
class MariadbSession(Session):
    words: Sequence[str]

    def greeting(self) -> str:
        return self.ask(GREETING)

    def large(self) -> str:
        return self.ask(LARGE)

    def ask(self, sql: str) -> str:
        return run_program([*self.words, "-N", "-B", "-e", sql]).removesuffix("\n")


class Mariadb(Driver):
    """The program, as the start message has its line."""

    name = "mariadb"
    protocol = "mysql"
    errors = (ProgramFailed,)
    is_program = True

    @cached_property
    def version(self) -> str:
        return run_program(["mariadb", "--version"]).partition("Distrib ")[2].partition(",")[0]

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[Session]:
        files = {"ca": endpoint.ca_file, "cert": endpoint.certificate_file}
        files["key"] = endpoint.key_file
        _, *words = shlex.split(endpoint.command)
        words = [word for word in words if not word.startswith(("--ssl-cert=", "--ssl-key="))]
        session = MariadbSession(
            [
                *("mariadb", "--no-defaults", *words),
                *(f"--ssl-{name}={file}" for name, file in files.items() if file is not None),
            ]
        )
        session.ask("SELECT 1")
        yield session


@dataclass(frozen=True)
class DBAPISession(Session):
    """A connection of a blocking driver."""

    connection: Any

    def greeting(self) -> str:
        return self.ask(GREETING)

    def large(self) -> str:
        return self.ask(LARGE)

    def ask(self, sql: str) -> str:
        with closing(self.connection.cursor()) as cursor:
            cursor.execute(sql)
            return "\n".join(row[0] for row in cursor.fetchall())


class PyMySQL(Driver):
    name = "PyMySQL"
    protocol = "mysql"
    errors = (pymysql.err.MySQLError,)

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[Session]:
        connection = pymysql.connect(
            host="localhost",
            port=endpoint.port,
            user=endpoint.user,
            database=endpoint.database,
            ssl=endpoint.context(),
            connect_timeout=TIMEOUT,
            read_timeout=TIMEOUT,
        )
        try:
            yield DBAPISession(connection)
        finally:
            if connection.open:
                connection.close()


class MySQLConnector(Driver):
    name = "mysql-connector-python"
    protocol = "mysql"
    errors = (mysql.connector.Error,)
    note = (
        "The pure Python implementation. With a MariaDB behind Teleport it needs"
        ' `collation="utf8mb4_general_ci"`, because Teleport tells clients a version of MySQL.'
    )

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[Session]:
        files: dict[str, Any] = {"ssl_disabled": True}
        if endpoint.has_tls:
            files = {"ssl_ca": str(endpoint.ca_file), "ssl_verify_identity": True}
        if endpoint.certificate_file is not None:
            files["ssl_cert"] = str(endpoint.certificate_file)
            files["ssl_key"] = str(endpoint.key_file)
        connection = mysql.connector.connect(
            host="localhost",
            port=endpoint.port,
            user=endpoint.user,
            database=endpoint.database,
            use_pure=True,
            collation="utf8mb4_general_ci",
            connection_timeout=TIMEOUT,
            **files,
        )
        with closing(connection):
            yield DBAPISession(connection)


@dataclass(frozen=True)
class AsyncmySession(Session):
    connection: Any
    runner: asyncio.Runner

    def greeting(self) -> str:
        return self.ask(GREETING)

    def large(self) -> str:
        return self.ask(LARGE)

    def ask(self, sql: str) -> str:
        return self.runner.run(self._ask(sql))

    async def _ask(self, sql: str) -> str:
        async with self.connection.cursor() as cursor:
            await cursor.execute(sql)
            return "\n".join(row[0] for row in await cursor.fetchall())


class Asyncmy(Driver):
    name = "asyncmy"
    protocol = "mysql"
    errors = (asyncmy.errors.MySQLError,)
    leaves_sockets = True

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[Session]:
        with asyncio.Runner() as runner:
            connection = runner.run(self._connect(endpoint))
            yield AsyncmySession(connection, runner)
            runner.run(connection.ensure_closed())

    async def _connect(self, endpoint: Endpoint) -> Any:
        return await asyncmy.connect(
            host="localhost",
            port=endpoint.port,
            user=endpoint.user,
            db=endpoint.database,
            ssl=endpoint.context(),
            connect_timeout=TIMEOUT,
        )
