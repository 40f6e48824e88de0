"""MongoDB: message headers, and the reply that makes a driver print an error.

Each message has a header of four little-endian 32-bit integers (MongoDB manual, "MongoDB Wire
Protocol"):

    messageLength, header included | requestID | responseTo | opCode

Drivers begin with a `hello` command, as OP_MSG or, until they know that the server is not an old
one, as OP_QUERY; either wants an answer of its own kind. An answer names the request in
`responseTo`.
"""

import struct
from typing import Final

from dbproxy.errors import DBProxyError
from dbproxy.protocols.wire.base import Sort, Wire, one_line, sort_of
from dbproxy.protocols.wire.bson import document

__all__ = ["MongoDBWire"]

_HEADER: Final = struct.Struct("<iiii")
_OP_REPLY: Final = 1
_OP_QUERY: Final = 2004
_OP_COMPRESSED: Final = 2012
_OP_MSG: Final = 2013
_REQUESTS: Final = frozenset({*range(2001, 2008), _OP_COMPRESSED, _OP_MSG})
_MESSAGE_SIZES: Final = range(_HEADER.size + 5, 65536)
"""Of a first message, a `hello` with words about the client; the shortest document is empty."""

_ERRORS: Final = {
    Sort.DENIED: (18, "AuthenticationFailed"),
    Sort.NOT_READY: (6, "HostUnreachable"),
    Sort.UNREACHABLE: (6, "HostUnreachable"),
    Sort.MISUSE: (17, "ProtocolError"),
    Sort.STALLED: (17, "ProtocolError"),
    Sort.INTERNAL: (1, "InternalError"),
}
"""Number and name (`src/mongo/base/error_codes.yml` of the server)."""


class MongoDBWire(Wire):
    """MongoDB."""

    beginning = "a MongoDB message"

    def begins(self, data: bytes) -> bool | None:
        if len(data) < 4:
            return None
        if int.from_bytes(data[:4], "little") not in _MESSAGE_SIZES:
            return False
        if len(data) < _HEADER.size:
            return None
        return _HEADER.unpack_from(data)[3] in _REQUESTS

    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        if not self.begins(received):
            return b""
        _, request_id, _, operation = _HEADER.unpack_from(received)
        number, name = _ERRORS[sort_of(error)]
        reply = document(
            {"ok": 0.0, "errmsg": one_line(error), "code": number, "codeName": name},
        )
        if operation == _OP_QUERY:
            return _op_reply(request_id, reply)
        return _op_msg(request_id, reply)


def _op_msg(response_to: int, body: bytes) -> bytes:
    """No flags, and one section of kind 0, the body."""
    return _message(response_to, _OP_MSG, struct.pack("<iB", 0, 0) + body)


def _op_reply(response_to: int, body: bytes) -> bytes:
    """No flags, no cursor, starting from 0, one document."""
    return _message(response_to, _OP_REPLY, struct.pack("<iqii", 0, 0, 0, 1) + body)


def _message(response_to: int, operation: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), 0, response_to, operation) + body
