"""The database protocol, as the settings want it spoken."""

from dbproxy.protocols import DatabaseProtocol, MySQL
from dbproxy.settings import Settings

__all__ = ["configured_protocol"]


def configured_protocol(protocol: DatabaseProtocol, settings: Settings) -> DatabaseProtocol:
    """The protocol that is carried, with what the settings say about it."""
    if settings.mysql_version and isinstance(protocol, MySQL):
        return protocol.telling(settings.mysql_version)
    return protocol
