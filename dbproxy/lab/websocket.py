"""WebSocket framing as Teleport's upgrade endpoint uses it, the server's side. Sans-I/O.

Source: lib/web/conn_upgrade.go and api/client/alpn_conn_upgrade.go of Teleport; RFC 6455 §5.2.
Every write is one binary frame with FIN, never fragmented. The server's frames are not masked, the
client's are, in practice with a key of four zero bytes: the servers that came with this feature
(15.1) do not unmask. A binary frame is data, a close frame ends the stream, a ping or pong is one,
and every other frame is dropped by both sides, continuation frames included.

The reader takes what a lenient server takes, and notes what a strict one would refuse. It streams:
a payload is handed out as it arrives, and an announced length is never waited for or allocated.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

ACCEPT_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
FIN: Final = 0x80
RESERVED: Final = 0x70
MASKED: Final = 0x80
ZERO_KEY: Final = bytes(4)
MAX_CONTROL_SIZE: Final = 125
MAX_VIOLATIONS: Final = 100
"""How many violations are noted."""


class Opcode(IntEnum):
    """Frame types."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


@dataclass(frozen=True)
class Data:
    """Payload of a binary frame, or a part of it."""

    payload: bytes


@dataclass(frozen=True)
class Control:
    """A close, ping or pong frame."""

    opcode: Opcode
    payload: bytes


FrameEvent: TypeAlias = Data | Control


def accept_value(key: bytes) -> bytes:
    """Returns the ``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key`` (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + ACCEPT_GUID).digest())  # noqa: S324 - the protocol's


def encode_frame(opcode: Opcode, payload: bytes | bytearray | memoryview) -> bytes:
    """Returns one whole frame, not masked, with the shortest form of the length."""
    size = len(payload)
    if size <= MAX_CONTROL_SIZE:
        head = bytes((FIN | opcode, size))
    elif size <= 0xFFFF:
        head = bytes((FIN | opcode, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((FIN | opcode, 127)) + size.to_bytes(8, "big")
    return head + payload


class FrameReader:
    """Turns a client's bytes into events.

    Args:
        unmask: whether payload is unmasked; Teleport 15.1 does not, and so understands only
            clients whose key is zero.

    Attributes:
        violations: what the client did that RFC 6455 or Teleport's clients do not, oldest first.
        binary_frames: how many binary frames have begun.
        zero_keys_only: whether every masking key so far was four zero bytes.
    """

    def __init__(self, *, unmask: bool = True) -> None:
        self.violations: list[str] = []
        self.binary_frames = 0
        self.zero_keys_only = True
        self._unmask = unmask
        self._buffer = bytearray()
        self._frame: _Frame | None = None

    @property
    def inside_frame(self) -> bool:
        """True when the stream must not end here."""
        return bool(self._buffer) or self._frame is not None

    def feed(self, data: bytes | bytearray) -> list[FrameEvent]:
        """Takes bytes, split anywhere, and returns what they bring about."""
        events: list[FrameEvent] = []
        view = memoryview(bytes(data))
        while view or self._is_complete():
            if self._frame is None:
                view = self._take_head(view)
            else:
                taken = view[: self._frame.remaining]
                view = view[len(taken) :]
                self._take_payload(self._frame, bytes(taken), events)
        return events

    def _is_complete(self) -> bool:
        """Whether a frame waits for no payload: an empty one."""
        return self._frame is not None and self._frame.remaining == 0

    def _take_head(self, view: memoryview) -> memoryview:
        missing = _head_size(self._buffer) - len(self._buffer)
        self._buffer += view[:missing]
        if len(self._buffer) == _head_size(self._buffer):
            self._frame = self._parse_head(bytes(self._buffer))
            self._buffer.clear()
        return view[missing:]

    def _parse_head(self, head: bytes) -> _Frame:
        masked = bool(head[1] & MASKED)
        key = head[-4:] if masked else ZERO_KEY
        frame = _Frame(head[0] & 0x0F, _length(head), key if self._unmask else ZERO_KEY)
        self.binary_frames += frame.opcode == Opcode.BINARY
        self.zero_keys_only = self.zero_keys_only and key == ZERO_KEY
        self._check(head, frame)
        return frame

    def _check(self, head: bytes, frame: _Frame) -> None:
        what = f"frame with opcode {frame.opcode}"
        if not head[1] & MASKED:
            self._note(f"{what} is not masked")
        if not head[0] & FIN:
            self._note(f"{what} is fragmented")
        if head[0] & RESERVED:
            self._note(f"{what} has reserved bits")
        if frame.opcode not in {Opcode.BINARY, Opcode.CLOSE, Opcode.PONG}:
            self._note(f"{what} is not one that clients send")
        if frame.opcode >= Opcode.CLOSE and frame.remaining > MAX_CONTROL_SIZE:
            self._note(f"{what} is {frame.remaining} bytes long")
        if _shortest(frame.remaining) != head[1] & 0x7F:
            self._note(f"{what} does not use the shortest form of its length")

    def _note(self, violation: str) -> None:
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append(violation)

    def _take_payload(self, frame: _Frame, data: bytes, events: list[FrameEvent]) -> None:
        payload = frame.take(data)
        if frame.opcode == Opcode.BINARY and payload:
            events.append(Data(payload))
        elif frame.opcode in {Opcode.CLOSE, Opcode.PING, Opcode.PONG}:
            frame.collected += payload[: MAX_CONTROL_SIZE - len(frame.collected)]
        if frame.remaining:
            return
        self._frame = None
        if frame.opcode in {Opcode.CLOSE, Opcode.PING, Opcode.PONG}:
            events.append(Control(Opcode(frame.opcode), bytes(frame.collected)))


class _Frame:
    """A frame whose head has been read."""

    def __init__(self, opcode: int, size: int, key: bytes) -> None:
        self.opcode = opcode
        self.remaining = size
        self.collected = bytearray()
        self._key = key

    def take(self, data: bytes) -> bytes:
        """Unmasks the next bytes of the payload."""
        self.remaining -= len(data)
        if self._key == ZERO_KEY:
            return data
        repeated = (self._key * (len(data) // 4 + 1))[: len(data)]
        turn = len(data) % 4
        self._key = self._key[turn:] + self._key[:turn]
        mixed = int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")
        return mixed.to_bytes(len(data), "big")


def _head_size(head: bytes | bytearray) -> int:
    """Size of a frame's head, as far as what has arrived tells."""
    if len(head) < 2:
        return 2
    extension = {126: 2, 127: 8}.get(head[1] & 0x7F, 0)
    return 2 + extension + (4 if head[1] & MASKED else 0)


def _length(head: bytes) -> int:
    short = head[1] & 0x7F
    end = {126: 4, 127: 10}.get(short)
    return short if end is None else int.from_bytes(head[2:end], "big")


def _shortest(size: int) -> int:
    """The 7-bit length that a frame of this size should have."""
    return size if size <= MAX_CONTROL_SIZE else 126 if size <= 0xFFFF else 127
