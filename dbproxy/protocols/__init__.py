"""Database wire protocols, without I/O: what their first packets mean and how they say no."""

from dbproxy.errors import Code, IdentityError
from dbproxy.protocols.base import (
    Carry,
    ConnectionFacts,
    Conversation,
    DatabaseProtocol,
    Greeting,
    GreetingReader,
    Prologue,
    PrologueEvent,
    Refuser,
    Reply,
    Say,
    StartTLS,
    UpstreamGreeting,
)
from dbproxy.protocols.mysql import MySQL
from dbproxy.protocols.postgres import Postgres
from dbproxy.protocols.sqlserver import SQLServer

__all__ = [
    "Carry",
    "ConnectionFacts",
    "Conversation",
    "DatabaseProtocol",
    "Greeting",
    "GreetingReader",
    "MySQL",
    "Prologue",
    "PrologueEvent",
    "Refuser",
    "Reply",
    "SQLServer",
    "Say",
    "StartTLS",
    "UpstreamGreeting",
    "protocol_named",
]

_PROTOCOLS: dict[str, DatabaseProtocol] = {
    "postgres": Postgres(),
    "mysql": MySQL(),
    "sqlserver": SQLServer(),
}


def protocol_named(name: str) -> DatabaseProtocol:
    """The protocol that a certificate's route names.

    Raises:
        IdentityError: `protocol-not-supported`.
    """
    try:
        return _PROTOCOLS[name]
    except KeyError:
        known = ", ".join(sorted(_PROTOCOLS))
        raise IdentityError(
            Code.PROTOCOL_NOT_SUPPORTED,
            f"the certificate is for the database protocol {name!r}; this version carries {known}",
        ) from None
