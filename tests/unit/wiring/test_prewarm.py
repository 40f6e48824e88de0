"""Whether connections are made ready before clients come."""

from pathlib import Path

import pytest
from dialers import make_dialer

from dbproxy.errors import UsageError
from dbproxy.events import Event, PrewarmUnavailable
from dbproxy.identity import DestinationSource, IdentityStore
from dbproxy.protocols import DatabaseProtocol, protocol_named
from dbproxy.protocols.postgres import Postgres
from dbproxy.settings import Mode, Settings
from dbproxy.upstream import ProxyAddress, ReadyConnections, UpstreamTrust
from dbproxy.wiring.prewarm import make_ready_connections


class SessionAtOnce(Postgres):
    """A protocol whose session Teleport begins with the connection, as it does for most."""

    readable_name = "Example"
    session_awaits_client = False


def made(
    settings: Settings, protocol: DatabaseProtocol, events: list[Event]
) -> ReadyConnections | None:
    store = IdentityStore(DestinationSource(Path("/nowhere")))
    dialer = make_dialer(ProxyAddress("teleport.example.com", 443), UpstreamTrust())
    return make_ready_connections(settings, store, protocol, dialer, events.append)


def test_by_default_none_are() -> None:
    assert made(Settings(), protocol_named("postgres"), []) is None


@pytest.mark.parametrize("mode", list(Mode))
def test_where_they_are_wanted_there_are_some_in_each_mode(mode: Mode) -> None:
    events: list[Event] = []
    settings = Settings(prewarm=2, tunnel=mode is Mode.TUNNEL, terminate=mode is Mode.TERMINATE)
    assert made(settings, protocol_named("postgres"), events) is not None
    assert events == []


def test_where_each_would_be_a_session_there_are_none_and_the_operator_is_told() -> None:
    events: list[Event] = []
    assert made(Settings(prewarm=2), SessionAtOnce(), events) is None
    (event,) = events
    assert isinstance(event, PrewarmUnavailable)
    assert "Example session" in event.reason


def test_a_number_below_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="--prewarm"):
        Settings(prewarm=-1)
