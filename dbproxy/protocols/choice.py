"""Which protocol a port carries: the certificate's, or the one that the operator names."""

from collections.abc import Sequence
from copy import copy
from typing import Final

from dbproxy.errors import Code, IdentityError, UsageError
from dbproxy.protocols.base import LONGEST_ALPN, DatabaseProtocol
from dbproxy.protocols.cassandra import Cassandra
from dbproxy.protocols.clickhouse import ClickHouse
from dbproxy.protocols.cockroachdb import CockroachDB
from dbproxy.protocols.http_based import (
    ClickHouseHTTP,
    DynamoDB,
    Elasticsearch,
    OpenSearch,
    Snowflake,
)
from dbproxy.protocols.mongodb import MongoDB
from dbproxy.protocols.mysql import MySQL
from dbproxy.protocols.oracle import Oracle
from dbproxy.protocols.postgres import Postgres
from dbproxy.protocols.redis import Redis
from dbproxy.protocols.spanner import Spanner
from dbproxy.protocols.sqlserver import SQLServer
from dbproxy.protocols.unknown import UnknownProtocol
from dbproxy.settings import Mode, Settings

__all__ = ["check_mode", "choose_protocol", "protocol_named"]

_ALL: Final[tuple[DatabaseProtocol, ...]] = (
    Postgres(),
    CockroachDB(),
    MySQL(),
    SQLServer(),
    MongoDB(),
    Redis(),
    Cassandra(),
    Elasticsearch(),
    OpenSearch(),
    DynamoDB(),
    Snowflake(),
    ClickHouse(),
    ClickHouseHTTP(),
    Spanner(),
    Oracle(),
)
_PROTOCOLS: Final = {protocol.name: protocol for protocol in _ALL}

_PING: Final = "-ping"
"""What Teleport adds to an ALPN value for connections with pings in them."""


def protocol_named(name: str) -> DatabaseProtocol:
    """The protocol that a certificate's route names.

    Raises:
        IdentityError: `protocol-not-supported`.
    """
    try:
        return _PROTOCOLS[name]
    except KeyError:
        raise IdentityError(
            Code.PROTOCOL_NOT_SUPPORTED,
            f"the certificate is for the database protocol {name!r}; this version carries"
            f" {_known()}",
        ) from None


def choose_protocol(settings: Settings, named: str) -> DatabaseProtocol:
    """The protocol that a port carries.

    Args:
        settings: `protocol` overrides the certificate's, `alpn` what is offered to Teleport.
        named: The certificate's.

    Raises:
        UsageError: `--protocol` names one that is not known, and there is no `--alpn`.
        IdentityError: `protocol-not-supported`: the certificate does.
    """
    name = settings.protocol if settings.protocol is not None else named
    offered = _offered(settings.alpn)
    known = _PROTOCOLS.get(name)
    if known is None and offered:
        return UnknownProtocol(name, offered)
    if known is None and settings.protocol is not None:
        raise UsageError(
            f"--protocol={name} is not a protocol that this version knows: those are {_known()}",
            next_step="Name one of them; or give --alpn with the value that Teleport knows it by,"
            " and its bytes are carried as they are.",
        )
    protocol = protocol_named(name)
    if not offered:
        return protocol
    protocol = copy(protocol)
    protocol.alpn = offered
    return protocol


def check_mode(protocol: DatabaseProtocol, mode: Mode) -> None:
    """Refuse what Teleport does not carry.

    Raises:
        UsageError: Clients of this protocol cannot authenticate to Teleport themselves.
    """
    if mode is not Mode.PASSTHROUGH or protocol.passthrough:
        return
    raise UsageError(
        f"Teleport does not let {protocol.readable_name} clients authenticate to it themselves"
        " (passthrough mode)",
        next_step="Add --terminate (clients keep using TLS with the tbot certificate, which dbproxy"
        " checks) or --tunnel (clients use no TLS).",
    )


def _offered(value: str | None) -> Sequence[str]:
    """The ALPN values for the one that was given: the one with pings comes first."""
    if value is None:
        return ()
    if value.endswith(_PING) or len(value) + len(_PING) > LONGEST_ALPN:
        return (value,)
    return (value + _PING, value)


def _known() -> str:
    return ", ".join(sorted(_PROTOCOLS))
