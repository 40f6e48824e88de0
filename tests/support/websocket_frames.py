"""WebSocket frames as any end may make them (RFC 6455 §5.2), independent of the product's layer."""

import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


def frame(opcode: int, payload: bytes, *, key: bytes | None = None) -> bytes:
    """One whole frame; with a key, masked."""
    mask = 0x80 if key is not None else 0
    size = len(payload)
    if size <= 125:
        length = struct.pack("!B", mask | size)
    elif size < 1 << 16:
        length = struct.pack("!BH", mask | 126, size)
    else:
        length = struct.pack("!BQ", mask | 127, size)
    if key is None:
        return bytes([0x80 | opcode]) + length + payload
    masked = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    return bytes([0x80 | opcode]) + length + key + masked


def split(wire: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole frames at the beginning, unmasked, and what is left behind them."""
    frames = []
    while (size := _frame_size(wire)) is not None:
        frames.append((wire[0] & 0x0F, _payload(wire[:size])))
        wire = wire[size:]
    return frames, wire


def _header_size(wire: bytes) -> int:
    return 2 + {126: 2, 127: 8}.get(wire[1] & 0x7F, 0) + (4 if wire[1] & 0x80 else 0)


def _frame_size(wire: bytes) -> int | None:
    if len(wire) < 2 or len(wire) < _header_size(wire):
        return None
    short = wire[1] & 0x7F
    payload_size = {126: wire[2:4], 127: wire[2:10]}.get(short)
    size = _header_size(wire) + (short if payload_size is None else int.from_bytes(payload_size))
    return size if len(wire) >= size else None


def _payload(whole: bytes) -> bytes:
    start = _header_size(whole)
    payload = whole[start:]
    if not whole[1] & 0x80:
        return payload
    key = whole[start - 4 : start]
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
