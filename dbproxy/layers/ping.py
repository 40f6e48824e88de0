"""Ping framing: Teleport's keep-alive inside a connection.

Once an ALPN protocol whose name ends in `-ping` has been negotiated, both directions carry frames:
a big-endian 32-bit length and that many bytes. A length of zero is a ping; it carries nothing, is
dropped, and is never answered. Only the server sends pings (every 30 seconds unless configured),
so that load balancers in between see traffic.

Source: Teleport, `api/utils/pingconn/pingconn.go` and `rfd/0081-tls-ping.md`.

A frame is never assembled: its bytes are handed on as they come, so a length of 4 GiB costs
nothing.
"""

from typing import Final

from dbproxy.layers.base import ByteData, Layer, LayerError, TruncatedError

__all__ = ["PingError", "PingLayer"]

_HEADER_SIZE: Final = 4
_MAX_PAYLOAD: Final = 2**32 - 1


class PingError(LayerError):
    """A frame was not framed as it must be."""


class PingLayer(Layer):
    """Frames what is sent, and takes apart what is received."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._payload_left = 0
        self._outgoing: list[bytes] = []
        self.pings_received = 0

    @property
    def handshaking(self) -> bool:
        return False

    @property
    def ended(self) -> bool:
        return False

    @property
    def announces_end(self) -> bool:
        return False

    def start(self) -> None:
        """Do nothing: framing has no handshake."""

    def receive(self, data: ByteData) -> bytes:
        view = memoryview(data)
        if self._payload_left >= len(view):  # the usual case inside a large frame: no copying apart
            self._payload_left -= len(view)
            return bytes(view)
        return b"".join(self._payloads(view))

    def _payloads(self, view: memoryview) -> list[memoryview]:
        payloads = []
        position, end = 0, len(view)
        while position < end:
            if self._payload_left:
                taken = min(self._payload_left, end - position)
                payloads.append(view[position : position + taken])
                self._payload_left -= taken
                position += taken
            else:
                position += self._take_header(view[position : position + _HEADER_SIZE])
        return payloads

    def _take_header(self, view: memoryview) -> int:
        taken = min(_HEADER_SIZE - len(self._header), len(view))
        self._header += view[:taken]
        if len(self._header) == _HEADER_SIZE:
            self._payload_left = int.from_bytes(self._header, "big")
            self.pings_received += self._payload_left == 0
            self._header.clear()
        return taken

    def receive_eof(self) -> None:
        if self._payload_left or self._header:
            raise TruncatedError("the connection ended in the middle of a ping frame")

    def send(self, data: ByteData) -> None:
        view = memoryview(data)
        if not view:
            return  # a frame without payload would be a ping
        if len(view) > _MAX_PAYLOAD:
            raise PingError("more bytes at once than a ping frame can carry")
        self._outgoing.append(len(view).to_bytes(_HEADER_SIZE, "big"))
        self._outgoing.append(bytes(view))

    def send_eof(self) -> None:
        """Do nothing: framing has no end mark; the layer below announces the end."""

    def outgoing(self) -> bytes:
        # Header and payload leave in one piece, so that TLS makes one write of them.
        outgoing, self._outgoing = self._outgoing, []
        return b"".join(outgoing)
