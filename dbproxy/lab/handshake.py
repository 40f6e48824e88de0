"""What the Proxy stand-in saw of a connection: for assertions and for handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import trio
from cryptography import x509

from dbproxy.lab.subject import SubjectFields
from dbproxy.lab.upgrade_record import Upgrade


@dataclass
class Handshake:
    """Facts about one accepted connection, filled in as they become known.

    Attributes:
        peer: the client's address.
        server_name: SNI host name of the ClientHello.
        alpn_offered: the client's ALPN list in its order.
        alpn: the negotiated value, ``None`` without one or before the handshake has succeeded.
        tls_version: such as ``TLSv1.3``; ``None`` before the handshake has succeeded.
        client_certificate: the outer client certificate, verified; ``None`` if none was shown.
        identity: what that certificate's subject says.
        session_reused: whether the client resumed an earlier TLS session.
        upgrade: the connection upgrade inside of which this connection is, ``None`` for a direct
            one.
        pings: how many pings the client has been sent.
        error: why the connection was refused or broke; ``None`` while all is well.
    """

    peer: str
    server_name: str | None = None
    alpn_offered: tuple[str, ...] = ()
    alpn: str | None = None
    tls_version: str | None = None
    client_certificate: x509.Certificate | None = None
    identity: SubjectFields | None = None
    session_reused: bool = False
    upgrade: Upgrade | None = None
    pings: int = 0
    error: str | None = None

    def count_ping(self) -> None:
        """Notes one more ping."""
        self.pings += 1

    @property
    def tunnel(self) -> bool:
        """Whether the certificate's route, not the ALPN value, decides who serves."""
        return self.identity is not None and bool(self.identity.service)


ConnectionHandler: TypeAlias = Callable[[trio.abc.HalfCloseableStream, Handshake], Awaitable[None]]
"""Serves an established connection instead of the Proxy; it need not close the stream."""
