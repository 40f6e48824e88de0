"""Dialers for tests, without discovery and, unless they ask for it, without the upgrade test."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from dbproxy.identity import Identity
from dbproxy.layers import TLSLayer
from dbproxy.upstream import (
    ConfiguredAddress,
    FixedRoute,
    ProxyAddress,
    RouteFinder,
    SecureDialer,
    Transport,
    UpstreamConnection,
    UpstreamDialer,
    UpstreamTrust,
)
from dbproxy.upstream.judgement import ServerJudgement
from dbproxy.upstream.route import UpstreamRoute

NO_VARIABLES: Mapping[str, str] = {}

Dial: TypeAlias = Callable[..., Awaitable[UpstreamConnection]]
"""Dials a port of 127.0.0.1."""


class UnroutedTo(RouteFinder):
    """Leads to an address that speaks the database protocol itself."""

    def __init__(self, address: ProxyAddress) -> None:
        self._route = UpstreamRoute(address=address, tls_routing=False, decision="for a test")

    @property
    def due(self) -> bool:
        return False

    async def find(self, protocol: str) -> UpstreamRoute:
        return self._route

    def forget(self) -> None:
        pass


def secure_dialer(
    trust: UpstreamTrust,
    environ: Mapping[str, str] = NO_VARIABLES,
    *,
    connect_timeout: float = 10.0,
    handshake_timeout: float = 10.0,
) -> SecureDialer:
    """Makes TLS connections, through the outbound proxy that the variables name."""

    def proxy_tls(host: str) -> tuple[TLSLayer, ServerJudgement]:
        connection, judgement = trust.outbound_proxy_connection(host)
        return TLSLayer(connection), judgement

    return SecureDialer(
        Transport(environ, proxy_tls),
        trust,
        connect_timeout=connect_timeout,
        handshake_timeout=handshake_timeout,
    )


def make_dialer(
    address: ProxyAddress,
    trust: UpstreamTrust,
    identity: Identity | None = None,
    *,
    environ: Mapping[str, str] = NO_VARIABLES,
    connection_upgrade: str = "never",
    max_handshakes: int = 64,
    tls_routing: bool = True,
    **timeouts: Any,
) -> UpstreamDialer:
    """A dialer for one address."""

    def current_identity() -> Identity:
        assert identity is not None, "the upgrade test needs an identity"
        return identity

    fixed = FixedRoute(ConfiguredAddress(address.host, address.port))
    return UpstreamDialer(
        fixed if tls_routing else UnroutedTo(address),
        secure_dialer(trust, environ, **timeouts),
        environ=environ,
        connection_upgrade=connection_upgrade,
        current_identity=current_identity,
        max_handshakes=max_handshakes,
    )
