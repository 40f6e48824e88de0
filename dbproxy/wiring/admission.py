"""How clients are let in: the certificate shown to them, and the handler of their connections."""

from dbproxy.downstream import (
    Admission,
    Bridge,
    ConnectionHandler,
    LocalAuthority,
    RelayedAdmission,
    ServerCertificate,
    TerminatingAdmission,
    default_state_directory,
    given_server_certificate,
)
from dbproxy.events import Subscriber
from dbproxy.identity import IdentityStore
from dbproxy.protocols import DatabaseProtocol
from dbproxy.relay import Liveness, RelayEngine
from dbproxy.settings import Mode, Settings
from dbproxy.upstream import UpstreamDialer
from dbproxy.wiring.prewarm import make_ready_connections

__all__ = ["make_handler", "server_certificate"]


def server_certificate(settings: Settings) -> ServerCertificate | None:
    """What `--terminate` shows to clients: the files given, or one of our local authority.

    Raises:
        ConfigError: `file-unusable`: a file given.
        ListenError: `state-directory-unusable`: the local authority has no place.
    """
    if settings.mode is not Mode.TERMINATE:
        return None
    if settings.server_cert is None or settings.server_key is None:
        return LocalAuthority.open(default_state_directory()).issue_server_certificate()
    return given_server_certificate(settings.server_cert, settings.server_key)


def make_handler(
    settings: Settings,
    store: IdentityStore,
    protocol: DatabaseProtocol,
    dialer: UpstreamDialer,
    certificate: ServerCertificate | None,
    publish: Subscriber,
) -> ConnectionHandler:
    """What becomes of each connection, in the mode that the settings name."""
    admission: Admission
    if certificate is not None:
        admission = TerminatingAdmission(protocol, certificate, store)
    else:
        admission = RelayedAdmission(protocol, settings.mode)
    liveness, relays = Liveness(), RelayEngine()
    bridge = Bridge(
        protocol=protocol,
        store=store,
        dialer=dialer,
        relays=relays,
        liveness=liveness,
        publish=publish,
        handshake_timeout=settings.handshake_timeout,
        connect_grace=settings.connect_grace,
        ready=make_ready_connections(settings, store, protocol, dialer, publish),
    )
    handler = ConnectionHandler(
        mode=settings.mode,
        protocol=protocol,
        store=store,
        admission=admission,
        bridge=bridge,
        liveness=liveness,
        publish=publish,
        prologue_timeout=settings.prologue_timeout,
    )
    relays.linger_when_alone(lambda: handler.open_connections)
    return handler
