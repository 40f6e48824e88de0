"""TDS, which SQL Server speaks: how a client is recognised that asks another port.

A packet begins with (MS-TDS 2.2.3.1):

    type | status, 1 at the end of a message | length, 2 bytes, big-endian | SPID, 2 bytes, 0 | …

A client prints errors only after its login, and a conversation about encryption comes before that.
So it is not told anything here.
"""

from typing import Final

from dbproxy.errors import DBProxyError
from dbproxy.protocols.wire.base import Wire, starts

__all__ = ["TDSWire"]

_PRELOGIN: Final = b"\x12\x01"
_SIZES: Final = range(8 + 1, 4096 + 1)


class TDSWire(Wire):
    """SQL Server."""

    beginning = "a SQL Server PRELOGIN packet"

    def begins(self, data: bytes) -> bool | None:
        verdict = starts(data, _PRELOGIN)
        if not verdict or len(data) < 4:
            return None if verdict else verdict
        return int.from_bytes(data[2:4], "big") in _SIZES

    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        del received, error
        return b""
