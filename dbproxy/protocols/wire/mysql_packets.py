"""MySQL's packets, as far as a proxy has to understand them: framing, greeting, login, error.

A packet is three bytes of length, little-endian, one byte of sequence number, and the payload
(MySQL documentation, "MySQL Packets"). The numbers count the packets of one exchange, whoever sends
them, and each side drops a connection whose numbers are out of order.

| packet              | sent by | payload                                                     |
|---------------------|---------|-------------------------------------------------------------|
| HandshakeV10        | server  | `0x0a`, version, …, capabilities (in two halves), …         |
| SSLRequest          | client  | 32 bytes: capabilities with `CLIENT_SSL`, …; then TLS       |
| HandshakeResponse41 | client  | the same 32 bytes, user, answer to the scramble, database … |
| AuthSwitchRequest   | server  | `0xfe`, …                                                   |
| AuthMoreData        | server  | `0x01`, …                                                   |
| OK, ERR             | server  | `0x00`, … and `0xff`, …: the login is over                  |

Tested in `tests/unit/protocols/wire/test_mysql_packets.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = [
    "CLIENT_SSL",
    "ERR",
    "HEADER_SIZE",
    "LARGEST_LOGIN_PACKET",
    "LONGEST_ERROR_TEXT",
    "SEQUENCE_NUMBERS",
    "MalformedPacketError",
    "Packet",
    "PacketReader",
    "capabilities_of",
    "encode_packet",
    "error_packet",
    "error_text",
    "greeting_offers_tls",
    "is_tls_request",
    "offering_tls",
    "relabelled_error",
    "user_and_database",
    "without_tls",
]

CLIENT_CONNECT_WITH_DB: Final = 1 << 3
CLIENT_PROTOCOL_41: Final = 1 << 9
CLIENT_SSL: Final = 1 << 11
CLIENT_SECURE_CONNECTION: Final = 1 << 15
CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA: Final = 1 << 21

ERR: Final = 0xFF
HANDSHAKE_V10: Final = 0x0A

HEADER_SIZE: Final = 4
"""Bytes in front of a payload."""
LARGEST_LOGIN_PACKET: Final = 128 * 1024
"""Bytes of a payload until the login is over. Connection attributes may have 64 KiB in all, and a
token of Kerberos as much; what is larger could only be meant to fill our memory."""

_TLS_REQUEST_SIZE: Final = 32
LONGEST_ERROR_TEXT: Final = 511
"""Bytes of an error's text that clients keep (`MYSQL_ERRMSG_SIZE`, with its final zero)."""
SEQUENCE_NUMBERS: Final = 256


class MalformedPacketError(Exception):
    """The bytes are not what MySQL has in this place."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One whole packet.

    Attributes:
        sequence: Its number in the exchange.
        payload: Without the header.
    """

    sequence: int
    payload: bytes


class PacketReader:
    """Takes bytes, however they are split, and gives whole packets.

    It holds one packet at most, and what came behind it in the same piece.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take more bytes."""
        self._buffer += data

    def next_packet(self) -> Packet | None:
        """The next packet, or None while it is incomplete.

        Raises:
            MalformedPacketError: It is larger than any packet of a login.
        """
        if len(self._buffer) < HEADER_SIZE:
            return None
        length = int.from_bytes(self._buffer[:3], "little")
        if length > LARGEST_LOGIN_PACKET:
            raise MalformedPacketError(f"a packet of {length} bytes")
        end = HEADER_SIZE + length
        if len(self._buffer) < end:
            return None
        packet = Packet(self._buffer[3], bytes(self._buffer[HEADER_SIZE:end]))
        del self._buffer[:end]
        return packet

    def take_rest(self) -> bytes:
        """What came behind the packets that were given; it is forgotten here."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    @property
    def next_sequence(self) -> int | None:
        """The number of the next packet, which need not be complete; None before it is here."""
        return self._buffer[3] if len(self._buffer) >= HEADER_SIZE else None

    @property
    def beginning(self) -> bytes:
        """What there is of the next packet, header included."""
        return bytes(self._buffer)


def encode_packet(sequence: int, payload: bytes) -> bytes:
    """The packet as it is sent; numbers begin anew behind 255."""
    return len(payload).to_bytes(3, "little") + bytes([sequence % SEQUENCE_NUMBERS]) + payload


def greeting_offers_tls(greeting: bytes) -> bool:
    """Whether a server's HandshakeV10 says that clients may begin TLS.

    Raises:
        MalformedPacketError: It is no such packet.
    """
    at = _lower_capabilities(greeting)
    return bool(int.from_bytes(greeting[at : at + 2], "little") & CLIENT_SSL)


def offering_tls(greeting: bytes) -> bytes:
    """A server's HandshakeV10, as a server that offers TLS would have sent it.

    Raises:
        MalformedPacketError: It is no such packet.
    """
    at = _lower_capabilities(greeting)
    capabilities = int.from_bytes(greeting[at : at + 2], "little") | CLIENT_SSL
    return greeting[:at] + capabilities.to_bytes(2, "little") + greeting[at + 2 :]


def _lower_capabilities(greeting: bytes) -> int:
    """Where the capabilities' lower half is: behind version, thread and half of the scramble."""
    if greeting[:1] != bytes([HANDSHAKE_V10]):
        raise MalformedPacketError(f"a greeting of protocol version {greeting[:1].hex() or 'none'}")
    version_end = greeting.find(b"\0", 1)
    at = version_end + 1 + 4 + 8 + 1
    if version_end < 0 or len(greeting) < at + 2:
        raise MalformedPacketError("a greeting that ends too early")
    return at


