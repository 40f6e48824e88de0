"""The Proxy: a stand-in for Teleport's TLS-routing listener (lib/srv/alpnproxy/proxy.go).

A connection is routed twice. The ClientHello's ALPN list picks a handler, or nobody, before any
answer. After the outer handshake, a verified client certificate with a database route overrides
that choice ("tunnel"); without one the handler asks for a certificate inside ("non-tunnel"). A
connection to the web server may be upgraded; inside of it, all of this begins again. With TLS
routing off, PostgreSQL is told apart by its first byte, as Teleport's multiplexer does.

Two things differ from a real Proxy. It verifies with OpenSSL, whose alerts are Go's for expired
certificates, unknown authorities and missing certificates, but not for certificates that are not
yet valid (`bad_certificate` for `certificate_expired`) or self-signed (`bad_certificate` for
`unknown_ca`). And it lingers a moment on close, see ``LingeringStream``.
"""

from __future__ import annotations

import logging
import ssl
from collections import deque
from typing import Final

import trio

from dbproxy.lab import alpn
from dbproxy.lab.admission import Admission, ConnectionRefused
from dbproxy.lab.alerts import Alert, plaintext_alert
from dbproxy.lab.client_hello import ClientHello
from dbproxy.lab.contexts import ContextSource
from dbproxy.lab.database import DatabaseService
from dbproxy.lab.errors import LabError
from dbproxy.lab.faults import Injector, Step
from dbproxy.lab.faulty_stream import FaultyStream, MeteredStream
from dbproxy.lab.gatekeeper import Gatekeeper
from dbproxy.lab.handshake import Handshake
from dbproxy.lab.hello import read_client_hello
from dbproxy.lab.identity import certificate_of, identity_of
from dbproxy.lab.mysql_handler import MySQLHandler
from dbproxy.lab.postgres_handler import PostgresHandler
from dbproxy.lab.proxy_options import ProxyOptions
from dbproxy.lab.sqlserver_handler import agree_on_no_encryption
from dbproxy.lab.streams import READ_SIZE, LingeringStream, PingStream, PrefixedStream
from dbproxy.lab.subject import SubjectFields
from dbproxy.lab.tls import TLSServerStream
from dbproxy.lab.upgrade import UpgradeEndpoint
from dbproxy.lab.upgrade_record import Upgrade
from dbproxy.lab.web import WebServer

MAX_HANDSHAKES: Final = 1000
"""How many connections are remembered."""
POSTGRES_FAMILY: Final = ("postgres", "cockroachdb")
POSTGRES_START: Final = b"\0"
"""First byte of a PostgreSQL packet's length, and never of a TLS record."""

log = logging.getLogger(__name__)


