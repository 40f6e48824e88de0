"""Real MySQL clients: PyMySQL and the `mariadb` program."""

import shlex
import ssl
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pymysql
import trio
from database_clients import Outcome, in_thread
from running_proxy import PATIENCE, RunningProxy

from dbproxy import Mode

T = TypeVar("T")


@dataclass(frozen=True)
class ClientFiles:
    """What a TLS client uses; by default what the start message names."""

    ca: Path | None
    certificate: Path | None
    key: Path | None


def client_context(proxy: RunningProxy, *, certificate: bool = True) -> ssl.SSLContext:
    """A context that verifies the server and shows the certificate that was announced."""
    started = proxy.started
    assert started.ca_file is not None
    context = ssl.create_default_context(cafile=str(started.ca_file))
    if certificate:
        assert started.certificate_file is not None
        context.load_cert_chain(started.certificate_file, started.key_file)
    return context


def pymysql_connect(
    proxy: RunningProxy, *, certificate: bool = True, **changes: Any
) -> "pymysql.Connection[Any]":
    """Connect with PyMySQL; to be called in a worker thread."""
    parameters: dict[str, Any] = {
        "host": "localhost",
        "port": proxy.port,
        "user": proxy.started.database_user,
        "database": proxy.started.database_name,
        "connect_timeout": 15,
        "read_timeout": 15,
        "autocommit": True,
    }
    if proxy.started.mode is not Mode.TUNNEL:
        parameters["ssl"] = client_context(proxy, certificate=certificate)
    return pymysql.connect(**(parameters | changes))


async def with_pymysql(
    proxy: RunningProxy, use: "Callable[[pymysql.Connection[Any]], T]", **changes: Any
) -> T:
    """Connect with PyMySQL, use the connection, and close it, all in a worker thread."""

    def work() -> T:
        connection = pymysql_connect(proxy, **changes)
        try:
            return use(connection)
        finally:
            connection.close()

    return await in_thread(work)


def query(sql: str) -> "Callable[[pymysql.Connection[Any]], Any]":
    """What runs a query and returns its rows."""

    def run(connection: "pymysql.Connection[Any]") -> Any:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    return run


async def run_mariadb(proxy: RunningProxy, sql: str, *, command: Sequence[str] = ()) -> Outcome:
    """Run SQL with the `mariadb` client, by default as the line of the start message has it."""
    _, *words = command or shlex.split(proxy.started.connect_command)
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            ["mariadb", "--no-defaults", *words, "-N", "-B", "-e", sql],
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())
