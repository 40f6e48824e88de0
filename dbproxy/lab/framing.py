"""Ping framing: the length-prefixed stream inside a ``-ping`` ALPN connection. Sans-I/O.

Each frame is a big-endian unsigned 32-bit length and that many payload bytes; a length of zero is
a ping, which is dropped silently and never answered. Both directions are framed, only the server
sends pings. Source: api/utils/pingconn/pingconn.go and rfd/0081-tls-ping.md of Teleport.

The decoder streams: it hands out payload as it arrives and never waits for, or allocates, the
announced length, which the peer chooses.
"""

from __future__ import annotations

from typing import Final

HEADER_SIZE: Final = 4
MAX_PAYLOAD_SIZE: Final = 2**32 - 1
PING: Final = bytes(HEADER_SIZE)
"""A frame without payload."""


def encode_frame(payload: bytes | bytearray | memoryview) -> bytes:
    """Returns payload as one frame; no bytes at all for an empty payload, which is not a ping.

    Raises:
        ValueError: the payload is longer than a frame can say.
    """
    if not payload:
        return b""
    if len(payload) > MAX_PAYLOAD_SIZE:
        raise ValueError(f"invalid content size {len(payload)}")
    return len(payload).to_bytes(HEADER_SIZE, "big") + payload


class FrameDecoder:
    """Turns a framed byte stream back into its payload.

    Attributes:
        pings: how many frames without payload have been dropped.
    """

    def __init__(self) -> None:
        self.pings = 0
        self._header = bytearray()
        self._remaining = 0

    @property
    def inside_frame(self) -> bool:
        """True when the stream must not end here: in a header or before the end of a payload."""
        return bool(self._header) or self._remaining > 0

    def feed(self, data: bytes | bytearray) -> bytes:
        """Takes framed bytes, split anywhere, and returns the payload that they contain."""
        payload: list[memoryview] = []
        view = memoryview(data)
        while view:
            if self._remaining:
                payload.append(view[: self._remaining])
                self._remaining -= len(payload[-1])
                view = view[len(payload[-1]) :]
            else:
                view = self._take_header(view)
        return b"".join(payload)

    def _take_header(self, view: memoryview) -> memoryview:
        missing = HEADER_SIZE - len(self._header)
        self._header += view[:missing]
        if len(self._header) == HEADER_SIZE:
            self._remaining = int.from_bytes(self._header, "big")
            self.pings += self._remaining == 0
            self._header.clear()
        return view[missing:]
