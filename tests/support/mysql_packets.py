"""MySQL's packets as both sides send them, for tests without a server."""

import struct

import trio

GREETING_SCRAMBLE = bytes(range(1, 21))
CAPABILITIES = 0x0008_A208
"""Of a server: database in the login, protocol 4.1, transactions, secure, plugins; no TLS."""
SSL = 0x800
LENENC = 0x20_0000


def packet(number: int, payload: bytes) -> bytes:
    """A packet with its header."""
    return struct.pack("<I", len(payload))[:3] + bytes([number]) + payload


def greeting_payload(*, ssl: bool = False, version: bytes = b"8.0.36") -> bytes:
    """A HandshakeV10."""
    capabilities = CAPABILITIES | (SSL if ssl else 0)
    return (
        b"\x0a"
        + version
        + b"\0"
        + struct.pack("<I", 7)
        + GREETING_SCRAMBLE[:8]
        + b"\0"
        + struct.pack("<HBHHB", capabilities & 0xFFFF, 45, 2, capabilities >> 16, 21)
        + bytes(10)
        + GREETING_SCRAMBLE[8:]
        + b"\0mysql_native_password\0"
    )


def tls_request(number: int = 1) -> bytes:
    """An SSLRequest."""
    return packet(number, struct.pack("<IIB23x", CAPABILITIES | SSL, 1 << 24, 45))


def response_payload(
    *, user: bytes = b"alice", database: bytes = b"example", ssl: bool = False, lenenc: bool = False
) -> bytes:
    """A HandshakeResponse41."""
    capabilities = CAPABILITIES | (SSL if ssl else 0) | (LENENC if lenenc else 0)
    proof = bytes(range(20))
    return (
        struct.pack("<IIB23x", capabilities, 1 << 24, 45)
        + user
        + b"\0"
        + bytes([len(proof)])
        + proof
        + database
        + b"\0mysql_native_password\0"
    )


def ok(number: int) -> bytes:
    """An OK."""
    return packet(number, b"\0\0\0\2\0\0\0")


def error(number: int, text: bytes = b"Access denied") -> bytes:
    """An ERR with number 1045."""
    return packet(number, b"\xff\x15\x04#28000" + text)


async def read_packet(stream: trio.SocketStream) -> bytes:
    """One packet as it was sent."""
    header = await stream.receive_some(4)
    payload = b""
    while len(payload) < int.from_bytes(header[:3], "little"):
        payload += await stream.receive_some(int.from_bytes(header[:3], "little") - len(payload))
    return header + payload
