"""TDS, as far as a proxy has to understand it: messages, PRELOGIN, LOGIN7, error.

A message is one packet or several; each has a header of eight bytes: type, status (1 in the last
packet), length with the header, big-endian, and four bytes that do not matter here ([MS-TDS]
2.2.3.1).

| message        | type   | payload                                                         |
|----------------|--------|-----------------------------------------------------------------|
| PRELOGIN       | `0x12` | options: token, offset, length; `0xff`; their values (2.2.6.5)  |
| LOGIN7         | `0x10` | fixed fields, offsets and lengths of names, the names (2.2.6.4) |
| tabular result | `0x04` | the answer to PRELOGIN, in the same form; or tokens (2.2.7)     |

Tested in `tests/unit/protocols/wire/test_tds_packets.py`.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

__all__ = [
    "END_OF_MESSAGE",
    "HEADER_SIZE",
    "LOGIN7",
    "PACKET_SIZE",
    "PRELOGIN",
    "SERVER_VERSION",
    "TABULAR_RESULT",
    "Encryption",
    "MalformedTDSError",
    "Message",
    "MessageReader",
    "encode_message",
    "encryption_of",
    "error_text",
    "login_error",
    "prelogin",
    "tds_version",
    "user_and_database",
]

PRELOGIN: Final = 0x12
LOGIN7: Final = 0x10
TABULAR_RESULT: Final = 0x04

_HEADER: Final = struct.Struct(">BBHHBB")
HEADER_SIZE: Final = _HEADER.size
END_OF_MESSAGE: Final = 0x01
LARGEST_MESSAGE: Final = 128 * 1024
"""Bytes of a LOGIN7 at most ([MS-TDS] 2.2.6.4); what is larger is meant to fill our memory."""
PACKET_SIZE: Final = 4096
"""Of packets before the login has agreed on another size ([MS-TDS] 2.2.3.1.3)."""
SERVER_VERSION: Final = bytes([15, 0, 0x07, 0xD0, 0, 0])
"""SQL Server 2019, which is what Teleport's handler says."""

_OPTION: Final = struct.Struct(">BHH")
_VERSION_OPTION: Final = 0x00
_ENCRYPTION_OPTION: Final = 0x01
_INSTANCE_OPTION: Final = 0x02
_THREAD_OPTION: Final = 0x03
_MARS_OPTION: Final = 0x04
_TERMINATOR: Final = 0xFF

_ERROR_TOKEN: Final = 0xAA
_DONE_TOKEN: Final = 0xFD
_DONE_ERROR: Final = 0x0002
_LOGIN_FAILED: Final = 18456
_SEVERITY: Final = 14
_VERSION_7_2: Final = 0x72090002
"""From this TDS version on, line numbers and row counts are longer ([MS-TDS] 2.2.7.10)."""
_SERVER_NAME: Final = "dbproxy"

_LOGIN_VERSION: Final = struct.Struct("<4xI")
_LOGIN_NAME: Final = struct.Struct("<HH")
_USER_AT: Final = 40
_DATABASE_AT: Final = 68
_FIXED_SIZE: Final = 94


class Encryption(IntEnum):
    """What PRELOGIN says about TLS; the high bit, about client certificates, is left out."""

    OFF = 0
    """Only the login, or all if the other side wants that."""
    ON = 1
    NOT_SUPPORTED = 2
    REQUIRED = 3


class MalformedTDSError(Exception):
    """The bytes are not what TDS has in this place."""


@dataclass(frozen=True, slots=True)
class Message:
    """One whole message.

    Attributes:
        kind: Its type.
        payload: Without the headers.
        raw: As it came.
    """

    kind: int
    payload: bytes
    raw: bytes


class MessageReader:
    """Takes bytes, however they are split, and gives whole messages.

    It holds one message at most, and what came behind it in the same piece.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._payload = bytearray()
        self._position = 0  # up to where the packets in the buffer belong to the message

    def feed(self, data: bytes) -> None:
        """Take more bytes."""
        self._buffer += data

    def next_message(self) -> Message | None:
        """The next message, or None while it is incomplete.

        Raises:
            MalformedTDSError: Its packets contradict each other, or it is too large.
        """
        while len(self._buffer) >= self._position + HEADER_SIZE:
            kind, status, length, *_ = _HEADER.unpack_from(self._buffer, self._position)
            end = self._position + length
            if length < HEADER_SIZE or kind != self._buffer[0]:
                raise MalformedTDSError(f"a packet of type {kind} and {length} bytes")
            if end > LARGEST_MESSAGE:
                raise MalformedTDSError(f"a message of more than {LARGEST_MESSAGE} bytes")
            if len(self._buffer) < end:
                return None
            self._payload += self._buffer[self._position + HEADER_SIZE : end]
            self._position = end
            if status & END_OF_MESSAGE:
                return self._take(kind)
        return None

    def _take(self, kind: int) -> Message:
        message = Message(kind, bytes(self._payload), bytes(self._buffer[: self._position]))
        del self._buffer[: self._position]
        self._payload.clear()
        self._position = 0
        return message

    def take_rest(self) -> bytes:
        """What came behind the messages that were given; it is forgotten here."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._payload.clear()
        self._position = 0
        return rest

    @property
    def beginning(self) -> bytes:
        """What there is of the next message, headers included."""
        return bytes(self._buffer)


