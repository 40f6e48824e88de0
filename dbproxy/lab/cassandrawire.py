"""The few frames of Cassandra's native protocol that the stand-in reads and writes. Sans-I/O.

Layouts: CQL binary protocol, versions 3 and 4 (native_protocol_v4.spec of Apache Cassandra):
sections 2 (frame header), 3 (notations) and 4 (messages).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from dbproxy.lab.errors import LabError

OLDEST, NEWEST = 3, 4
"""Versions that the stand-in speaks: those of Cassandra 2.1 to 3.11."""
RESPONSE: Final = 0x80
HEADER: Final = struct.Struct(">BBhBi")
MAX_BODY: Final = 1024 * 1024

ERROR: Final = 0x00
STARTUP: Final = 0x01
READY: Final = 0x02
OPTIONS: Final = 0x05
SUPPORTED: Final = 0x06
QUERY: Final = 0x07
RESULT: Final = 0x08
REGISTER: Final = 0x0B

ROWS: Final = 0x0002
GLOBAL_TABLES_SPEC: Final = 0x0001
UUID_TYPE: Final = 0x000C
VARCHAR: Final = 0x000D
SET: Final = 0x0022
PROTOCOL_ERROR: Final = 0x000A
SYNTAX_ERROR: Final = 0x2000
INVALID: Final = 0x2200


class CassandraWireError(LabError):
    """The bytes are not what the protocol has in this place."""


@dataclass(frozen=True)
class Column:
    """A column of a result.

    Attributes:
        name: its name.
        kind: its type, as an option of section 4.2.5.2.
        values: its value in each row.
    """

    name: str
    kind: bytes
    values: Sequence[bytes]


def text(name: str, *values: str) -> Column:
    """Returns a column of text."""
    return Column(name, struct.pack(">H", VARCHAR), [value.encode() for value in values])


def identifier(name: str, *values: UUID) -> Column:
    """Returns a column of UUIDs."""
    return Column(name, struct.pack(">H", UUID_TYPE), [value.bytes for value in values])


def texts(name: str, *values: Sequence[str]) -> Column:
    """Returns a column of sets of text."""
    sets = [
        struct.pack(">i", len(value)) + b"".join(_bytes(one.encode()) for one in value)
        for value in values
    ]
    return Column(name, struct.pack(">HH", SET, VARCHAR), sets)


@dataclass(frozen=True)
class Frame:
    """A message of a client.

    Attributes:
        version: the protocol version.
        stream: the number that the answer must carry.
        opcode: which message it is.
        body: the rest.
    """

    version: int
    stream: int
    opcode: int
    body: bytes

    def query(self) -> str:
        """Returns the text of a QUERY.

        Raises:
            CassandraWireError: it is shorter than it says.
        """
        if len(self.body) < 4:
            raise CassandraWireError("a QUERY without a text")
        size = int.from_bytes(self.body[:4], "big")
        if size > len(self.body) - 4:
            raise CassandraWireError(f"a QUERY of {size} bytes in a body of {len(self.body)}")
        return self.body[4 : 4 + size].decode()

    def answer(self, opcode: int, body: bytes = b"") -> bytes:
        """Returns an answer to this message, in its version or in the newest one."""
        version = self.version if OLDEST <= self.version <= NEWEST else NEWEST
        return HEADER.pack(version | RESPONSE, 0, self.stream, opcode, len(body)) + body

    def error(self, code: int, message: str) -> bytes:
        """Returns an ERROR."""
        return self.answer(ERROR, struct.pack(">i", code) + _string(message))

    def rows(self, table: str, columns: Sequence[Column]) -> bytes:
        """Returns a RESULT with rows; the columns have one value for each of them."""
        metadata = struct.pack(">iii", ROWS, GLOBAL_TABLES_SPEC, len(columns))
        metadata += _string("example") + _string(table)
        metadata += b"".join(_string(column.name) + column.kind for column in columns)
        rows = list(zip(*(column.values for column in columns), strict=True))
        values = b"".join(_bytes(value) for row in rows for value in row)
        return self.answer(RESULT, metadata + struct.pack(">i", len(rows)) + values)


class FrameBuffer:
    """Collects bytes into frames."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes | bytearray) -> None:
        """Takes more bytes."""
        self._bytes += data

    def pop(self) -> Frame | None:
        """Returns the next frame, ``None`` while it is incomplete.

        Raises:
            CassandraWireError: it is an answer, or too large.
        """
        if len(self._bytes) < HEADER.size:
            return None
        version, _flags, stream, opcode, size = HEADER.unpack_from(self._bytes)
        if version & RESPONSE or not 0 <= size <= MAX_BODY:
            raise CassandraWireError(f"a frame of version {version:#x} and {size} bytes")
        end = HEADER.size + size
        if len(self._bytes) < end:
            return None
        body = bytes(self._bytes[HEADER.size : end])
        del self._bytes[:end]
        return Frame(version, stream, opcode, body)


def supported(options: Mapping[str, Sequence[str]]) -> bytes:
    """Returns the body of a SUPPORTED: a string multimap."""
    body = struct.pack(">H", len(options))
    for name, values in options.items():
        body += _string(name) + struct.pack(">H", len(values)) + b"".join(map(_string, values))
    return body


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _bytes(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data
