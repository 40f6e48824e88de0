"""Dialers for tests, without discovery and, unless they ask for it, without the upgrade test."""

from collections.abc import Mapping
from typing import Any

from dbproxy.identity import Identity
from dbproxy.layers import TLSLayer
from dbproxy.upstream import (
    ConfiguredAddress,
    FixedRoute,
    ProxyAddress,
    SecureDialer,
    Transport,
    UpstreamDialer,
    UpstreamTrust,
)
from dbproxy.upstream.judgement import ServerJudgement

NO_VARIABLES: Mapping[str, str] = {}


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
    **timeouts: Any,
) -> UpstreamDialer:
    """A dialer for one address."""

    def current_identity() -> Identity:
        assert identity is not None, "the upgrade test needs an identity"
        return identity

    return UpstreamDialer(
        FixedRoute(ConfiguredAddress(address.host, address.port)),
        secure_dialer(trust, environ, **timeouts),
        environ=environ,
        connection_upgrade=connection_upgrade,
        current_identity=current_identity,
        max_handshakes=max_handshakes,
    )
