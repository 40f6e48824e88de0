"""TDS messages as both sides send them, for tests without a server."""

import struct

PRELOGIN, LOGIN7, TABULAR = 0x12, 0x10, 0x04
OFF, ON, NOT_SUPPORTED, REQUIRED = range(4)
TDS_7_1, TDS_7_4 = 0x71000001, 0x74000004


def packet(kind: int, payload: bytes, *, last: bool = True) -> bytes:
    """One packet."""
    return struct.pack(">BBHHBB", kind, int(last), 8 + len(payload), 0, 1, 0) + payload


def prelogin_payload(encryption: int | None, version: bytes = bytes(6)) -> bytes:
    """A PRELOGIN with a version, and with a word about TLS if there is one."""
    options = [(0, version)] + ([(1, bytes([encryption]))] if encryption is not None else [])
    head, values = b"", b""
    for token, value in options:
        head += struct.pack(">BHH", token, 5 * len(options) + 1 + len(values), len(value))
        values += value
    return head + b"\xff" + values


def prelogin(encryption: int | None) -> bytes:
    """A client's PRELOGIN."""
    return packet(PRELOGIN, prelogin_payload(encryption))


def prelogin_answer(encryption: int) -> bytes:
    """A server's answer to PRELOGIN."""
    return packet(TABULAR, prelogin_payload(encryption))


def login_payload(
    user: str = "alice", database: str = "example", *, version: int = TDS_7_4
) -> bytes:
    """A LOGIN7."""
    names = bytearray(58)
    encoded_user, encoded_database = user.encode("utf-16-le"), database.encode("utf-16-le")
    struct.pack_into("<HH", names, 4, 94, len(encoded_user) // 2)
    struct.pack_into("<HH", names, 32, 94 + len(encoded_user), len(encoded_database) // 2)
    body = struct.pack("<I", version) + bytes(28) + names + encoded_user + encoded_database
    return struct.pack("<I", len(body) + 4) + body


def login(*, pieces: int = 1, version: int = TDS_7_4) -> bytes:
    """A LOGIN7 in one packet, or in several."""
    payload = login_payload(version=version)
    size = -(-len(payload) // pieces)
    cut = [payload[start : start + size] for start in range(0, len(payload), size)]
    return b"".join(packet(LOGIN7, piece, last=piece is cut[-1]) for piece in cut)
