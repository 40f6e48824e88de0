"""The database protocol, as the settings want it spoken."""

from dbproxy.protocols import DatabaseProtocol, MySQL, check_mode, choose_protocol
from dbproxy.settings import Settings

__all__ = ["configured_protocol"]


def configured_protocol(settings: Settings, named: str) -> DatabaseProtocol:
    """The protocol that is carried, with what the settings say about it.

    Args:
        settings: `protocol`, `alpn`, `mysql_version` and the mode count.
        named: The certificate's.

    Raises:
        UsageError: Teleport does not carry it in this mode, or `--protocol` is not known.
        IdentityError: `protocol-not-supported`: the certificate's is not known.
    """
    protocol = choose_protocol(settings, named)
    check_mode(protocol, settings.mode)
    if settings.mysql_version and isinstance(protocol, MySQL):
        return protocol.telling(settings.mysql_version)
    return protocol
