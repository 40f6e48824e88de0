"""Connections that are ready before clients come, where that is wanted and possible."""

from functools import partial

from dbproxy.events import PrewarmUnavailable, Subscriber
from dbproxy.identity import IdentityStore, Route
from dbproxy.protocols import DatabaseProtocol
from dbproxy.settings import Mode, Settings
from dbproxy.upstream import ReadyConnections, UpstreamDialer

__all__ = ["make_ready_connections"]


def make_ready_connections(
    settings: Settings,
    store: IdentityStore,
    protocol: DatabaseProtocol,
    dialer: UpstreamDialer,
    publish: Subscriber,
) -> ReadyConnections | None:
    """What keeps connections ready; `None` without `--prewarm`, and where it would do harm.

    In each mode all clients' connections are alike at first: with our certificate where dbproxy
    authenticates, without any in passthrough. Cancel requests are the exception, and dial.
    """
    if not settings.prewarm:
        return None
    if not _session_awaits_client(settings.mode, protocol, store.current.route):
        publish(
            PrewarmUnavailable(
                reason=f"Teleport begins a {protocol.readable_name} session without waiting for the"
                " client's first message, so a connection that is ready would be a session",
                next_step="Leave --prewarm out: new connections work without it.",
            )
        )
        return None
    authenticate = settings.mode is not Mode.PASSTHROUGH
    return ReadyConnections(
        partial(dialer.dial, protocol, authenticate=authenticate),
        store,
        size=settings.prewarm,
        authenticate=authenticate,
        publish=publish,
    )


def _session_awaits_client(mode: Mode, protocol: DatabaseProtocol, route: Route) -> bool:
    """Where we show a certificate, Teleport goes by its protocol, whatever `--protocol` says."""
    same = mode is Mode.PASSTHROUGH or protocol.name == route.protocol
    return same and protocol.session_awaits_client
