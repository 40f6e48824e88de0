"""The database protocol, as the settings want it spoken."""

from dbproxy.errors import UsageError
from dbproxy.protocols import DatabaseProtocol, MySQL
from dbproxy.settings import Mode, Settings

__all__ = ["configured_protocol"]


def configured_protocol(protocol: DatabaseProtocol, settings: Settings) -> DatabaseProtocol:
    """The protocol that is carried, with what the settings say about it.

    Raises:
        UsageError: Teleport does not carry it in the mode that the settings name.
    """
    if settings.mode is Mode.PASSTHROUGH and not protocol.passthrough:
        raise UsageError(
            f"Teleport does not let {protocol.readable_name} clients authenticate to it themselves"
            " (passthrough mode)",
            next_step="Add --terminate (clients keep using TLS with the tbot certificate, which"
            " dbproxy checks) or --tunnel (clients use no TLS).",
        )
    if settings.mysql_version is not None and isinstance(protocol, MySQL):
        return MySQL(settings.mysql_version)
    return protocol
