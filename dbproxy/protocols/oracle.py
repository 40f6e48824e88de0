"""Oracle, as Teleport carries it."""

from collections.abc import Mapping
from typing import Final

from dbproxy.protocols.client_command import ClientCommand
from dbproxy.protocols.client_first import ClientFirst
from dbproxy.protocols.connection_facts import ConnectionFacts, place_of
from dbproxy.protocols.uris import NO_SOCKETS, URI, Unavailable, database_uri, encoded
from dbproxy.protocols.wire.oracle import OracleWire

__all__ = ["Oracle"]

_WALLET: Final = (
    "Oracle's clients take certificate and key from a wallet only, which tbot does not write: use"
    " --tunnel"
)


class Oracle(ClientFirst):
    """Oracle Database."""

    name = "oracle"
    readable_name = "Oracle"
    alpn = ("teleport-oracle-ping", "teleport-oracle")
    default_port = 1521
    wire = OracleWire()
    passthrough = False

    def client(self, facts: ConnectionFacts) -> ClientCommand:
        scheme = "tcp" if facts.plain else "tcps"
        url = f"{facts.user or ''}/@{scheme}://{place_of(facts)}/{facts.database or ''}"
        return ClientCommand(("sqlplus", url), instead=None if facts.plain else _WALLET)

    def uris(self, facts: ConnectionFacts) -> Mapping[str, URI]:
        if facts.socket is not None or not facts.plain:
            reason = NO_SOCKETS if facts.plain else _WALLET
            return dict.fromkeys(("jdbc", "sqlalchemy"), Unavailable(reason))
        name = facts.database or ""
        service = {"service_name": name} if name else {}
        return {
            "jdbc": f"jdbc:oracle:thin:@//{place_of(facts)}/{encoded(name)}",
            "sqlalchemy": database_uri("oracle+oracledb", facts, service, path=""),
        }
