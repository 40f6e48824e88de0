"""How the Proxy behaves."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from dbproxy.lab.authority import KeyPair
from dbproxy.lab.faults import NO_FAULTS, FaultPlan
from dbproxy.lab.handshake import ConnectionHandler
from dbproxy.lab.upgrade import UpgradeOptions
from dbproxy.lab.webapi import WebOptions

HANDSHAKE_TIMEOUT: Final = 15.0
"""Seconds for the ClientHello, and again for each handshake (`HandshakeReadDeadline`)."""
PING_INTERVAL: Final = 30.0
"""Seconds between pings (`ProxyPingInterval`)."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How a Proxy differs from a usual one.

    Attributes:
        prefer_plain: whether plain ALPN values win over their ``-ping`` variants, though it knows
            both.
        session_tickets: whether clients can resume TLS sessions; Go's default is yes.
        max_connections: how many database connections it serves at once; further ones are closed
            after the handshake without a word. ``None`` for any number.
        names: names in its certificates besides those of loopback.
    """

    prefer_plain: bool = False
    session_tickets: bool = True
    max_connections: int | None = None
    names: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class ProxyOptions:
    """How the Proxy behaves.

    Attributes:
        ping: whether ``-ping`` ALPN values are supported (Teleport 10 and later).
        ping_interval: seconds between the pings that it sends.
        alpn: supported ALPN values in order of preference; ``None`` means all.
        handler: serves every established connection instead of the Proxy's own handlers, but those
            to its web server.
        handshake_timeout: seconds for the ClientHello, and again for each handshake.
        web_certificate: shown on outer connections instead of one of the web CA.
        web_from_host_ca: whether outer connections show the host certificate.
        minimum_tls_version: oldest TLS version of outer connections.
        maximum_tls_version: newest TLS version of outer connections.
        variant: further differences.
        web: what the web API says at the beginning.
        upgrade: which upgrade endpoint there is at the beginning.
        faults: what goes wrong at the beginning.
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
    variant: Variant = field(default_factory=Variant)
    web: WebOptions = field(default_factory=WebOptions)
    upgrade: UpgradeOptions = field(default_factory=UpgradeOptions)
    faults: FaultPlan = NO_FAULTS
