"""Read a TLS ClientHello without answering it.

Problem: Teleport's Proxy decides who serves a connection (and whether anybody does) before the
handshake starts, and closes the TCP connection without any alert when nobody does
(lib/srv/alpnproxy/proxy.go). The standard library's server calls back too late for that: once it
has seen the message, it answers it.

Choice: a sans-I/O reader that takes bytes as they come, hands out the two facts that routing needs
(server name and ALPN list) and keeps every byte, so that the real TLS server can be fed the same
message again. Layouts: RFC 8446 §4.1.2 and §5.1 (RFC 5246 is the same here), RFC 6066 §3, RFC 7301
§3.1. Every length is checked against its container and against a limit before it is believed.
"""

from __future__ import annotations

from dataclasses import dataclass

from dbproxy.lab.errors import LabError

CONTENT_TYPE_HANDSHAKE = 22
HANDSHAKE_CLIENT_HELLO = 1
EXTENSION_SERVER_NAME = 0
EXTENSION_ALPN = 16
NAME_TYPE_HOST_NAME = 0

RECORD_HEADER_SIZE = 5
HANDSHAKE_HEADER_SIZE = 4
MAX_RECORD_SIZE = 2**14
"""Largest plaintext record (RFC 8446 §5.1)."""
MAX_HANDSHAKE_SIZE = 2**16
"""Largest handshake message that is accepted; the same limit as Go's crypto/tls."""


class ClientHelloError(LabError):
    """The bytes are not a well-formed TLS ClientHello."""


@dataclass(frozen=True)
class ClientHello:
    """What the first message of a TLS client says.

    Attributes:
        server_name: the SNI host name, ``None`` when the extension is absent.
        alpn: the offered application protocols in the client's order, decoded as Latin-1 so that
            every byte value survives; empty when the extension is absent.
    """

    server_name: str | None
    alpn: tuple[str, ...]


class ClientHelloReader:
    """Collects bytes until a whole ClientHello has arrived.

    A ClientHello may be split over TCP segments and over several TLS records.
    """

    def __init__(self) -> None:
        self._received = bytearray()
        self._parsed = 0
        self._message = bytearray()

    @property
    def received(self) -> bytes:
        """Every byte fed so far, in order: what the real handshake must see first."""
        return bytes(self._received)

    def feed(self, data: bytes | bytearray) -> ClientHello | None:
        """Takes more bytes; returns the ClientHello once it is complete, ``None`` before.

        Raises:
            ClientHelloError: the bytes cannot become a ClientHello, or exceed the size limit.
        """
        self._received += data
        while not self._message_is_complete():
            if not self._take_record():
                return None
        return parse_client_hello(bytes(self._message[HANDSHAKE_HEADER_SIZE : self._message_end()]))

    def _take_record(self) -> bool:
        """Moves one record's payload to the message; False when the record is incomplete."""
        header = self._received[self._parsed : self._parsed + RECORD_HEADER_SIZE]
        _check_record_header(header)
        if len(header) < RECORD_HEADER_SIZE:
            return False
        start = self._parsed + RECORD_HEADER_SIZE
        end = start + int.from_bytes(header[3:5], "big")
        if len(self._received) < end:
            return False
        self._message += self._received[start:end]
        self._parsed = end
        return True

    def _message_is_complete(self) -> bool:
        if self._message and self._message[0] != HANDSHAKE_CLIENT_HELLO:
            raise ClientHelloError(f"handshake message {self._message[0]} is not a ClientHello")
        if len(self._message) < HANDSHAKE_HEADER_SIZE:
            return False
        if self._message_end() > MAX_HANDSHAKE_SIZE:
            raise ClientHelloError("the ClientHello is larger than 64 KiB")
        return len(self._message) >= self._message_end()

    def _message_end(self) -> int:
        return HANDSHAKE_HEADER_SIZE + int.from_bytes(self._message[1:4], "big")


def parse_client_hello(body: bytes) -> ClientHello:
    """Parses the body of a ClientHello, without record and handshake headers.

    Raises:
        ClientHelloError: a length does not fit its container, or bytes are left over.
    """
    cursor = _Cursor(body)
    cursor.take(2 + 32)  # legacy_version, random
    cursor.vector(1)  # legacy_session_id
    cursor.vector(2)  # cipher_suites
    cursor.vector(1)  # legacy_compression_methods
    extensions = _parse_extensions(cursor.vector(2)) if cursor.remaining else {}
    cursor.expect_end("ClientHello")
    return ClientHello(
        server_name=_parse_server_name(extensions.get(EXTENSION_SERVER_NAME)),
        alpn=_parse_alpn(extensions.get(EXTENSION_ALPN)),
    )


def _check_record_header(header: bytes | bytearray) -> None:
    """Refuses early whatever cannot become a handshake record, however little has arrived."""
    if header and header[0] != CONTENT_TYPE_HANDSHAKE:
        raise ClientHelloError(f"first byte 0x{header[0]:02x} does not start a TLS handshake")
    if len(header) > 1 and header[1] != 3:
        raise ClientHelloError(f"record version {header[1]}.x is not TLS")
    if len(header) < RECORD_HEADER_SIZE:
        return
    length = int.from_bytes(header[3:5], "big")
    if not 0 < length <= MAX_RECORD_SIZE:
        raise ClientHelloError(f"handshake record of {length} bytes")


def _parse_extensions(data: bytes) -> dict[int, bytes]:
    cursor = _Cursor(data)
    extensions: dict[int, bytes] = {}
    while cursor.remaining:
        kind = cursor.number(2)
        if kind in extensions:
            raise ClientHelloError(f"extension {kind} appears twice")
        extensions[kind] = cursor.vector(2)
    return extensions


def _parse_server_name(data: bytes | None) -> str | None:
    if data is None:
        return None
    outer = _Cursor(data)
    names = _Cursor(outer.vector(2))
    outer.expect_end("server_name extension")
    host = None
    while names.remaining:
        kind, name = names.number(1), names.vector(2)
        if kind == NAME_TYPE_HOST_NAME and host is None:
            host = name.decode("latin-1")
    return host


def _parse_alpn(data: bytes | None) -> tuple[str, ...]:
    if data is None:
        return ()
    outer = _Cursor(data)
    names = _Cursor(outer.vector(2))
    outer.expect_end("ALPN extension")
    values = []
    while names.remaining:
        values.append(names.vector(1).decode("latin-1"))
    if not values or "" in values:
        raise ClientHelloError("empty value in the ALPN extension")
    return tuple(values)


class _Cursor:
    """A position in bytes that never reads past their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def remaining(self) -> int:
        return len(self._data) - self._position

    def take(self, size: int) -> bytes:
        if size > self.remaining:
            raise ClientHelloError(f"{size} bytes announced, {self.remaining} present")
        start, self._position = self._position, self._position + size
        return self._data[start : self._position]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, length_size: int) -> bytes:
        return self.take(self.number(length_size))

    def expect_end(self, what: str) -> None:
        if self.remaining:
            raise ClientHelloError(f"{self.remaining} bytes after the {what}")
