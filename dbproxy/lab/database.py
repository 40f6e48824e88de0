"""The database service: a stand-in for Teleport's database agent.

It finds the resource, checks the roles of the certificate against it, connects to the real database
and carries the bytes, with one audit record per session. Unlike an agent it connects to the
database without TLS and without proving who it is, so the database must trust it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from dbproxy.lab.address import open_address, parse_address, reason_of
from dbproxy.lab.audit import AuditLog, Session
from dbproxy.lab.errors import AccessDenied, LabError
from dbproxy.lab.mysql_login import log_in
from dbproxy.lab.mysqlwire import ERR, Packet, parse_login
from dbproxy.lab.mysqlwire import error as mysql_error
from dbproxy.lab.pgwire import CancelRequest, StartupMessage, error_response
from dbproxy.lab.relay import relay
from dbproxy.lab.roles import Role, check_access
from dbproxy.lab.subject import SubjectFields

DATABASE_USAGE: Final = "usage:db"
MYSQL_ERROR: Final = 1105
"""What MySQL clients of Teleport are told about access that is denied (ER_UNKNOWN_ERROR)."""
CANCEL_TIMEOUT: Final = 10.0
"""Seconds that a database may take to close the connection that carried a cancel request."""


class DatabaseNotFound(LabError):
    """The cluster has no such database resource."""


class DatabaseUnreachable(LabError):
    """The real database does not accept the connection."""


class SessionRefused(LabError):
    """The database service refuses, because it was told to."""


@dataclass(frozen=True)
class DatabaseResource:
    """A database that the cluster offers.

    Attributes:
        name: the service name, such as ``example-server``.
        address: where the real database is: ``HOST:PORT`` or ``unix:///dir/.s.PGSQL.5432``.
        protocol: the database protocol as Teleport names it, such as ``postgres``.
        labels: what roles select it by.
        version: what the Proxy's greeting tells MySQL clients; empty for its own.

    Raises:
        LabError: the address has neither form.
    """

    name: str
    address: str
    protocol: str = "postgres"
    labels: Mapping[str, str] = field(default_factory=dict)
    version: str = ""

    def __post_init__(self) -> None:
        parse_address(self.address)


class DatabaseService:
    """Serves the sessions of all databases of the cluster.

    Args:
        cluster: the cluster's name, for messages.
        resources: the databases.
        roles: the cluster's roles by name; read at every session, so later changes count.
        audit: where sessions are recorded.

    Attributes:
        refusal: what PostgreSQL's and MySQL's sessions are refused with; ``None``: nothing.
    """

    def __init__(
        self,
        cluster: str,
        resources: Sequence[DatabaseResource],
        roles: Mapping[str, Role],
        audit: AuditLog,
    ) -> None:
        self._cluster = cluster
        self._resources = {resource.name: resource for resource in resources}
        self._roles = roles
        self._audit = audit
        self.refusal: str | None = None

    def find(self, service: str) -> DatabaseResource:
        """Returns the resource named ``service``.

        Raises:
            DatabaseNotFound: there is none.
        """
        try:
            return self._resources[service]
        except KeyError as error:
            raise DatabaseNotFound(
                f'database "{service}" not found among registered databases '
                f'in cluster "{self._cluster}"'
            ) from error

    async def serve_postgres(
        self,
        client: trio.abc.HalfCloseableStream,
        identity: SubjectFields,
        startup: StartupMessage,
        rest: bytes,
    ) -> None:
        """Serves one PostgreSQL session; the caller closes ``client``.

        A refusal is an ErrorResponse with a message only, as Teleport's agent sends it.

        Args:
            client: plaintext stream to the client, after the startup message.
            identity: from the client's certificate.
            startup: the startup message; empty user and database come from the certificate.
            rest: bytes that the client sent after the startup message.
        """
        startup = _complete(startup, identity)
        session = _session(identity, "postgres", user=startup.user, name=startup.database)
        try:
            self._check_refusal()
            resource = self.find(identity.service)
            self._authorize(identity, resource, user=startup.user, name=startup.database)
            server = await _connect(resource)
        except LabError as error:
            session.error = str(error)
            self._audit.denied(session)
            await client.send_all(error_response(str(error)))
            return
        await self._carry(client, server, session, startup.encode() + rest)

    async def serve_mysql(
        self,
        client: trio.abc.HalfCloseableStream,
        identity: SubjectFields,
        response: Packet,
        rest: bytes,
    ) -> None:
        """Serves one MySQL session; the caller closes ``client``.

        Args:
            client: plaintext stream to the client, which waits for OK or ERR.
            identity: from the client's certificate.
            response: the client's login; empty user and database come from the certificate.
            rest: bytes that the client sent behind it.

        Raises:
            MySQLWireError: the login is none.
        """
        login = parse_login(response.payload)
        login = login.completed(user=identity.db_user, database=identity.db_name)
        session = _session(identity, "mysql", user=login.user, name=login.database)
        number = response.number + 1
        try:
            self._check_refusal()
            resource = self.find(identity.service)
            self._authorize(identity, resource, user=login.user, name=login.database)
            server = await _connect(resource)
        except LabError as error:
            session.error = str(error)
            self._audit.denied(session)
            await client.send_all(mysql_error(number, MYSQL_ERROR, str(error)).encode())
            return
        async with server:
            answer = await log_in(server, login)
            await client.send_all(Packet(number, answer).encode())
            if answer[0] != ERR:
                await self._carry(client, server, session, rest)

    async def serve_raw(
        self,
        client: trio.abc.HalfCloseableStream,
        identity: SubjectFields,
        first: bytes = b"",
    ) -> None:
        """Serves one session of any other protocol, whose bytes it does not understand.

        User and database name are the certificate's. The roles are asked only when it has both,
        since some protocols know no user and some no database name.

        Args:
            client: plaintext stream to the client.
            identity: from the client's certificate.
            first: bytes that the client has sent already.

        Raises:
            LabError: the session is refused or the database unreachable; nothing has been sent.
        """
        session = _session(
            identity, identity.protocol, user=identity.db_user, name=identity.db_name
        )
        try:
            resource = self.find(identity.service)
            if identity.db_user and identity.db_name:
                self._authorize(identity, resource, user=identity.db_user, name=identity.db_name)
            server = await _connect(resource)
        except LabError as error:
            session.error = str(error)
            self._audit.denied(session)
            raise
        await self._carry(client, server, session, first)

    async def cancel(self, identity: SubjectFields, request: CancelRequest) -> None:
        """Forwards a cancel request and waits until the database has taken it.

        Raises:
            LabError: the database does not exist, or is unreachable.
        """
        async with await _connect(self.find(identity.service)) as server:
            await server.send_all(request.raw)
            with trio.move_on_after(CANCEL_TIMEOUT):
                await server.receive_some(1)

    def _check_refusal(self) -> None:
        if self.refusal is not None:
            raise SessionRefused(self.refusal)

    def _authorize(
        self, identity: SubjectFields, resource: DatabaseResource, *, user: str, name: str
    ) -> None:
        check_access(self._roles_of(identity), labels=resource.labels, user=user, name=name)

    def _roles_of(self, identity: SubjectFields) -> list[Role]:
        try:
            return [self._roles[name] for name in identity.roles]
        except KeyError as error:
            raise AccessDenied(f"role {error.args[0]} is not found") from error

    async def _carry(
        self,
        client: trio.abc.HalfCloseableStream,
        server: trio.SocketStream,
        session: Session,
        first: bytes,
    ) -> None:
        async with server:
            with self._audit.session(session):
                if first:
                    await server.send_all(first)
                    session.add_from_client(len(first))
                await relay(
                    client,
                    server,
                    count_from_client=session.add_from_client,
                    count_to_client=session.add_to_client,
                )


def _complete(startup: StartupMessage, identity: SubjectFields) -> StartupMessage:
    """Fills in what the client left out; PostgreSQL's own default database is the user's name."""
    user = startup.user or identity.db_user
    name = startup.database or identity.db_name or user
    return StartupMessage(startup.version, {**startup.parameters, "user": user, "database": name})


def _session(identity: SubjectFields, protocol: str, *, user: str, name: str) -> Session:
    return Session(
        user=identity.user,
        service=identity.service,
        database=name,
        db_user=user,
        protocol=protocol,
    )


async def _connect(resource: DatabaseResource) -> trio.SocketStream:
    try:
        return await open_address(resource.address)
    except OSError as error:
        raise DatabaseUnreachable(
            f'database "{resource.name}" at {resource.address} cannot be reached: '
            f"{reason_of(error)}"
        ) from error
