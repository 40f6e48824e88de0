"""TDS, which SQL Server speaks: how a client is recognised that asks another port.

A client prints errors only after its login, and a conversation about encryption comes before that.
So it is not told anything here.
"""

from typing import Final

from dbproxy.errors import DBProxyError
from dbproxy.protocols.wire.base import Wire, starts
from dbproxy.protocols.wire.tds_packets import END_OF_MESSAGE, HEADER_SIZE, PACKET_SIZE, PRELOGIN

__all__ = ["TDSWire"]

_BEGINNING: Final = bytes([PRELOGIN, END_OF_MESSAGE])
_SIZES: Final = range(HEADER_SIZE + 1, PACKET_SIZE + 1)


class TDSWire(Wire):
    """SQL Server."""

    beginning = "a SQL Server PRELOGIN packet"

    def begins(self, data: bytes) -> bool | None:
        verdict = starts(data, _BEGINNING)
        if not verdict or len(data) < 4:
            return None if verdict else verdict
        return int.from_bytes(data[2:4], "big") in _SIZES

    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        del received, error
        return b""
