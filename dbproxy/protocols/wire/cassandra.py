"""Cassandra's native protocol (CQL): frame headers, and the ERROR frame.

A frame begins with (`doc/native_protocol_v4.spec` of Cassandra; version 5 adds an outer frame, but
only after the first exchange):

    version, highest bit set in answers | flags | stream, 2 bytes | opcode | body length, 4 bytes

In versions 1 and 2 the stream has one byte. A client begins with OPTIONS or STARTUP. The answer
goes in the client's version, because a driver understands no other, and on the request's stream.
"""

import struct
from typing import Final

from dbproxy.errors import DBProxyError
from dbproxy.protocols.wire.base import Sort, Wire, one_line, sort_of

__all__ = ["CassandraWire"]

_VERSIONS: Final = frozenset({*range(1, 7), 0x41, 0x42})
"""Those of Cassandra, and of DataStax Enterprise."""
_LAST_WITH_SHORT_STREAM: Final = 2
_ANSWER: Final = 0x80
_FLAGS: Final = range(0x20)
_ERROR: Final = 0x00
_BODY_SIZES: Final = {
    0x01: range(2, 65536),  # STARTUP: a map of strings
    0x05: range(1),  # OPTIONS: nothing
}
_SERVER_ERROR: Final = 0x0000
_BAD_CREDENTIALS: Final = 0x0100
_CODES: Final = {
    Sort.DENIED: _BAD_CREDENTIALS,
    # Not a protocol error: drivers take that for a version to be negotiated.
    Sort.MISUSE: _SERVER_ERROR,
}


class CassandraWire(Wire):
    """Cassandra, and what speaks CQL."""

    beginning = "a CQL frame"

    def begins(self, data: bytes) -> bool | None:
        if data[:1] and data[0] not in _VERSIONS:
            return False
        if len(data) > 1 and data[1] not in _FLAGS:
            return False
        size = _header_size(data)
        if size is None or len(data) < size:
            return None
        return int.from_bytes(data[size - 4 : size], "big") in _BODY_SIZES.get(
            data[size - 5], range(0)
        )

    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        if not self.begins(received):
            return b""
        size = _header_size(received)
        assert size is not None  # noqa: S101 - it begins with a version
        text = one_line(error).encode()
        code = _CODES.get(sort_of(error), _SERVER_ERROR)
        body = struct.pack(">iH", code, len(text)) + text
        stream = received[2 : size - 5]
        return (
            bytes([received[0] | _ANSWER, 0])
            + stream
            + bytes([_ERROR])
            + len(body).to_bytes(4, "big")
            + body
        )


def _header_size(data: bytes) -> int | None:
    if not data:
        return None
    return 8 if data[0] <= _LAST_WITH_SHORT_STREAM else 9