def encode_message(kind: int, payload: bytes) -> bytes:
    """A message, in as many packets as it needs."""
    room = PACKET_SIZE - HEADER_SIZE
    packets = b""
    for number, start in enumerate(range(0, max(len(payload), 1), room), start=1):
        piece = payload[start : start + room]
        status = END_OF_MESSAGE if start + room >= len(payload) else 0
        packets += _HEADER.pack(kind, status, HEADER_SIZE + len(piece), 0, number % 256, 0) + piece
    return packets


def prelogin(version: bytes, encryption: Encryption) -> bytes:
    """The payload of a PRELOGIN, or of the answer to one, without multiple result sets.

    Args:
        version: Six bytes: of the client's library, or of the server.
        encryption: What is said about TLS.
    """
    options: Mapping[int, bytes] = {
        _VERSION_OPTION: version,
        _ENCRYPTION_OPTION: bytes([encryption]),
        _INSTANCE_OPTION: b"\0",
        _THREAD_OPTION: bytes(4),
        _MARS_OPTION: b"\0",
    }
    offset = _OPTION.size * len(options) + 1
    head = b""
    for token, value in options.items():
        head += _OPTION.pack(token, offset, len(value))
        offset += len(value)
    return head + bytes([_TERMINATOR]) + b"".join(options.values())


def encryption_of(payload: bytes) -> Encryption:
    """What a PRELOGIN, or the answer to one, says about TLS; without a word, that there is none.

    Raises:
        MalformedTDSError: It is no PRELOGIN.
    """
    at = 0
    while payload[at : at + 1] != bytes([_TERMINATOR]):
        if len(payload) < at + _OPTION.size:
            raise MalformedTDSError("a PRELOGIN that ends too early")
        token, offset, length = _OPTION.unpack_from(payload, at)
        if offset + length > len(payload):
            raise MalformedTDSError("a PRELOGIN whose option lies outside of it")
        if token == _ENCRYPTION_OPTION and length:
            return Encryption(payload[offset] & 0x03)
        at += _OPTION.size
    return Encryption.NOT_SUPPORTED


def tds_version(login: bytes) -> int:
    """The TDS version of a LOGIN7; the oldest when it does not say."""
    return int(_LOGIN_VERSION.unpack_from(login)[0]) if len(login) >= _LOGIN_VERSION.size else 0


def user_and_database(login: bytes) -> tuple[str | None, str | None]:
    """The user and the database that a LOGIN7 names, where it does.

    Nothing depends on them but what the records say, so a malformed login names none.
    """
    if len(login) < _FIXED_SIZE:
        return None, None
    return _name(login, _USER_AT), _name(login, _DATABASE_AT)


def _name(login: bytes, at: int) -> str | None:
    offset, length = _LOGIN_NAME.unpack_from(login, at)
    return login[offset : offset + 2 * length].decode("utf-16-le", errors="replace") or None


def login_error(message: str, version: int) -> bytes:
    """The answer to a LOGIN7 that has failed, as whole packets: an error and the end.

    Args:
        message: Why.
        version: The client's TDS version.
    """
    is_new = version >= _VERSION_7_2
    body = struct.pack("<IBB", _LOGIN_FAILED, 1, _SEVERITY)
    body += _counted(message, "<H") + _counted(_SERVER_NAME, "<B") + _counted("", "<B")
    body += struct.pack("<I" if is_new else "<H", 1)
    error = struct.pack("<BH", _ERROR_TOKEN, len(body)) + body
    done = struct.pack("<BHHQ" if is_new else "<BHHI", _DONE_TOKEN, _DONE_ERROR, 0, 0)
    return encode_message(TABULAR_RESULT, error + done)


def _counted(text: str, count: str) -> bytes:
    encoded = text.encode("utf-16-le")
    return struct.pack(count, len(encoded) // 2) + encoded


def error_text(payload: bytes) -> str | None:
    """The text of a tabular result that begins with an error; None for any other."""
    if payload[:1] != bytes([_ERROR_TOKEN]) or len(payload) < 11:
        return None
    length = int.from_bytes(payload[9:11], "little")
    return payload[11 : 11 + 2 * length].decode("utf-16-le", errors="replace")
