"""WebSocket frames: what carries a connection through a balancer that only lets HTTP through.

After a connection upgrade the bytes of a TLS-routing connection are the payload of binary messages
(RFC 6455). Only as much of that protocol is here as both ends of Teleport use:

- What is sent goes out as one unfragmented binary frame for each `send`. The mask bit is set, as it
  must be from a client, with a masking key of zeros: Teleport Proxies of the first versions with
  WebSocket (15.1) do not unmask. Masking protects HTTP caches from scripts; TLS is inside here.
- The payload of received binary frames is handed on as it comes. A ping is answered with a pong, a
  close frame is the end and is not answered, and frames of every other kind, text and continuation
  among them, are dropped, as Teleport's own receivers do.

Source: Teleport, `api/client/alpn_conn_upgrade.go` and `lib/web/conn_upgrade.go`; RFC 6455 §5.2.

A frame is never assembled, so a length of 2^63 bytes costs nothing. Of several pings that come
before an answer could leave only the last one is answered (RFC 6455 §5.5.3), so a flood of them
takes no memory either.
"""

from enum import IntEnum
from typing import Final

from dbproxy.layers.base import ByteData, Layer, LayerError, TruncatedError

__all__ = ["WebSocketError", "WebSocketLayer"]

_FIN: Final = 0x80
_RESERVED_BITS: Final = 0x70
_OPCODE_BITS: Final = 0x0F
_CONTROL_BIT: Final = 0x08
_MASK: Final = 0x80
_LENGTH_BITS: Final = 0x7F
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_MAX_CONTROL_PAYLOAD: Final = 125
_MAX_PAYLOAD: Final = 2**63 - 1
_BASE_HEADER_SIZE: Final = 2
_MASKING_KEY_SIZE: Final = 4
_NO_MASK: Final = bytes(_MASKING_KEY_SIZE)


class _Opcode(IntEnum):
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class WebSocketError(LayerError):
    """A frame was not one that RFC 6455 allows."""


class WebSocketLayer(Layer):
    """The client's end of a WebSocket connection, after the HTTP exchange that opened it."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._opcode = 0
        self._key = _NO_MASK
        self._payload_left = 0
        self._ping = bytearray()
        self._pong = b""
        self._outgoing: list[bytes] = []
        self._closed = False
        self._failure: WebSocketError | None = None

    @property
    def handshaking(self) -> bool:
        return False

    @property
    def ended(self) -> bool:
        return self._closed or self._failure is not None

    @property
    def announces_end(self) -> bool:
        """False: a close frame ends both directions at once, and the TLS inside tells each end."""
        return False

    def start(self) -> None:
        """Do nothing: the HTTP exchange is over."""

    def receive(self, data: ByteData) -> bytes:
        if self._failure is not None:
            raise self._failure
        size = len(data)
        if size <= self._payload_left and self._opcode == _Opcode.BINARY and self._key == _NO_MASK:
            self._payload_left -= size  # the usual case inside a large frame: no copying apart
            return bytes(data)
        payloads: list[ByteData] = []
        try:
            self._take_frames(memoryview(data), payloads)
        except WebSocketError as error:
            self._failure = error
            if not payloads:
                raise
        return b"".join(payloads)

    def _take_frames(self, view: memoryview, payloads: list[ByteData]) -> None:
        position, end = 0, len(view)
        while position < end and not self._closed:
            if self._payload_left:
                taken = min(self._payload_left, end - position)
                self._take_payload(view[position : position + taken], payloads)
                position += taken
            else:
                position += self._take_header(view[position:])

    def _take_header(self, view: memoryview) -> int:
        taken = 0
        while missing := _header_size(self._header) - len(self._header):
            piece = view[taken : taken + missing]
            if not piece:
                return taken
            self._header += piece
            taken += len(piece)
        self._begin_frame()
        return taken

    def _begin_frame(self) -> None:
        header, self._header = self._header, bytearray()
        if header[0] & _RESERVED_BITS:
            raise WebSocketError("a WebSocket frame has reserved bits set")
        self._opcode = header[0] & _OPCODE_BITS
        self._payload_left = _payload_length(header)
        self._key = bytes(header[-_MASKING_KEY_SIZE:]) if header[1] & _MASK else _NO_MASK
        if self._payload_left > _MAX_PAYLOAD:
            raise WebSocketError("the length of a WebSocket frame has its highest bit set")
        if self._opcode & _CONTROL_BIT and self._payload_left > _MAX_CONTROL_PAYLOAD:
            raise WebSocketError("a WebSocket control frame is longer than 125 bytes")
        self._closed = self._opcode == _Opcode.CLOSE
        if self._opcode == _Opcode.PING:
            self._ping.clear()
            if not self._payload_left:
                self._answer_ping()

    def _take_payload(self, view: memoryview, payloads: list[ByteData]) -> None:
        self._payload_left -= len(view)
        if self._opcode == _Opcode.BINARY:
            payloads.append(self._unmask(view))
        elif self._opcode == _Opcode.PING:
            self._ping += self._unmask(view)
            if not self._payload_left:
                self._answer_ping()

    def _unmask(self, view: memoryview) -> ByteData:
        """Servers must not mask (RFC 6455 §5.1); one that does is understood all the same."""
        if self._key == _NO_MASK:
            return view
        size = len(view)
        mask = (self._key * (size // _MASKING_KEY_SIZE + 1))[:size]
        turn = size % _MASKING_KEY_SIZE
        self._key = self._key[turn:] + self._key[:turn]
        return (int.from_bytes(view, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")

    def _answer_ping(self) -> None:
        self._pong = b"".join((_header(_Opcode.PONG, len(self._ping)), self._ping))

    def receive_eof(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._closed and (self._payload_left or self._header):
            raise TruncatedError("the connection ended in the middle of a WebSocket frame")

    def send(self, data: ByteData) -> None:
        if size := len(data):
            self._outgoing.append(b"".join((_header(_Opcode.BINARY, size), data)))

    def send_eof(self) -> None:
        """Do nothing: see `announces_end`."""

    def outgoing(self) -> bytes:
        if self._pong:
            self._outgoing.append(self._pong)
            self._pong = b""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing[0] if len(outgoing) == 1 else b"".join(outgoing)


def _header_size(header: bytearray) -> int:
    """How long the header is, as far as what has come of it tells."""
    if len(header) < _BASE_HEADER_SIZE:
        return _BASE_HEADER_SIZE
    key_size = _MASKING_KEY_SIZE if header[1] & _MASK else 0
    return _BASE_HEADER_SIZE + _length_size(header[1]) + key_size


def _length_size(second: int) -> int:
    return {_LENGTH_16: 2, _LENGTH_64: 8}.get(second & _LENGTH_BITS, 0)


def _payload_length(header: bytearray) -> int:
    size = _length_size(header[1])
    if not size:
        return header[1] & _LENGTH_BITS
    return int.from_bytes(header[_BASE_HEADER_SIZE : _BASE_HEADER_SIZE + size], "big")


def _header(opcode: _Opcode, size: int) -> bytes:
    """The header of a whole message in one frame, with a masking key of zeros."""
    first = bytes([_FIN | opcode])
    if size < _LENGTH_16:
        return first + bytes([_MASK | size]) + _NO_MASK
    if size < 1 << 16:
        return first + bytes([_MASK | _LENGTH_16]) + size.to_bytes(2, "big") + _NO_MASK
    return first + bytes([_MASK | _LENGTH_64]) + size.to_bytes(8, "big") + _NO_MASK
