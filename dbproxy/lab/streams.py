"""Ping framing and lingering as trio streams: byte transforms, each over another stream."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

import trio

from dbproxy.lab.framing import PING, FrameDecoder, encode_frame

READ_SIZE: Final = 256 * 1024
"""Bytes per read and per write: many TLS records for one system call."""
CLOSE_TIMEOUT: Final = 1.0
"""Seconds that a graceful close may take on a peer that does not read."""


class PingStream(trio.abc.HalfCloseableStream):
    """Ping framing over another stream; see ``dbproxy.lab.framing``.

    Frames of concurrent senders never interleave.
    """

    def __init__(self, transport: trio.abc.HalfCloseableStream) -> None:
        self._transport = transport
        self._decoder = FrameDecoder()
        self._send_lock = trio.Lock()
        self._payload = b""
        self._sent_eof = False

    @property
    def received_pings(self) -> int:
        """How many pings the peer has sent."""
        return self._decoder.pings

    async def send_pings(self, interval: float, count: Callable[[], None] = lambda: None) -> None:
        """Sends a ping every ``interval`` seconds until the stream breaks or ends.

        Args:
            interval: seconds.
            count: called after each ping that the stream below has taken.
        """
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while not self._sent_eof:
                await trio.sleep(interval)
                if await self._send(PING):
                    count()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Sends data as one frame, header and payload in one write below."""
        await self._send(encode_frame(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Waits until the stream below can take bytes."""
        await self._transport.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Ends the sending direction of the stream below: framing has no end mark of its own."""
        async with self._send_lock:
            self._sent_eof = True
            await self._transport.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Returns payload as soon as there is any, ``b""`` at the end of the stream below."""
        limit = READ_SIZE if max_bytes is None else max_bytes
        while not self._payload:
            data = await self._transport.receive_some(READ_SIZE)
            if not data:
                return b""
            self._payload = self._decoder.feed(data)
        taken, self._payload = self._payload[:limit], self._payload[limit:]
        await trio.lowlevel.checkpoint()
        return taken

    async def aclose(self) -> None:
        """Closes the stream below."""
        await self._transport.aclose()

    async def _send(self, frame: bytes) -> bool:
        """Returns whether it was sent: a ping is not, once the sending direction has ended."""
        async with self._send_lock:
            if self._sent_eof and frame == PING:
                return False
            await self._transport.send_all(frame)
            return True


class LingeringStream(trio.abc.HalfCloseableStream):
    """A TCP connection whose last bytes reach a peer that is still sending.

    Closing a socket with unread bytes resets the connection, and a reset can destroy what the peer
    has not read yet, such as the alert that says why. So closing ends the sending direction first
    and reads until the peer has closed too, for a bounded time. Go does not do this; without it,
    whether the reason of a refusal arrives would be a matter of luck.
    """

    def __init__(self, transport: trio.SocketStream, linger: float = CLOSE_TIMEOUT) -> None:
        self._transport = transport
        self._linger = linger
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Sends on the connection."""
        await self._transport.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Waits until the connection can take bytes."""
        await self._transport.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Ends the sending direction."""
        await self._transport.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receives from the connection."""
        return await self._transport.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Closes, after lingering unless cancelled. Idempotent."""
        try:
            if not self._closed:
                self._closed = True
                await self._drain()
        finally:
            await self._transport.aclose()

    async def _drain(self) -> None:
        with (
            trio.move_on_after(self._linger),
            contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError),
        ):
            await self._transport.send_eof()
            while await self._transport.receive_some(READ_SIZE):
                pass


class PrefixedStream(trio.abc.HalfCloseableStream):
    """A stream some bytes of which have been read already.

    Args:
        below: the stream; this object owns it.
        prefix: what has been read from it.
    """

    def __init__(self, below: trio.abc.HalfCloseableStream, prefix: bytes) -> None:
        self._below = below
        self._prefix = prefix

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receives the prefix first."""
        if not self._prefix:
            return bytes(await self._below.receive_some(max_bytes))
        await trio.lowlevel.checkpoint()
        size = len(self._prefix) if max_bytes is None else max_bytes
        taken, self._prefix = self._prefix[:size], self._prefix[size:]
        return taken

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Sends on the stream below."""
        await self._below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Waits until the stream below can take bytes."""
        await self._below.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Ends the sending direction of the stream below."""
        await self._below.send_eof()

    async def aclose(self) -> None:
        """Closes the stream below."""
        await self._below.aclose()
