"""Oracle, as Teleport carries it."""

import shlex

from dbproxy.protocols.base import ConnectionFacts
from dbproxy.protocols.client_first import ClientFirst
from dbproxy.protocols.command_line import place_of
from dbproxy.protocols.wire.oracle import OracleWire
from dbproxy.settings import Mode

__all__ = ["Oracle"]


class Oracle(ClientFirst):
    """Oracle Database."""

    name = "oracle"
    readable_name = "Oracle"
    alpn = ("teleport-oracle-ping", "teleport-oracle")
    default_port = 1521
    wire = OracleWire()
    passthrough = False

    def connect_command(self, facts: ConnectionFacts) -> str:
        # Certificates come from a wallet, which tbot does not write and no option can name here.
        scheme = "tcp" if facts.mode is Mode.TUNNEL else "tcps"
        url = f"{facts.user or ''}/@{scheme}://{place_of(facts)}/{facts.database or ''}"
        return shlex.join(["sqlplus", url])
