"""The few MySQL packets that a proxy has to read and to write. Sans-I/O.

Layouts: MySQL documentation, "Client/Server Protocol", sections "MySQL Packets", "Connection Phase"
and "Generic Response Packets".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import Final

from dbproxy.lab.errors import LabError

LONG_PASSWORD: Final = 0x1
LONG_FLAG: Final = 0x4
CONNECT_WITH_DB: Final = 0x8
PROTOCOL_41: Final = 0x200
SSL: Final = 0x800
TRANSACTIONS: Final = 0x2000
SECURE_CONNECTION: Final = 0x8000
MULTI_STATEMENTS: Final = 0x1_0000
MULTI_RESULTS: Final = 0x2_0000
PLUGIN_AUTH: Final = 0x8_0000
PLUGIN_AUTH_LENENC: Final = 0x20_0000

OFFERED: Final = (
    LONG_PASSWORD
    | LONG_FLAG
    | CONNECT_WITH_DB
    | PROTOCOL_41
    | TRANSACTIONS
    | SECURE_CONNECTION
    | MULTI_STATEMENTS
    | MULTI_RESULTS
    | PLUGIN_AUTH
)
"""What the stand-in offers to clients, and asks of the database on their behalf."""

NATIVE_PASSWORD: Final = b"mysql_native_password"
UTF8MB4: Final = 45
AUTOCOMMIT: Final = 2
HEADER_SIZE: Final = 4
SCRAMBLE_SIZE: Final = 20
FIXED: Final = struct.Struct("<IIB23x")
MAX_PACKET_SIZE: Final = 0x100_0000
LARGEST_PACKET: Final = 70_000
"""Bytes of a payload while somebody logs in."""

OK: Final = 0x00
ERR: Final = 0xFF


class MySQLWireError(LabError):
    """The bytes are not what MySQL has in this place."""


@dataclass(frozen=True)
class Packet:
    """A packet: its number in the exchange, and its payload."""

    number: int
    payload: bytes

    def encode(self) -> bytes:
        """Returns the packet with its header."""
        return struct.pack("<I", len(self.payload))[:3] + bytes([self.number % 256]) + self.payload


@dataclass(frozen=True)
class Login:
    """What a client says in its HandshakeResponse41.

    Attributes:
        capabilities: what it can do.
        charset: its character set's number.
        user: the database user.
        database: the database name, empty when it named none.
    """

    capabilities: int
    charset: int
    user: str
    database: str

    def encode(self) -> bytes:
        """Returns the payload, without a password, for the native-password plugin."""
        capabilities = (self.capabilities & OFFERED & ~CONNECT_WITH_DB) | PROTOCOL_41 | PLUGIN_AUTH
        capabilities |= SECURE_CONNECTION | (CONNECT_WITH_DB if self.database else 0)
        payload = FIXED.pack(capabilities, MAX_PACKET_SIZE, self.charset)
        payload += self.user.encode() + b"\0" + b"\0"
        if self.database:
            payload += self.database.encode() + b"\0"
        return payload + NATIVE_PASSWORD + b"\0"

    def completed(self, *, user: str, database: str) -> Login:
        """Returns the login with what the client left out."""
        return replace(self, user=self.user or user, database=self.database or database)


@dataclass
class PacketBuffer:
    """Collects bytes into packets."""

    _bytes: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes | bytearray) -> None:
        """Takes more bytes."""
        self._bytes += data

    def pop(self) -> Packet | None:
        """Returns the next packet, ``None`` while it is incomplete.

        Raises:
            MySQLWireError: it is too large for a login.
        """
        if len(self._bytes) < HEADER_SIZE:
            return None
        size = int.from_bytes(self._bytes[:3], "little")
        if size > LARGEST_PACKET:
            raise MySQLWireError(f"a packet of {size} bytes during the login")
        end = HEADER_SIZE + size
        if len(self._bytes) < end:
            return None
        packet = Packet(self._bytes[3], bytes(self._bytes[HEADER_SIZE:end]))
        del self._bytes[:end]
        return packet

    def pop_rest(self) -> bytes:
        """Returns, and forgets, what came behind the last packet."""
        rest = bytes(self._bytes)
        self._bytes.clear()
        return rest


def greeting(version: str, scramble: bytes, *, ssl: bool) -> Packet:
    """Returns the HandshakeV10 of a server that knows the native-password plugin only."""
    capabilities = OFFERED | (SSL if ssl else 0)
    payload = b"\x0a" + version.encode() + b"\0" + struct.pack("<I", 1) + scramble[:8] + b"\0"
    payload += struct.pack("<HBH", capabilities & 0xFFFF, UTF8MB4, AUTOCOMMIT)
    payload += struct.pack("<HB", capabilities >> 16, SCRAMBLE_SIZE + 1) + bytes(10)
    return Packet(0, payload + scramble[8:] + b"\0" + NATIVE_PASSWORD + b"\0")


def is_ssl_request(payload: bytes) -> bool:
    """Tells whether a client asks for TLS, instead of logging in."""
    return len(payload) == FIXED.size and bool(FIXED.unpack(payload)[0] & SSL)


def parse_login(payload: bytes) -> Login:
    """Parses a HandshakeResponse41.

    Raises:
        MySQLWireError: it is none.
    """
    if len(payload) <= FIXED.size:
        raise MySQLWireError(f"a login of {len(payload)} bytes")
    capabilities, _, charset = FIXED.unpack(payload[: FIXED.size])
    if not capabilities & PROTOCOL_41:
        raise MySQLWireError("a login of a client older than MySQL 4.1")
    user, zero, rest = payload[FIXED.size :].partition(b"\0")
    if not zero:
        raise MySQLWireError("a login whose user has no end")
    database = b""
    if capabilities & CONNECT_WITH_DB:
        if capabilities & (PLUGIN_AUTH_LENENC | SECURE_CONNECTION):
            rest = rest[1 + rest[0] :] if rest else b""  # answers are shorter than 251 bytes
        else:
            rest = rest.partition(b"\0")[2]
        database = rest.partition(b"\0")[0]
    return Login(capabilities, charset, user.decode(), database.decode())


def ok(number: int) -> Packet:
    """Returns an OK without anything to tell."""
    return Packet(number, b"\0\0\0" + struct.pack("<HH", AUTOCOMMIT, 0))


def error(number: int, code: int, message: str, state: str = "HY000") -> Packet:
    """Returns an ERR."""
    payload = b"\xff" + struct.pack("<H", code) + b"#" + state.encode() + message.encode()
    return Packet(number, payload)
