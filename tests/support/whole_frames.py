"""Streams of frames, as plain as possible: every frame is read whole."""

from abc import abstractmethod

import trio


class WholeFrames(trio.abc.Stream):
    """The payload of frames that another stream carries."""

    def __init__(self, below: trio.abc.Stream) -> None:
        self.below = below
        self._buffer = b""
        self._payload = b""

    async def wait_send_all_might_not_block(self) -> None:
        await self.below.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while not self._payload:
            payload = await self.next_payload()
            if payload is None:
                return b""
            self._payload = payload
        size = max_bytes or len(self._payload)
        taken, self._payload = self._payload[:size], self._payload[size:]
        return taken

    @abstractmethod
    async def next_payload(self) -> bytes | None:
        """That of the next frame, empty when it has none; None at the end."""

    async def exactly(self, size: int) -> bytes | None:
        """So many bytes of the stream below; None when it ends before."""
        while len(self._buffer) < size:
            data = await self.below.receive_some(65536)
            if not data:
                return None
            self._buffer += data
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    async def aclose(self) -> None:
        await self.below.aclose()
