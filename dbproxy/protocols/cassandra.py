"""Cassandra, as Teleport carries it."""

from collections.abc import Mapping
from typing import Final

from dbproxy.protocols.client_command import ClientCommand
from dbproxy.protocols.client_first import ClientFirst
from dbproxy.protocols.connection_facts import ConnectionFacts, files_of, host_of
from dbproxy.protocols.wire.cassandra import CassandraWire

__all__ = ["Cassandra"]

_FILES: Final = {"ca": "SSL_CERTFILE", "certificate": "SSL_USERCERT", "key": "SSL_USERKEY"}
"""cqlsh takes the files from its configuration or from these variables."""


class Cassandra(ClientFirst):
    """Cassandra, and what speaks CQL: ScyllaDB, Amazon Keyspaces."""

    name = "cassandra"
    readable_name = "Cassandra"
    alpn = ("teleport-cassandra-ping", "teleport-cassandra")
    default_port = 9042
    wire = CassandraWire()
    passthrough = False

    def client(self, facts: ConnectionFacts) -> ClientCommand:
        words = ["cqlsh", host_of(facts), str(facts.port)]
        if facts.user is not None:
            words += ["-u", facts.user]
        if not facts.plain:
            words.append("--ssl")
        return ClientCommand(tuple(words), dict(files_of(facts, **_FILES)))

    def variables(self, facts: ConnectionFacts) -> Mapping[str, str | None]:
        where = {"CQLSH_HOST": host_of(facts), "CQLSH_PORT": str(facts.port)}
        return where | dict(files_of(facts, **_FILES))
