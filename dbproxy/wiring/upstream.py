"""The dialer: where the Teleport Proxy is, and what it is trusted by."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from dbproxy.errors import ConfigError
from dbproxy.events import AuthoritiesPassedOver, InsecureChoice, Subscriber
from dbproxy.identity import Identity, IdentityStore, TbotConfig
from dbproxy.layers import TLSLayer
from dbproxy.settings import Settings
from dbproxy.upstream import (
    ConfiguredAddress,
    Discovery,
    Fetch,
    FixedRoute,
    RootsFile,
    RouteFinder,
    SecureDialer,
    Transport,
    UpstreamDialer,
    UpstreamTrust,
    WebFetcher,
    parse_pins,
    parse_server_name,
)
from dbproxy.upstream.judgement import ServerJudgement
from dbproxy.wiring.proxy_address import proxy_address

__all__ = [
    "insecure_by",
    "make_dialer",
    "make_route_finder",
    "make_secure_dialer",
    "make_trust",
    "make_upstream_dialer",
]

_ANYBODY: Final = (
    "the certificate of the Teleport Proxy is not verified: anyone on the network path can pose as"
    " the database and read everything"
)
_PINS_ONLY: Final = (
    "of the certificate of the Teleport Proxy only the public key is compared, with --proxy-pin;"
    " what goes through a load balancer with that key is not verified again behind it"
)


def make_dialer(
    settings: Settings,
    config: TbotConfig | None,
    store: IdentityStore,
    publish: Subscriber,
    environ: Mapping[str, str] = os.environ,
) -> UpstreamDialer:
    """The dialer for the Teleport Proxy that settings or configuration name.

    Args:
        settings: What to reach, and how.
        config: tbot's configuration, if there is one.
        store: The identity; not asked before the first dial.
        publish: Gets what is found out about the Teleport Proxy, and what is unsafe.
        environ: The environment variables; later changes do not count.

    Raises:
        UsageError: The Teleport Proxy's address is not known, or is none; or a variable for the
            outbound proxy cannot be understood.
        ConfigError: The configuration's address is none; `file-unusable`: that of `--proxy-ca`.
    """
    environ = dict(environ)  # each look into `os.environ` itself costs as much as a system call
    trust = make_trust(settings, config, publish)
    secure = make_secure_dialer(settings, trust, environ)

    def identity() -> Identity:
        return store.current

    dialer = make_upstream_dialer(settings, secure, identity, publish, config, environ)
    secure.transport.outbound_proxy(proxy_address(settings, config).preferred)  # told at start
    return dialer


def make_secure_dialer(
    settings: Settings, trust: UpstreamTrust, environ: Mapping[str, str]
) -> SecureDialer:
    """What makes TLS connections, through the outbound proxy that the variables name."""
    return SecureDialer(
        Transport(environ, partial(_outbound_proxy_tls, trust)),
        trust,
        connect_timeout=settings.connect_timeout,
        handshake_timeout=settings.handshake_timeout,
    )


def make_upstream_dialer(
    settings: Settings,
    secure: SecureDialer,
    identity: Callable[[], Identity | None],
    publish: Subscriber,
    config: TbotConfig | None,
    environ: Mapping[str, str],
) -> UpstreamDialer:
    """What builds connections that carry the database protocol; raises as `make_dialer`."""
    configured = proxy_address(settings, config)
    return UpstreamDialer(
        make_route_finder(settings, configured, WebFetcher(secure, identity), publish),
        secure,
        environ=environ,
        connection_upgrade=settings.connection_upgrade,
        current_identity=identity,
        max_handshakes=settings.max_handshakes,
    )


def _outbound_proxy_tls(trust: UpstreamTrust, host: str) -> tuple[TLSLayer, ServerJudgement]:
    connection, judgement = trust.outbound_proxy_connection(host)
    return TLSLayer(connection), judgement


def make_trust(settings: Settings, config: TbotConfig | None, publish: Subscriber) -> UpstreamTrust:
    """Whom to trust; tells `publish` when that is anybody.

    Raises:
        UsageError: A pin or the server name makes no sense.
        ConfigError: `file-unusable`: that of `--proxy-ca`.
    """
    chosen_by = insecure_by(settings, config)
    if chosen_by is not None:
        consequence = _PINS_ONLY if settings.proxy_pin else _ANYBODY
        publish(InsecureChoice(option=chosen_by, consequence=consequence))
    return UpstreamTrust(
        _roots(settings, config, publish),
        insecure=chosen_by is not None,
        pins=parse_pins(settings.proxy_pin),
        server_name=settings.server_name and parse_server_name(settings.server_name),
    )


def insecure_by(settings: Settings, config: TbotConfig | None) -> str | None:
    """What says that no certificate is verified, if anything does."""
    if settings.insecure:
        return "--insecure"
    return f"insecure in {config.path}" if config is not None and config.insecure else None


def make_route_finder(
    settings: Settings, configured: ConfiguredAddress, fetch: Fetch, publish: Subscriber
) -> RouteFinder:
    """What knows where to dial: by asking the Teleport Proxy, unless the settings forbid it."""
    if settings.no_discovery:
        return FixedRoute(configured)
    return Discovery(configured, fetch, publish=publish)


def _roots(
    settings: Settings, config: TbotConfig | None, publish: Subscriber
) -> RootsFile | tuple[()]:
    """The authorities to trust besides the system's: those named for us, or else for tbot."""
    if settings.proxy_ca is not None:
        return RootsFile(settings.proxy_ca, publish)
    if config is None or config.ca_path is None:
        return ()
    try:
        return RootsFile(config.ca_path, publish)
    except ConfigError as error:
        what = f"onboarding.ca_path in {config.path}: {error.message}"
        next_step = "If the Teleport Proxy is not trusted, name its authority with --proxy-ca."
        publish(AuthoritiesPassedOver(code=error.code, reason=what, next_step=next_step))
        return ()
