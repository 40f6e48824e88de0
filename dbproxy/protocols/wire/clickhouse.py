"""ClickHouse's native protocol: the client's Hello, and an Exception.

A packet is its number as a variable-length integer and then its fields; strings have their length
in front (`src/Core/Protocol.h` and `src/IO/VarInt.h` of ClickHouse). Hello is packet 0, with the
name of the client program as its first field. The answer to it may be an Exception, packet 2:

    Int32 code | String name | String text | String stack trace | UInt8, whether one is nested in it
"""

import struct
from typing import Final

from dbproxy.errors import DBProxyError
from dbproxy.protocols.wire.base import Sort, Wire, one_line, sort_of

__all__ = ["ClickHouseWire", "exception_code"]

_HELLO: Final = 0
_EXCEPTION: Final = 2
_NAME_LENGTHS: Final = range(1, 0x80)
"""Of one byte; client programs have short names."""
_PRINTABLE: Final = range(0x20, 0x7F)
_TELLING: Final = 3
"""Characters of the name after which nothing else is meant."""
_CODES: Final = {
    Sort.DENIED: 516,  # AUTHENTICATION_FAILED
    Sort.MISUSE: 101,  # UNEXPECTED_PACKET_FROM_CLIENT
    Sort.STALLED: 209,  # SOCKET_TIMEOUT
    Sort.INTERNAL: 1001,  # STD_EXCEPTION
}
_NETWORK_ERROR: Final = 210


def exception_code(error: DBProxyError) -> int:
    """ClickHouse's number for a problem (`src/Common/ErrorCodes.cpp`)."""
    return _CODES.get(sort_of(error), _NETWORK_ERROR)


class ClickHouseWire(Wire):
    """ClickHouse's native protocol."""

    beginning = "a ClickHouse Hello"

    def begins(self, data: bytes) -> bool | None:
        if not data:
            return None
        if data[0] != _HELLO or (len(data) > 1 and data[1] not in _NAME_LENGTHS):
            return False
        expected = min(_TELLING, data[1]) if len(data) > 1 else _TELLING
        name = data[2 : 2 + expected]
        if any(byte not in _PRINTABLE for byte in name):
            return False
        return None if len(name) < expected else True

    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        del received
        return b"".join(
            (
                bytes([_EXCEPTION]),
                struct.pack("<i", exception_code(error)),
                _string("DB::Exception"),
                _string(one_line(error)),
                _string(""),
                b"\0",
            )
        )


def _string(text: str) -> bytes:
    data = text.encode()
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
