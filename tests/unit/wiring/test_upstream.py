"""The dialer that settings and environment make."""

from pathlib import Path

from dbproxy.events import Event
from dbproxy.identity import DestinationSource, IdentityStore
from dbproxy.settings import Settings
from dbproxy.upstream import ProxyAddress
from dbproxy.wiring import make_dialer

ADDRESS = ProxyAddress("teleport.example.com", 443)


async def test_environment_variables_count_as_they_were_at_the_start(tmp_path: Path) -> None:
    """Each look into the live ones would cost every connection as much as a system call."""
    environ = {"TELEPORT_TLS_ROUTING_CONN_UPGRADE": "yes"}
    events: list[Event] = []
    store = IdentityStore(DestinationSource(tmp_path))
    settings = Settings(proxy=str(ADDRESS))
    dialer = make_dialer(settings, None, store, events.append, environ)
    environ["TELEPORT_TLS_ROUTING_CONN_UPGRADE"] = "no"
    need = await dialer.upgrade_need(ADDRESS)
    assert need.required
    assert need.reason == "is dialled as TELEPORT_TLS_ROUTING_CONN_UPGRADE says"
