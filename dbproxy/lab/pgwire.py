"""The few PostgreSQL messages that a proxy has to understand. Sans-I/O.

Layouts: PostgreSQL documentation, chapter "Frontend/Backend Protocol", sections "Message Formats"
and "SSL Session Encryption". The messages before authentication have no type byte: a 32-bit length
that includes itself, then a 32-bit code.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dbproxy.lab.errors import LabError

SSL_REQUEST_CODE: Final = 80877103
GSSENC_REQUEST_CODE: Final = 80877104
CANCEL_REQUEST_CODE: Final = 80877102
PROTOCOL_MAJOR: Final = 3

MIN_PACKET_SIZE: Final = 8
MAX_PACKET_SIZE: Final = 10_000
"""The server's own limit for startup packets (``MAX_STARTUP_PACKET_LENGTH``)."""


class PgWireError(LabError):
    """The bytes are not a message that may appear before authentication."""


@dataclass(frozen=True)
class SSLRequest:
    """The client asks whether it may start TLS."""


@dataclass(frozen=True)
class GSSENCRequest:
    """The client asks whether it may start GSSAPI encryption."""


@dataclass(frozen=True)
class CancelRequest:
    """The client wants a query of another connection cancelled.

    Attributes:
        raw: the whole packet. The secret in it is a credential: it stays out of ``repr``.
    """

    raw: bytes = field(repr=False)


@dataclass(frozen=True)
class StartupMessage:
    """The first message of a session.

    Attributes:
        version: protocol version, major in the upper and minor in the lower 16 bits.
        parameters: ``user``, ``database`` and run-time parameters.
    """

    version: int
    parameters: Mapping[str, str]

    @property
    def user(self) -> str:
        """The database user, empty when the client named none."""
        return self.parameters.get("user", "")

    @property
    def database(self) -> str:
        """The database name, empty when the client named none."""
        return self.parameters.get("database", "")

    def encode(self) -> bytes:
        """Returns the packet."""
        body = b"".join(_cstring(text) for item in self.parameters.items() for text in item)
        return _packet(self.version, body + b"\0")


FirstMessage = SSLRequest | GSSENCRequest | CancelRequest | StartupMessage


class FirstMessageReader:
    """Collects bytes into the messages that precede authentication.

    It never takes more bytes than one message, so that whatever follows (a TLS handshake) stays
    with the caller: feed it everything, then ask for ``pop_rest``.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> None:
        """Takes more bytes."""
        self._buffer += data

    def next_message(self) -> FirstMessage | None:
        """Returns the next message, ``None`` while it is incomplete.

        Raises:
            PgWireError: the length is impossible, the code unknown or the content malformed.
        """
        if len(self._buffer) < MIN_PACKET_SIZE // 2:
            return None
        size = int.from_bytes(self._buffer[:4], "big")
        if not MIN_PACKET_SIZE <= size <= MAX_PACKET_SIZE:
            raise PgWireError(f"invalid length of startup packet: {size}")
        if len(self._buffer) < size:
            return None
        packet = bytes(self._buffer[:size])
        del self._buffer[:size]
        return parse_first_message(packet)

    def pop_rest(self) -> bytes:
        """Returns, and forgets, the bytes after the last message."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest


def parse_first_message(packet: bytes) -> FirstMessage:
    """Parses one whole packet, length included.

    Raises:
        PgWireError: the code is unknown or the content malformed.
    """
    code = int.from_bytes(packet[4:8], "big")
    if code == SSL_REQUEST_CODE:
        return _bare(SSLRequest(), packet)
    if code == GSSENC_REQUEST_CODE:
        return _bare(GSSENCRequest(), packet)
    if code == CANCEL_REQUEST_CODE:
        return CancelRequest(packet)
    if code >> 16 == PROTOCOL_MAJOR:
        return StartupMessage(code, _parse_parameters(packet[8:]))
    raise PgWireError(f"unknown startup message code: {code}")


def error_response(message: str, *, severity: str = "", code: str = "") -> bytes:
    """Returns an ErrorResponse; empty fields are left out, as Go's pgproto3 does.

    A database service of Teleport fills in the message only, unless the database itself produced
    the error (lib/srv/db/postgres/engine.go).
    """
    fields = (("S", severity), ("V", severity), ("C", code), ("M", message))
    body = b"".join(kind.encode() + _cstring(value) for kind, value in fields if value)
    return b"E" + struct.pack("!I", len(body) + 5) + body + b"\0"


def _bare(message: SSLRequest | GSSENCRequest, packet: bytes) -> SSLRequest | GSSENCRequest:
    if len(packet) != MIN_PACKET_SIZE:
        raise PgWireError(f"{type(message).__name__} of {len(packet)} bytes")
    return message


def _parse_parameters(body: bytes) -> dict[str, str]:
    """Parses NUL-terminated names and values up to a final NUL."""
    if not body.endswith(b"\0"):
        raise PgWireError("the startup message does not end with a zero byte")
    texts = body[:-1].split(b"\0")
    if texts.pop() != b"" or len(texts) % 2:
        raise PgWireError("the startup message has a name without value")
    try:
        decoded = [text.decode() for text in texts]
    except UnicodeDecodeError as error:
        raise PgWireError("a startup parameter is not UTF-8") from error
    return dict(zip(decoded[::2], decoded[1::2], strict=True))


def _packet(code: int, body: bytes) -> bytes:
    return struct.pack("!II", len(body) + 8, code) + body


def _cstring(text: str) -> bytes:
    return text.encode() + b"\0"