class Proxy:
    """Serves the connections of one listener.

    Args:
        contexts: the TLS contexts.
        gatekeeper: rejects client certificates.
        database: where database sessions go.
        web: where web requests go.
        options: how to behave.

    Attributes:
        handshakes: facts about the latest connections, oldest first; one inside of an upgraded
            connection comes after the one that carries it.
        connections: how many connections are open now.
        admission: who is let in.
        injector: what goes wrong; for upgraded connections, ``upgrades`` has another one.
        upgrades: the upgrade endpoint.
    """

    def __init__(
        self,
        contexts: ContextSource,
        gatekeeper: Gatekeeper,
        database: DatabaseService,
        web: WebServer,
        options: ProxyOptions,
    ) -> None:
        self._contexts = contexts
        self._gatekeeper = gatekeeper
        self._database = database
        self._web = web
        self._options = options
        self._alpn = supported_alpn(options)
        self._postgres = PostgresHandler(
            database,
            lambda: contexts.current().postgres,
            options.handshake_timeout,
            gatekeeper.last_word,
        )
        self._mysql = MySQLHandler(
            database,
            lambda: contexts.current().postgres,
            options.handshake_timeout,
            gatekeeper.last_word,
        )
        self.handshakes: deque[Handshake] = deque(maxlen=MAX_HANDSHAKES)
        self.connections = 0
        self.admission = Admission(options.variant.max_connections)
        self.injector = Injector(options.faults)
        self.upgrades = UpgradeEndpoint(options.upgrade, self._serve_upgraded)

    async def serve(self, connection: trio.SocketStream) -> None:
        """Serves one accepted connection to its end and closes it.

        Whatever the client or the network can cause ends here; the reason goes to ``handshakes``.
        """
        facts = Handshake(peer=_peer_of(connection))
        self.handshakes.append(facts)
        self.connections += 1
        try:
            below = LingeringStream(connection)
            async with FaultyStream(below, connection, self.injector) as transport:
                await self._serve_noting_errors(transport, facts)
        finally:
            self.connections -= 1

    async def serve_postgres(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Serves a client of a listener for PostgreSQL alone; does not close the stream.

        Raises:
            LabError: the client was refused, or its TLS handshake failed.
        """
        await self._postgres.serve_tls(stream)

    async def _serve_upgraded(
        self, inside: trio.abc.HalfCloseableStream, connection: trio.SocketStream, record: Upgrade
    ) -> None:
        """Serves the connection inside of an upgraded one."""
        facts = Handshake(peer=record.peer, upgrade=record)
        self.handshakes.append(facts)
        async with FaultyStream(inside, connection, self.upgrades.injector) as transport:
            await self._serve_noting_errors(transport, facts)

    async def _serve_noting_errors(self, transport: FaultyStream, facts: Handshake) -> None:
        try:
            await self._serve(transport, facts)
        except* (LabError, trio.BrokenResourceError, trio.ClosedResourceError) as group:
            facts.error = _first_text(group)
        except* trio.TooSlowError:
            facts.error = "the client took too long"
        log.debug("connection from %s ended: %s", facts.peer, facts.error or "done")

    async def _serve(self, transport: FaultyStream, facts: Handshake) -> None:
        await transport.reach(Step.ACCEPT)
        with trio.fail_after(self._options.handshake_timeout):
            first = await transport.receive_some(READ_SIZE)
        if self._is_postgres(first, facts):
            await self.serve_postgres(PrefixedStream(transport, first))
            return
        with trio.fail_after(self._options.handshake_timeout):
            hello, received = await read_client_hello(transport, first)
        facts.server_name, facts.alpn_offered = hello.server_name, hello.alpn
        await transport.reach(Step.CLIENT_HELLO)
        handler = await self._choose_handler(transport, hello)
        stream = TLSServerStream(
            transport,
            self._outer_context(facts),
            prefix=received,
            last_word=self._gatekeeper.last_word,
        )
        transport.cut_next_send(Step.MID_HANDSHAKE)
        with trio.fail_after(self._options.handshake_timeout):
            await stream.do_handshake()
        _note(facts, stream)
        async with stream:
            await transport.reach(Step.HANDSHAKE)
            await self._serve_established(stream, transport, facts, handler)

    def _is_postgres(self, first: bytes, facts: Handshake) -> bool:
        """Whether a client speaks PostgreSQL: without TLS routing, the web port serves it, too."""
        separate = not self._web.options.tls_routing and facts.upgrade is None
        return separate and first.startswith(POSTGRES_START)

    def _outer_context(self, facts: Handshake) -> ssl.SSLContext:
        contexts = self._contexts.current()
        return contexts.outer if facts.upgrade is None else contexts.upgraded

    async def _choose_handler(self, transport: FaultyStream, hello: ClientHello) -> alpn.Handler:
        handler = alpn.choose_handler(hello.alpn, self._alpn)
        if handler is None:
            raise ConnectionRefused(f"no handler for ALPN {', '.join(hello.alpn) or 'none'}")
        if hello.alpn and alpn.negotiate(hello.alpn, self._alpn) is None:
            await transport.send_all(plaintext_alert(Alert.NO_APPLICATION_PROTOCOL))
            raise ConnectionRefused("no application protocol in common")
        return handler

    async def _serve_established(
        self,
        stream: TLSServerStream,
        transport: FaultyStream,
        facts: Handshake,
        handler: alpn.Handler,
    ) -> None:
        if handler is alpn.Handler.HTTP and not facts.tunnel:
            upgrades = self.upgrades if facts.upgrade is None else None
            await self._web.serve(stream, transport.connection, facts.peer, upgrades)
            return
        with self.admission.slot():
            if not (facts.alpn or "").endswith(alpn.PING_SUFFIX):
                await self._dispatch(MeteredStream(stream, transport), facts, handler)
                return
            ping_stream = PingStream(stream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    ping_stream.send_pings, self._options.ping_interval, facts.count_ping
                )
                await self._dispatch(MeteredStream(ping_stream, transport), facts, handler)
                nursery.cancel_scope.cancel()

    async def _dispatch(
        self, stream: trio.abc.HalfCloseableStream, facts: Handshake, handler: alpn.Handler
    ) -> None:
        if facts.alpn == alpn.REVERSE_TUNNEL:
            return  # a real Proxy speaks SSH here; who only tests for a balancer has gone already
        if self._options.handler is not None:
            await self._options.handler(stream, facts)
        elif facts.identity is not None and facts.tunnel:
            await self._serve_tunnel(stream, facts.identity, facts.peer)
        elif handler is alpn.Handler.POSTGRES:
            await self._postgres.serve_tls(stream)
        elif handler is alpn.Handler.MYSQL:
            await self._mysql.serve_tls(stream, facts.alpn_offered)
        elif handler is alpn.Handler.DATABASE_TLS:
            await self._serve_database_tls(stream)
        else:
            raise ConnectionRefused(f"the lab does not serve {facts.alpn}")

    async def _serve_tunnel(
        self, stream: trio.abc.HalfCloseableStream, identity: SubjectFields, peer: str
    ) -> None:
        """Routes by the certificate; refusals up to here are silent, as in a real Proxy."""
        self.admission.check(identity, peer)
        self._database.find(identity.service)
        if identity.protocol in POSTGRES_FAMILY:
            await self._postgres.serve_tunnel(stream, identity)
        elif identity.protocol == "mysql":
            await self._mysql.serve_tunnel(stream, identity)
        elif identity.protocol == "sqlserver":
            rest = await agree_on_no_encryption(stream)
            await self._database.serve_raw(stream, identity, rest)
        else:
            await self._database.serve_raw(stream, identity)

    async def _serve_database_tls(self, stream: trio.abc.HalfCloseableStream) -> None:
        context = self._contexts.current().database_tls
        tls = TLSServerStream(stream, context, last_word=self._gatekeeper.last_word)
        with trio.fail_after(self._options.handshake_timeout):
            await tls.do_handshake()
        async with tls:
            identity = identity_of(certificate_of(tls))
            if identity is None or not identity.service:
                raise ConnectionRefused("not database connection")
            await self._database.serve_raw(tls, identity)


def supported_alpn(options: ProxyOptions) -> tuple[str, ...]:
    """Returns the Proxy's ALPN values in its order of preference."""
    return alpn.supported(
        options.alpn, ping=options.ping, prefer_plain=options.variant.prefer_plain
    )


def _note(facts: Handshake, stream: TLSServerStream) -> None:
    facts.alpn = stream.alpn
    facts.tls_version = stream.version
    facts.session_reused = stream.session_reused
    facts.client_certificate = certificate_of(stream)
    facts.identity = identity_of(facts.client_certificate)


def _peer_of(connection: trio.SocketStream) -> str:
    try:
        return str(connection.socket.getpeername()[0])
    except OSError:
        return "unknown"  # the client has gone already


def _first_text(group: BaseExceptionGroup[BaseException]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
