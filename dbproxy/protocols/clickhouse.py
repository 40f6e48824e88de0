"""ClickHouse's native protocol, as Teleport carries it; `http_based` has the one over HTTP."""

from collections.abc import Mapping
from typing import Final
from xml.sax.saxutils import escape

from dbproxy.protocols.client_command import ClientCommand, Piped
from dbproxy.protocols.client_first import ClientFirst
from dbproxy.protocols.connection_facts import ConnectionFacts, files_of, host_of
from dbproxy.protocols.uris import NO_SOCKETS, URI, Unavailable, database_uri
from dbproxy.protocols.wire.clickhouse import ClickHouseWire

__all__ = ["ClickHouse"]

_SETTINGS: Final = {
    "ca": "caConfig",
    "certificate": "certificateFile",
    "key": "privateKeyFile",
}
"""Of the section `openSSL.client` of the client's configuration."""


class ClickHouse(ClientFirst):
    """ClickHouse, spoken natively."""

    name = "clickhouse"
    readable_name = "ClickHouse (native protocol)"
    alpn = ("teleport-clickhouse-ping", "teleport-clickhouse")
    default_port = 9000
    wire = ClickHouseWire()
    passthrough = False

    def client(self, facts: ConnectionFacts) -> ClientCommand:
        words = ["clickhouse-client", "--host", host_of(facts), "--port", str(facts.port)]
        if facts.user is not None:
            words += ["--user", facts.user]
        if facts.database is not None:
            words += ["--database", facts.database]
        if facts.plain:
            return ClientCommand(tuple(words))
        return ClientCommand((*words, "--secure", "--config-file", _configuration(facts)))

    def uris(self, facts: ConnectionFacts) -> Mapping[str, URI]:
        """As clickhouse-driver reads them, and so SQLAlchemy with it."""
        names = ("clickhouse", "sqlalchemy")
        if facts.socket is not None:
            return dict.fromkeys(names, Unavailable(NO_SOCKETS))
        tls = {} if facts.plain else {"secure": "True", "verify": "True"}
        tls |= files_of(facts, ca="ca_certs", certificate="certfile", key="keyfile")
        schemes = zip(names, ("clickhouse", "clickhouse+native"), strict=True)
        return {name: database_uri(scheme, facts, tls) for name, scheme in schemes}


def _configuration(facts: ConnectionFacts) -> Piped:
    """clickhouse-client takes the names of the files from its configuration only."""
    settings = "".join(
        f"<{name}>{escape(value)}</{name}>" for name, value in files_of(facts, **_SETTINGS)
    )
    return Piped(text=f"<config><openSSL><client>{settings}</client></openSSL></config>")
