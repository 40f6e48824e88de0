"""Whether connections are made ready before clients come."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dialers import make_dialer

from dbproxy.errors import UsageError
from dbproxy.events import Event, PrewarmUnavailable
from dbproxy.identity import DestinationSource, IdentityStore
from dbproxy.protocols import protocol_named
from dbproxy.settings import Mode, Settings
from dbproxy.upstream import ProxyAddress, ReadyConnections, UpstreamTrust
from dbproxy.wiring.prewarm import make_ready_connections


@dataclass
class Start:
    """What is there when it is decided; the certificate is for PostgreSQL.

    Attributes:
        store: The identity, loaded.
        events: What was published.
    """

    store: IdentityStore
    events: list[Event] = field(default_factory=list)

    def make(self, settings: Settings, protocol: str = "postgres") -> ReadyConnections | None:
        dialer = make_dialer(ProxyAddress("teleport.example.com", 443), UpstreamTrust())
        chosen = protocol_named(protocol)
        return make_ready_connections(settings, self.store, chosen, dialer, self.events.append)


@pytest.fixture
async def start(destination: Path) -> Start:
    store = IdentityStore(DestinationSource(destination))
    await store.load()
    return Start(store)


def settings_of(mode: Mode) -> Settings:
    return Settings(prewarm=2, tunnel=mode is Mode.TUNNEL, terminate=mode is Mode.TERMINATE)


async def test_by_default_none_are(start: Start) -> None:
    assert start.make(Settings()) is None
    assert start.events == []


@pytest.mark.parametrize("mode", list(Mode))
async def test_where_they_are_wanted_there_are_some_in_each_mode(mode: Mode, start: Start) -> None:
    assert start.make(settings_of(mode)) is not None
    assert start.events == []


@pytest.mark.parametrize("mode", list(Mode))
async def test_where_each_would_be_a_session_there_are_none_and_the_operator_is_told(
    mode: Mode, start: Start
) -> None:
    assert start.make(settings_of(mode), "mysql") is None
    (event,) = start.events
    assert isinstance(event, PrewarmUnavailable)
    assert "MySQL session" in event.reason


@pytest.mark.parametrize("mode", [Mode.TERMINATE, Mode.TUNNEL])
async def test_what_the_certificate_is_for_counts_where_we_show_it(
    mode: Mode, start: Start
) -> None:
    """Teleport goes by the certificate then, not by what `--protocol` has named."""
    assert start.make(settings_of(mode), "sqlserver") is None
    assert len(start.events) == 1


def test_only_of_these_protocols_does_teleport_await_the_first_message() -> None:
    """In the others' handlers it connects to the database at once: lib/srv/db/proxyserver.go."""
    names = {
        "postgres": True,
        "cockroachdb": True,
        "sqlserver": True,
        "mysql": False,
        "mongodb": False,
        "redis": False,
        "cassandra": False,
        "oracle": False,
        "elasticsearch": False,
        "clickhouse": False,
        "snowflake": False,
        "spanner": False,
        "dynamodb": False,
    }
    assert {name: protocol_named(name).session_awaits_client for name in names} == names


def test_a_number_below_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="--prewarm"):
        Settings(prewarm=-1)
