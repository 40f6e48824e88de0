"""SQL Server's drivers, against a stand-in for the server."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest.mock import patch

import pytds
from OpenSSL import SSL

from drivers.base import (
    GREETING,
    LARGE,
    TIMEOUT,
    Driver,
    Endpoint,
    ProgramFailed,
    Session,
    first_version,
    run_program,
)


@dataclass(frozen=True)
class DBAPISession(Session):
    connection: Any

    def greeting(self) -> str:
        return self.ask(GREETING)

    def large(self) -> str:
        return self.ask(LARGE)

    def ask(self, sql: str) -> str:
        with closing(self.connection.cursor()) as cursor:
            cursor.execute(sql)
            return str(cursor.fetchone()[0])


def context_maker(endpoint: Endpoint) -> Callable[[str], SSL.Context]:
    """What makes python-tds's context: it has no option for a client certificate."""

    def create_context(ca_file: str) -> SSL.Context:
        context = SSL.Context(SSL.TLS_METHOD)
        context.load_verify_locations(ca_file)
        context.set_verify(SSL.VERIFY_PEER)
        if endpoint.certificate_file is not None:
            context.use_certificate_file(str(endpoint.certificate_file))
            context.use_privatekey_file(str(endpoint.key_file))
        return context

    return create_context


class PythonTds(Driver):
    name = "python-tds"
    protocol = "sqlserver"
    errors = (pytds.Error, OSError)
    note = (
        "It has no option for a client certificate; an application must replace"
        " `pytds.tls.create_context`, as these tests do."
    )

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[Session]:
        with patch("pytds.tls.create_context", context_maker(endpoint)):
            connection = pytds.connect(
                "localhost",
                port=endpoint.port,
                user=endpoint.user,
                password="",
                database=endpoint.database,
                autocommit=True,
                login_timeout=TIMEOUT,
                timeout=TIMEOUT,
                cafile=str(endpoint.ca_file) if endpoint.ca_file else None,
                validate_host=False,  # it looks for the name in a way of its own
            )
        with closing(connection):
            yield DBAPISession(connection)


@dataclass(frozen=True)
class TsqlSession(Session):
    endpoint: Endpoint

    def greeting(self) -> str:
        return self.ask(GREETING)

    def large(self) -> str:
        return self.ask(LARGE)

    def ask(self, sql: str) -> str:
        words = [
            *("tsql", "-o", "fhq", "-H", "localhost", "-p", str(self.endpoint.port)),
            *("-U", self.endpoint.user, "-P", "", "-D", self.endpoint.database),
        ]
        return run_program(words, script=f"{sql}\ngo\n").strip("\n")


class Tsql(Driver):
    """FreeTDS, on which other drivers are built."""

    name = "tsql"
    protocol = "sqlserver"
    errors = (ProgramFailed,)
    is_program = True
    without_certificates = True
    note = "FreeTDS has no option for a client certificate, so it is for `--tunnel`."

    @cached_property
    def version(self) -> str:
        return first_version(run_program(["tsql", "-C"]).partition("Version:")[2])

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[Session]:
        session = TsqlSession(endpoint)
        session.ask("SELECT 1")
        yield session