def capabilities_of(response: bytes) -> int:
    """What a client says it can do, in either of its first packets; the old ones have two bytes."""
    lower = int.from_bytes(response[:2], "little")
    if lower & CLIENT_PROTOCOL_41:
        return int.from_bytes(response[:4], "little")
    return lower


def is_tls_request(payload: bytes) -> bool:
    """Whether a client's first packet is an SSLRequest, so that TLS begins behind it."""
    return len(payload) == _TLS_REQUEST_SIZE and bool(capabilities_of(payload) & CLIENT_SSL)


def without_tls(response: bytes) -> bytes:
    """A client's login packet, as one would send it that does not use TLS.

    A server that reads `CLIENT_SSL` here begins a TLS handshake, and takes the next bytes for it.
    """
    lower = int.from_bytes(response[:2], "little") & ~CLIENT_SSL
    return lower.to_bytes(2, "little") + response[2:]


def user_and_database(response: bytes) -> tuple[str | None, str | None]:
    """The user and the database that a HandshakeResponse41 names, where it does.

    Nothing depends on them but what the records say, so a malformed packet names none.
    """
    capabilities = capabilities_of(response)
    if not capabilities & CLIENT_PROTOCOL_41:
        return None, None
    user, separator, rest = response[_TLS_REQUEST_SIZE:].partition(b"\0")
    if not separator:
        return None, None
    database = b""
    if capabilities & CLIENT_CONNECT_WITH_DB:
        database = _behind_answer(rest, capabilities).partition(b"\0")[0]
    return _text(user), _text(database)


def _behind_answer(rest: bytes, capabilities: int) -> bytes:
    """What follows the answer to the scramble, whose length is told in one of three ways."""
    if capabilities & CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA:
        size, start = _length_encoded(rest)
        return rest[start + size :]
    if capabilities & CLIENT_SECURE_CONNECTION:
        return rest[1 + int.from_bytes(rest[:1], "little") :]
    return rest.partition(b"\0")[2]


def _length_encoded(data: bytes) -> tuple[int, int]:
    """A length-encoded integer, and its size."""
    width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(data[0] if data else 0, 0)
    if not width:
        return int.from_bytes(data[:1], "little"), 1
    return int.from_bytes(data[1 : 1 + width], "little"), 1 + width


def _text(name: bytes) -> str | None:
    return name.decode(errors="replace") or None


def error_text(error: bytes) -> str:
    """The text of an ERR packet's payload, without number and SQLSTATE."""
    text = error[3:]
    return (text[6:] if text[:1] == b"#" else text).decode(errors="replace")


def error_packet(sequence: int, code: int, sqlstate: str | None, text: str) -> bytes:
    """An ERR packet.

    Args:
        sequence: The packet's number.
        code: The error's number.
        sqlstate: Its SQLSTATE; None before the client could say that it knows such.
        text: What happened; clients cut what is longer than `LONGEST_ERROR_TEXT`.
    """
    state = b"" if sqlstate is None else b"#" + sqlstate.encode()
    payload = bytes([ERR]) + code.to_bytes(2, "little") + state + text.encode()
    return encode_packet(sequence, payload)


def relabelled_error(error: bytes, code: int, sqlstate: str, endings: Sequence[str]) -> bytes:
    """An ERR packet's payload under another number, its text as it was.

    Args:
        error: The payload.
        code: The other number.
        sqlstate: The SQLSTATE that belongs to it; left out where the packet has none.
        endings: What may follow the text, the best one first; the first one counts that clients
            would not cut, if there is one.
    """
    has_sqlstate = error[3:4] == b"#"
    text = error[9:] if has_sqlstate else error[3:]
    added = (b" " + ending.encode() for ending in endings)
    ending = next((more for more in added if len(text) + len(more) <= LONGEST_ERROR_TEXT), b"")
    state = b"#" + sqlstate.encode() if has_sqlstate else b""
    return bytes([ERR]) + code.to_bytes(2, "little") + state + text + ending
