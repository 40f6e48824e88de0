"""The application of the demo: psycopg, as the guide's samples use it.

psycopg blocks, so each call runs in a worker thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import psycopg
import trio
from psycopg.conninfo import make_conninfo

from dbproxy.lab.demo.script import QUERY
from dbproxy.lab.errors import LabError
from dbproxy.lab.guide import DATABASE, DATABASE_USER

__all__ = ["Client", "ClientRefused", "Parameters", "open_client", "refusal"]

Parameters: TypeAlias = Mapping[str, str]
"""What psycopg connects with: host, port, sslmode, …"""


class ClientRefused(LabError):
    """psycopg raised an error; the text is what the application's developer sees."""


@dataclass(frozen=True)
class Client:
    """An open connection."""

    connection: psycopg.Connection

    async def rows(self, query: str = QUERY) -> tuple[tuple[object, ...], ...]:
        """Run a query in autocommit mode.

        Raises:
            ClientRefused: It failed.
        """

        def run() -> tuple[tuple[object, ...], ...]:
            return tuple(self.connection.execute(query.encode()).fetchall())

        try:
            return await trio.to_thread.run_sync(run, abandon_on_cancel=True)
        except psycopg.Error as error:
            raise ClientRefused(str(error).strip()) from error


@asynccontextmanager
async def open_client(parameters: Parameters) -> AsyncIterator[Client]:
    """Connect as the demo's user to its database, unless the parameters say otherwise.

    Raises:
        ClientRefused: There is no connection.
    """
    complete = {"user": DATABASE_USER, "dbname": DATABASE, "connect_timeout": "10", **parameters}
    conninfo = make_conninfo("", **complete)

    def connect() -> psycopg.Connection:
        return psycopg.connect(conninfo, autocommit=True)

    try:
        connection = await trio.to_thread.run_sync(connect, abandon_on_cancel=True)
    except psycopg.Error as error:
        raise ClientRefused(str(error).strip()) from error
    try:
        yield Client(connection)
    finally:
        connection.close()


async def refusal(parameters: Parameters, expected: str) -> list[str]:
    """Try to connect, and return what psycopg says to that: the reason, and the hint if any.

    Args:
        parameters: What to connect with.
        expected: What the reason must contain.

    Raises:
        LabError: There is a connection after all, or psycopg says something else.
    """
    try:
        async with open_client(parameters):
            raise LabError("the client was let in")
    except ClientRefused as error:
        lines = str(error).splitlines()
        reasons = [line.rpartition("failed: ")[2].strip() for line in lines if expected in line]
        if not reasons:
            raise LabError(f"expected `{expected}`, and the client says: {error}") from error
        return [*reasons[:1], *(line for line in lines if line.startswith("HINT"))][:2]
