"""HTTP/2, which gRPC speaks: the client's preface, and a response that says no (RFC 9113).

A frame begins with

    length, 3 bytes | type | flags | stream, 4 bytes

The refusal begins as a server does, with SETTINGS. It then answers each request: a gRPC client
prints what `grpc-message` says, and takes a connection that ends before it has asked for a failure
to connect, which it repeats without a word. The header block of the answer needs no state, and that
of the request is not looked into (RFC 7541 §6.2.2, literals without indexing and without Huffman
code).
"""

import struct
from typing import Final
from urllib.parse import quote

from dbproxy.errors import DBProxyError
from dbproxy.protocols.wire.base import Answering, Sort, Wire, one_line, sort_of, starts
from dbproxy.protocols.wire.http import status_of

__all__ = ["HTTP2Wire"]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS: Final = 0x1
_SETTINGS: Final = 0x4
_GOAWAY: Final = 0x7
_ACK: Final = 0x1
_END_STREAM: Final = 0x1
_END_HEADERS: Final = 0x4
_FRAME_HEADER_SIZE: Final = 9
_STREAM_BITS: Final = 0x7FFFFFFF
_NO_ERROR: Final = 0
_MOST_ANSWERS: Final = 100
"""Requests of a refused client that are answered; after each it is told that it may go away."""

_GRPC_STATUSES: Final = {
    Sort.DENIED: 7,  # PERMISSION_DENIED
    Sort.MISUSE: 3,  # INVALID_ARGUMENT
    Sort.STALLED: 4,  # DEADLINE_EXCEEDED
    Sort.INTERNAL: 13,  # INTERNAL
}
_UNAVAILABLE: Final = 14
_UNQUOTED: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
"""In `grpc-message` all else is percent-encoded (gRPC over HTTP/2, "Status-Message")."""


class HTTP2Wire(Wire):
    """HTTP/2."""

    beginning = "an HTTP/2 preface"

    def begins(self, data: bytes) -> bool | None:
        return starts(data, _PREFACE)

    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        opening = _frame(_SETTINGS, b"") + _frame(_SETTINGS, b"", flags=_ACK)
        return opening + _Refusing(error).answer(received[len(_PREFACE) :])

    def further(self, received: bytes, error: DBProxyError) -> Answering:
        refusing = _Refusing(error)
        refusing.answer(received[len(_PREFACE) :])  # the refusal has done so
        return refusing.answer


class _Refusing:
    """Answers each request of a connection; the bytes of frames are not kept."""

    def __init__(self, error: DBProxyError) -> None:
        self._headers = _header_block(error)
        self._header = b""
        self._to_skip = 0
        self._answers_left = _MOST_ANSWERS

    def answer(self, data: bytes) -> bytes:
        """The answers to the requests that begin in `data`."""
        answers, position = b"", 0
        while position < len(data):
            skipped = min(self._to_skip, len(data) - position)
            self._to_skip -= skipped
            position += skipped
            missing = _FRAME_HEADER_SIZE - len(self._header)
            self._header += data[position : position + missing]
            position += missing
            if len(self._header) == _FRAME_HEADER_SIZE:
                answers += self._on_frame(self._header)
                self._to_skip, self._header = int.from_bytes(self._header[:3], "big"), b""
        return answers

    def _on_frame(self, header: bytes) -> bytes:
        if header[3] != _HEADERS or not self._answers_left:
            return b""
        self._answers_left -= 1
        stream = int.from_bytes(header[5:], "big") & _STREAM_BITS
        flags = _END_STREAM | _END_HEADERS
        goaway = struct.pack(">II", stream, _NO_ERROR)
        return _frame(_HEADERS, self._headers, flags=flags, stream=stream) + _frame(_GOAWAY, goaway)


def _header_block(error: DBProxyError) -> bytes:
    status, _ = status_of(error)
    fields = {
        ":status": str(status),
        "content-type": "application/grpc",
        "grpc-status": str(_GRPC_STATUSES.get(sort_of(error), _UNAVAILABLE)),
        "grpc-message": quote(one_line(error), safe=_UNQUOTED),
    }
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in fields.items())


def _string(text: str) -> bytes:
    """A length of seven bits, or more (RFC 7541 §5.1), and the characters."""
    data = text.encode("ascii")
    if len(data) < 0x7F:
        return bytes([len(data)]) + data
    length, rest = bytearray([0x7F]), len(data) - 0x7F
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    return bytes(length) + data


def _frame(kind: int, payload: bytes, *, flags: int = 0, stream: int = 0) -> bytes:
    length = len(payload).to_bytes(3, "big")
    return length + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
