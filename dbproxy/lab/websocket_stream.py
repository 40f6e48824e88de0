"""A WebSocket as a stream of bytes, the server's side."""

from __future__ import annotations

import contextlib
from typing import Final

import trio

from dbproxy.lab.streams import READ_SIZE
from dbproxy.lab.upgrade_record import Upgrade
from dbproxy.lab.websocket import Control, Data, FrameReader, Opcode, encode_frame

PING_PAYLOAD: Final = b"teleport"


class WebSocketStream(trio.abc.HalfCloseableStream):
    """Carries bytes in binary frames; frames of concurrent senders never interleave.

    Args:
        below: what carries the frames; this object owns it.
        record: where pings, pongs and violations are noted.
        prefix: bytes that have been read from below already.
        unmask: whether the client's frames are unmasked.
        noise: whether frames that a client has to drop precede each binary frame.
    """

    def __init__(
        self,
        below: trio.abc.HalfCloseableStream,
        record: Upgrade,
        *,
        prefix: bytes = b"",
        unmask: bool = True,
        noise: bool = False,
    ) -> None:
        self._below = below
        self._record = record
        self._noise = _NOISE if noise else b""
        self._reader = FrameReader(unmask=unmask)
        self._send_lock = trio.Lock()
        self._payload = bytearray()
        self._ended = False
        self._handle(prefix)

    async def send_pings(self, interval: float) -> None:
        """Sends a ping every ``interval`` seconds until the stream breaks."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                await trio.sleep(interval)
                await self._send(encode_frame(Opcode.PING, PING_PAYLOAD))
                self._record.pings += 1

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Sends data as one binary frame; nothing for no data."""
        if data:
            await self._send(self._noise + encode_frame(Opcode.BINARY, data))

    async def wait_send_all_might_not_block(self) -> None:
        """Waits until the stream below can take bytes."""
        await self._below.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Sends a close frame, the only end that a WebSocket has."""
        await self._send(encode_frame(Opcode.CLOSE, b""))

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Returns payload as soon as there is any, ``b""`` after a close frame or at the end."""
        limit = READ_SIZE if max_bytes is None else max_bytes
        while not self._payload and not self._ended:
            data = await self._below.receive_some(READ_SIZE)
            self._ended = not data
            self._handle(bytes(data))
        await trio.lowlevel.checkpoint()
        taken = bytes(self._payload[:limit])
        del self._payload[:limit]
        return taken

    async def aclose(self) -> None:
        """Closes the stream below, without a close frame, as Teleport does."""
        await self._below.aclose()

    def _handle(self, data: bytes) -> None:
        for event in self._reader.feed(data):
            match event:
                case Data(payload) if not self._ended:
                    self._payload += payload
                case Control(Opcode.CLOSE):
                    self._ended = True
                case Control(Opcode.PONG, payload):
                    self._record.pongs.append(payload)
        self._record.violations = self._reader.violations
        self._record.binary_frames = self._reader.binary_frames
        self._record.zero_keys_only = self._reader.zero_keys_only

    async def _send(self, frame: bytes) -> None:
        async with self._send_lock:
            await self._below.send_all(frame)


_NOISE: Final = (
    encode_frame(Opcode.TEXT, b"dropped")
    + encode_frame(Opcode.CONTINUATION, b"dropped too")
    + encode_frame(Opcode.PONG, b"")
)
