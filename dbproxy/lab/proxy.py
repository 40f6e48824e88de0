"""The Proxy: a stand-in for Teleport's TLS-routing listener (lib/srv/alpnproxy/proxy.go).

A connection is routed twice. The ClientHello's ALPN list picks a handler, or nobody, before any
answer. After the outer handshake, a verified client certificate with a database route overrides
that choice ("tunnel"); without one the handler asks for a certificate inside ("non-tunnel").

Two things differ from a real Proxy. It verifies with OpenSSL, whose alerts are Go's for expired
certificates, unknown authorities and missing certificates, but not for certificates that are not
yet valid (`bad_certificate` for `certificate_expired`) or self-signed (`bad_certificate` for
`unknown_ca`). And it lingers a moment on close, see ``LingeringStream``.
"""

from __future__ import annotations

import logging
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from dbproxy.lab import alpn
from dbproxy.lab.authority import KeyPair
from dbproxy.lab.client_hello import ClientHello, ClientHelloError, ClientHelloReader
from dbproxy.lab.contexts import ContextSource
from dbproxy.lab.database import DATABASE_USAGE, DatabaseService
from dbproxy.lab.errors import LabError
from dbproxy.lab.handshake import ConnectionHandler, Handshake
from dbproxy.lab.identity import certificate_of, identity_of
from dbproxy.lab.postgres_handler import PostgresHandler
from dbproxy.lab.streams import READ_SIZE, LingeringStream, PingStream, TLSServerStream
from dbproxy.lab.subject import SubjectFields
from dbproxy.lab.web import serve_not_found

HANDSHAKE_TIMEOUT: Final = 15.0
"""Seconds for the ClientHello, and again for each handshake (`HandshakeReadDeadline`)."""
PING_INTERVAL: Final = 30.0
"""Seconds between pings (`ProxyPingInterval`)."""
MAX_HANDSHAKES: Final = 1000
"""How many connections are remembered."""
POSTGRES_FAMILY: Final = ("postgres", "cockroachdb")
ALERT_NO_APPLICATION_PROTOCOL: Final = bytes((21, 3, 3, 0, 2, 2, 120))
"""A whole TLS record: fatal alert, RFC 7301 §3.2."""

log = logging.getLogger(__name__)


class ConnectionRefused(LabError):
    """The Proxy does not serve this connection and closes it without a word."""


@dataclass(frozen=True, kw_only=True)
class ProxyOptions:
    """How the Proxy behaves.

    Attributes:
        ping: whether ``-ping`` ALPN values are supported (Teleport 10 and later).
        ping_interval: seconds between the pings that it sends.
        alpn: supported ALPN values in order of preference; ``None`` means all.
        handler: serves every established connection instead of the Proxy's own handlers.
        handshake_timeout: seconds for the ClientHello, and again for each handshake.
        web_certificate: shown on outer connections instead of one of the web CA.
        web_from_host_ca: whether outer connections show the host certificate.
        minimum_tls_version: oldest TLS version of outer connections.
        maximum_tls_version: newest TLS version of outer connections.
    """

    ping: bool = True
    ping_interval: float = PING_INTERVAL
    alpn: Sequence[str] | None = None
    handler: ConnectionHandler | None = None
    handshake_timeout: float = HANDSHAKE_TIMEOUT
    web_certificate: KeyPair | None = None
    web_from_host_ca: bool = False
    minimum_tls_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    maximum_tls_version: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED


