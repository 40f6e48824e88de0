"""Ping framing: Teleport's keep-alive inside a connection.

Once an ALPN protocol whose name ends in `-ping` has been negotiated, both directions carry frames:
a big-endian 32-bit length and that many bytes. A length of zero is a ping; it carries nothing, is
dropped, and is never answered. Only the server sends pings (every 30 seconds unless configured),
so that load balancers in between see traffic.

Source: Teleport, `api/utils/pingconn/pingconn.go` and `rfd/0081-tls-ping.md`.

A frame is never assembled: its bytes are handed on as they come, so a length of 4 GiB costs
nothing.
"""

from struct import Struct
from typing import Final

from dbproxy.layers.base import ByteData, Layer, LayerError, TruncatedError

__all__ = ["HEADER_SIZE", "PingError", "PingLayer", "put_header"]

_HEADER: Final = Struct(">I")
HEADER_SIZE: Final = _HEADER.size
put_header: Final = _HEADER.pack_into
"""Puts the length of a payload into a buffer, at a position."""
_MAX_PAYLOAD: Final = 2**32 - 1


class PingError(LayerError):
    """A frame was not framed as it must be."""


class PingLayer(Layer):
    """Frames what is sent, and takes apart what is received."""

    __slots__ = ("_header", "_outgoing", "_payload_left", "pings_received")

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
        pieces = self.regions(view, 0, len(view))
        return b"".join([view[start:end] for start, end in pieces])

    def is_one_frame(self, view: memoryview, start: int, end: int) -> bool:
        """Whether what comes now is one whole frame, as small messages are, or one ping.

        Nothing is taken note of.

        Args:
            view: Where it is.
            start: From where on.
            end: Up to where: at least a header.
        """
        if self._payload_left or self._header:
            return False
        return bool(_HEADER.unpack_from(view, start)[0] == end - start - HEADER_SIZE)

    def regions(self, view: memoryview, start: int, end: int) -> list[tuple[int, int]]:
        """As `receive`, without copying: which parts of `view`, from `start` to `end`, are payload.

        In front of each part but the first there is the header of its frame.
        """
        if end - start > HEADER_SIZE and self.is_one_frame(view, start, end):
            return [(start + HEADER_SIZE, end)]
        parts = []
        position, left = start, self._payload_left
        while position < end:
            if left:
                stop = position + left
                if stop > end:
                    stop = end
                parts.append((position, stop))
                left -= stop - position
                position = stop
            elif end - position >= HEADER_SIZE and not self._header:
                (left,) = _HEADER.unpack_from(view, position)
                position += HEADER_SIZE
                if not left:
                    self.pings_received += 1
            else:
                taken, left = self._take_header(view[position:end])
                position += taken
        self._payload_left = left
        return parts

    def _take_header(self, view: memoryview) -> tuple[int, int]:
        """A header that is cut somewhere: its size in `view`, and what it says once it is whole."""
        taken = min(HEADER_SIZE - len(self._header), len(view))
        self._header += view[:taken]
        if len(self._header) < HEADER_SIZE:
            return taken, 0
        (size,) = _HEADER.unpack(self._header)
        self.pings_received += not size
        self._header.clear()
        return taken, size

    def receive_eof(self) -> None:
        if self._payload_left or self._header:
            raise TruncatedError("the connection ended in the middle of a ping frame")

    def send(self, data: ByteData) -> None:
        view = memoryview(data)
        if not view:
            return  # a frame without payload would be a ping
        if len(view) > _MAX_PAYLOAD:
            raise PingError("more bytes at once than a ping frame can carry")
        self._outgoing.append(_HEADER.pack(len(view)))
        self._outgoing.append(bytes(view))

    def send_eof(self) -> None:
        """Do nothing: framing has no end mark; the layer below announces the end."""

    def outgoing(self) -> bytes:
        # Header and payload leave in one piece, so that TLS makes one write of them.
        outgoing, self._outgoing = self._outgoing, []
        return b"".join(outgoing)
