"""HTTP/2, which gRPC speaks: the client's preface, and a GOAWAY (RFC 9113).

A server begins with SETTINGS, and may end with GOAWAY at any time, also before the client's first
request has come; its debug data is a text for people, which gRPC's clients and others print.
"""

import struct
from typing import Final

from dbproxy.errors import DBProxyError
from dbproxy.protocols.wire.base import Sort, Wire, one_line, sort_of, starts

__all__ = ["HTTP2Wire"]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS: Final = 0x4
_GOAWAY: Final = 0x7
_ERRORS: Final = {
    Sort.DENIED: 0xC,  # INADEQUATE_SECURITY
    Sort.MISUSE: 0x1,  # PROTOCOL_ERROR
    Sort.STALLED: 0x4,  # SETTINGS_TIMEOUT
}
_INTERNAL_ERROR: Final = 0x2


class HTTP2Wire(Wire):
    """HTTP/2."""

    beginning = "an HTTP/2 preface"

    def begins(self, data: bytes) -> bool | None:
        return starts(data, _PREFACE)

    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        del received
        code = _ERRORS.get(sort_of(error), _INTERNAL_ERROR)
        no_stream = 0
        goaway = struct.pack(">II", no_stream, code) + one_line(error).encode()
        return _frame(_SETTINGS, b"") + _frame(_GOAWAY, goaway)


def _frame(kind: int, payload: bytes) -> bytes:
    """A frame of the connection: no flags, stream 0."""
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + bytes(4) + payload
