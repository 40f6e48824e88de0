"""Cassandra, as Teleport carries it."""

import shlex

from dbproxy.protocols.base import ConnectionFacts
from dbproxy.protocols.client_first import ClientFirst
from dbproxy.protocols.command_line import files_of, host_of
from dbproxy.protocols.wire.cassandra import CassandraWire
from dbproxy.settings import Mode

__all__ = ["Cassandra"]


class Cassandra(ClientFirst):
    """Cassandra, and what speaks CQL: ScyllaDB, Amazon Keyspaces."""

    name = "cassandra"
    readable_name = "Cassandra"
    alpn = ("teleport-cassandra-ping", "teleport-cassandra")
    default_port = 9042
    wire = CassandraWire()
    passthrough = False

    def connect_command(self, facts: ConnectionFacts) -> str:
        words = ["cqlsh", host_of(facts), str(facts.port)]
        if facts.user is not None:
            words += ["-u", facts.user]
        if facts.mode is Mode.TUNNEL:
            return shlex.join(words)
        # cqlsh takes the files from its configuration or from these variables.
        names = {"ca": "SSL_CERTFILE", "certificate": "SSL_USERCERT", "key": "SSL_USERKEY"}
        variables = [f"{name}={shlex.quote(value)}" for name, value in files_of(facts, **names)]
        return " ".join(["env", *variables, shlex.join([*words, "--ssl"])])
