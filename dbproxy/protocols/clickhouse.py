"""ClickHouse's native protocol, as Teleport carries it; `http_based` has the one over HTTP."""

import shlex
from typing import Final
from xml.sax.saxutils import escape

from dbproxy.protocols.base import ConnectionFacts
from dbproxy.protocols.client_first import ClientFirst
from dbproxy.protocols.command_line import files_of, host_of
from dbproxy.protocols.wire.clickhouse import ClickHouseWire
from dbproxy.settings import Mode

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

    def connect_command(self, facts: ConnectionFacts) -> str:
        words = ["clickhouse-client", "--host", host_of(facts), "--port", str(facts.port)]
        if facts.user is not None:
            words += ["--user", facts.user]
        if facts.database is not None:
            words += ["--database", facts.database]
        if facts.mode is Mode.TUNNEL:
            return shlex.join(words)
        return f"{shlex.join([*words, '--secure'])} --config-file <(echo {_configuration(facts)})"


def _configuration(facts: ConnectionFacts) -> str:
    """clickhouse-client takes the names of the files from its configuration only."""
    settings = "".join(
        f"<{name}>{escape(value)}</{name}>" for name, value in files_of(facts, **_SETTINGS)
    )
    return shlex.quote(f"<config><openSSL><client>{settings}</client></openSSL></config>")
