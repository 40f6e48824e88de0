"""The few TDS messages that the stand-ins read and write. Sans-I/O.

Layouts: [MS-TDS], "Tabular Data Stream Protocol": 2.2.3 (packets), 2.2.6.4 (LOGIN7), 2.2.6.5
(PRELOGIN) and 2.2.7 (tokens).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from dbproxy.lab.errors import LabError

SQL_BATCH: Final = 1
TABULAR: Final = 4
ATTENTION: Final = 6
LOGIN7: Final = 16
PRELOGIN: Final = 18
HEADER: Final = struct.Struct(">BBH4x")
LAST: Final = 1
PACKET_SIZE: Final = 4096
MAX_MESSAGE: Final = 32 * 1024 * 1024
"""Bytes of a message: a whole SQL batch."""

NOT_SUPPORTED: Final = 2
DONE_COUNT: Final = 0x10
DONE_ATTENTION: Final = 0x20
VERSION: Final = bytes((15, 0, 7, 208, 0, 0))
TDS_7_4: Final = 0x74000004
COLLATION: Final = bytes((9, 4, 208, 0, 52))


class TDSWireError(LabError):
    """The bytes are not what TDS has in this place."""


@dataclass(frozen=True)
class Request:
    """A message of a client: its type, and its payload without headers."""

    kind: int
    payload: bytes


class RequestBuffer:
    """Collects bytes into messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._payload = bytearray()

    def feed(self, data: bytes | bytearray) -> None:
        """Takes more bytes."""
        self._bytes += data

    def pop(self) -> Request | None:
        """Returns the next message, ``None`` while it is incomplete.

        Raises:
            TDSWireError: a packet is impossible, or the message too large.
        """
        while len(self._bytes) >= HEADER.size:
            kind, status, size = HEADER.unpack_from(self._bytes)
            if size < HEADER.size or len(self._payload) > MAX_MESSAGE:
                raise TDSWireError(f"a packet of type {kind} and {size} bytes")
            if len(self._bytes) < size:
                return None
            self._payload += self._bytes[HEADER.size : size]
            del self._bytes[:size]
            if status & LAST:
                request = Request(kind, bytes(self._payload))
                self._payload.clear()
                return request
        return None

    def pop_rest(self) -> bytes:
        """Returns, and forgets, what came behind the last message."""
        rest = bytes(self._bytes)
        self._bytes.clear()
        return rest


def message(payload: bytes) -> bytes:
    """Returns a tabular result in packets."""
    room = PACKET_SIZE - HEADER.size
    pieces = [payload[start : start + room] for start in range(0, len(payload), room)]
    return b"".join(
        HEADER.pack(TABULAR, LAST if piece is pieces[-1] else 0, HEADER.size + len(piece)) + piece
        for piece in pieces
    )


def prelogin_answer() -> bytes:
    """Returns what a server says to PRELOGIN that does no encryption."""
    values = ((0, VERSION), (1, bytes((NOT_SUPPORTED,))), (2, b"\0"), (3, b""), (4, b"\0"))
    head, body = b"", b""
    for token, value in values:
        head += struct.pack(">BHH", token, 5 * len(values) + 1 + len(body), len(value))
        body += value
    return message(head + b"\xff" + body)


def login_names(login: bytes) -> tuple[str, str]:
    """Returns user and database of a LOGIN7."""
    if len(login) < 72:
        raise TDSWireError(f"a login of {len(login)} bytes")
    user, database = struct.unpack_from("<HH", login, 40), struct.unpack_from("<HH", login, 68)
    return _text(login, *user), _text(login, *database)


def _text(login: bytes, offset: int, length: int) -> str:
    return login[offset : offset + 2 * length].decode("utf-16-le")


def login_accepted(database: str) -> bytes:
    """Returns the answer to a LOGIN7 that is taken: database, version, end."""
    change = struct.pack("<B", 1) + _short(database) + _short("")
    name = _short("dbproxy lab")
    ack = struct.pack(">BI", 1, TDS_7_4) + name + bytes((15, 0, 7, 208))
    return message(_token(0xE3, change) + _token(0xAD, ack) + done())


def one_value(value: str) -> bytes:
    """Returns a result of one row with one column."""
    column = struct.pack("<BHIHBH", 0x81, 1, 0, 8, 0xE7, 0xFFFF) + COLLATION + _short("value")
    data = value.encode("utf-16-le")
    row = struct.pack("<BQI", 0xD1, len(data), len(data)) + data + bytes(4 if data else 0)
    return message(column + row + done(rows=1))


def nothing() -> bytes:
    """Returns a result without rows."""
    return message(done())


def attention_acknowledged() -> bytes:
    """Returns the answer to an ATTENTION: nothing is left of the request before."""
    return message(done(status=DONE_ATTENTION))


def done(*, rows: int = 0, status: int = 0) -> bytes:
    """Returns the token that ends a result."""
    return struct.pack("<BHHQ", 0xFD, status | (DONE_COUNT if rows else 0), 0, rows)


def _token(kind: int, body: bytes) -> bytes:
    return struct.pack("<BH", kind, len(body)) + body


def _short(text: str) -> bytes:
    return bytes((len(text),)) + text.encode("utf-16-le")