class Proxy:
    """Serves the connections of one listener.

    Args:
        contexts: the TLS contexts.
        database: where database sessions go.
        options: how to behave.

    Attributes:
        handshakes: facts about the latest connections, oldest first.
        connections: how many connections are open now.
    """

    def __init__(
        self, contexts: ContextSource, database: DatabaseService, options: ProxyOptions
    ) -> None:
        self._contexts = contexts
        self._database = database
        self._options = options
        self._alpn = alpn.supported(options.alpn, ping=options.ping)
        self._postgres = PostgresHandler(
            database, lambda: contexts.current().postgres, options.handshake_timeout
        )
        self.handshakes: deque[Handshake] = deque(maxlen=MAX_HANDSHAKES)
        self.connections = 0

    async def serve(self, connection: trio.SocketStream) -> None:
        """Serves one accepted connection to its end and closes it.

        Whatever the client or the network can cause ends here; the reason goes to ``handshakes``.
        """
        facts = Handshake(peer=_peer_of(connection))
        self.handshakes.append(facts)
        self.connections += 1
        try:
            async with LingeringStream(connection) as transport:
                await self._serve_noting_errors(transport, facts)
        finally:
            self.connections -= 1

    async def _serve_noting_errors(self, transport: LingeringStream, facts: Handshake) -> None:
        try:
            await self._serve(transport, facts)
        except* (LabError, trio.BrokenResourceError, trio.ClosedResourceError) as group:
            facts.error = _first_text(group)
        except* trio.TooSlowError:
            facts.error = "the client took too long"
        log.debug("connection from %s ended: %s", facts.peer, facts.error or "done")

    async def _serve(self, transport: LingeringStream, facts: Handshake) -> None:
        with trio.fail_after(self._options.handshake_timeout):
            hello, received = await _read_client_hello(transport)
        facts.server_name, facts.alpn_offered = hello.server_name, hello.alpn
        handler = await self._choose_handler(transport, hello)
        stream = TLSServerStream(transport, self._contexts.current().outer, prefix=received)
        with trio.fail_after(self._options.handshake_timeout):
            await stream.do_handshake()
        _note(facts, stream)
        async with stream:
            await self._serve_established(stream, facts, handler)

    async def _choose_handler(self, transport: LingeringStream, hello: ClientHello) -> alpn.Handler:
        handler = alpn.choose_handler(hello.alpn, self._alpn)
        if handler is None:
            raise ConnectionRefused(f"no handler for ALPN {', '.join(hello.alpn) or 'none'}")
        if hello.alpn and alpn.negotiate(hello.alpn, self._alpn) is None:
            await transport.send_all(ALERT_NO_APPLICATION_PROTOCOL)
            raise ConnectionRefused("no application protocol in common")
        return handler

    async def _serve_established(
        self, stream: TLSServerStream, facts: Handshake, handler: alpn.Handler
    ) -> None:
        if not (facts.alpn or "").endswith(alpn.PING_SUFFIX):
            await self._dispatch(stream, facts, handler)
            return
        ping_stream = PingStream(stream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping_stream.send_pings, self._options.ping_interval)
            await self._dispatch(ping_stream, facts, handler)
            nursery.cancel_scope.cancel()

    async def _dispatch(
        self, stream: trio.abc.HalfCloseableStream, facts: Handshake, handler: alpn.Handler
    ) -> None:
        if self._options.handler is not None:
            await self._options.handler(stream, facts)
        elif facts.identity is not None and facts.tunnel:
            await self._serve_tunnel(stream, facts.identity, facts.peer)
        elif handler is alpn.Handler.POSTGRES:
            await self._postgres.serve_tls(stream)
        elif handler is alpn.Handler.DATABASE_TLS:
            await self._serve_database_tls(stream)
        elif handler is alpn.Handler.HTTP:
            await serve_not_found(stream)
        else:
            raise ConnectionRefused(f"the lab does not serve {facts.alpn}")

    async def _serve_tunnel(
        self, stream: trio.abc.HalfCloseableStream, identity: SubjectFields, peer: str
    ) -> None:
        """Routes by the certificate; refusals up to here are silent, as in a real Proxy."""
        _check_restrictions(identity, peer)
        self._database.find(identity.service)
        if identity.protocol in POSTGRES_FAMILY:
            await self._postgres.serve_tunnel(stream, identity)
        else:
            await self._database.serve_raw(stream, identity)

    async def _serve_database_tls(self, stream: trio.abc.HalfCloseableStream) -> None:
        tls = TLSServerStream(stream, self._contexts.current().database_tls)
        with trio.fail_after(self._options.handshake_timeout):
            await tls.do_handshake()
        async with tls:
            identity = identity_of(certificate_of(tls))
            if identity is None or not identity.service:
                raise ConnectionRefused("not database connection")
            await self._database.serve_raw(tls, identity)


async def _read_client_hello(transport: trio.abc.ReceiveStream) -> tuple[ClientHello, bytes]:
    reader = ClientHelloReader()
    hello = None
    while hello is None:
        data = await transport.receive_some(READ_SIZE)
        if not data:
            raise ClientHelloError("the connection ended before the ClientHello was complete")
        hello = reader.feed(data)
    return hello, reader.received


def _note(facts: Handshake, stream: TLSServerStream) -> None:
    facts.alpn = stream.alpn
    facts.tls_version = stream.version
    facts.session_reused = stream.session_reused
    facts.client_certificate = certificate_of(stream)
    facts.identity = identity_of(facts.client_certificate)


def _check_restrictions(identity: SubjectFields, peer: str) -> None:
    """Usage (lib/auth, `usage:db`) and IP pinning of the certificate."""
    if identity.usage and DATABASE_USAGE not in identity.usage:
        raise ConnectionRefused("the certificate is not for database use")
    if identity.pinned_ip and identity.pinned_ip != peer:
        raise ConnectionRefused(f"the certificate is pinned to {identity.pinned_ip}")


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
