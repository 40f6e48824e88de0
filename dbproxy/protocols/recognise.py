"""What a client speaks, by its first bytes, so that it can be told in its own words.

Tested in `tests/unit/protocols/test_recognise.py`.
"""

from typing import Final

from dbproxy.protocols.wire import Wire
from dbproxy.protocols.wire.cassandra import CassandraWire
from dbproxy.protocols.wire.clickhouse import ClickHouseWire
from dbproxy.protocols.wire.http import HTTPWire
from dbproxy.protocols.wire.http2 import HTTP2Wire
from dbproxy.protocols.wire.mongodb import MongoDBWire
from dbproxy.protocols.wire.oracle import OracleWire
from dbproxy.protocols.wire.postgres import PostgresWire
from dbproxy.protocols.wire.redis import RedisWire
from dbproxy.protocols.wire.ssh import SSH
from dbproxy.protocols.wire.tds import TDSWire
from dbproxy.protocols.wire.tls import TLS

__all__ = ["Undecided", "recognise", "recognise_at_once"]

_WIRES: Final[tuple[Wire, ...]] = (
    TLS(),
    HTTPWire(),
    HTTP2Wire(),
    SSH(),
    TDSWire(),
    RedisWire(),
    PostgresWire(),
    ClickHouseWire(),
    OracleWire(),
    CassandraWire(),
    MongoDBWire(),
)
"""Those that a few bytes tell for sure come first."""


class Undecided(Exception):
    """More bytes are needed to tell."""


def recognise(data: bytes) -> Wire | None:
    """What a client speaks that has sent `data` first; None when nobody begins like this.

    Raises:
        Undecided: It takes more bytes, 24 at most in all.
    """
    undecided = False
    for wire in _WIRES:
        verdict = wire.begins(data)
        if verdict:
            return wire
        undecided = undecided or verdict is None
    if undecided:
        raise Undecided
    return None


def recognise_at_once(data: bytes) -> Wire | None:
    """The same for those who cannot wait for more bytes: None also when it takes more to tell."""
    try:
        return recognise(data)
    except Undecided:
        return None
