"""A client of the lab's upgrade endpoint, as plain as possible; it shares nothing with the lab."""

from __future__ import annotations

import ssl
import struct
from dataclasses import dataclass

import h11
import trio
from whole_frames import WholeFrames

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
"""The key of RFC 6455 §1.3, whose accept value the RFC tells."""
WEBSOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Protocol": "alpn",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY.decode(),
}
LEGACY = {"Upgrade": "alpn", "X-Teleport-Upgrade": "alpn", "Connection": "Upgrade"}


@dataclass
class Response:
    """An answer: its headers have names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    rest: bytes = b""


async def ask(
    stream: trio.abc.Stream, target: str, headers: dict[str, str] | None = None
) -> Response:
    """Sends a GET request and reads the whole answer, or the head of a 101."""
    http = h11.Connection(h11.CLIENT)
    fields = {"Host": "localhost", **(headers or {})}
    request = h11.Request(method="GET", target=target, headers=list(fields.items()))
    await stream.send_all(http.send(request) or b"")
    await stream.send_all(http.send(h11.EndOfMessage()) or b"")
    response = Response(0, {})
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(65536)))
        elif isinstance(event, h11.InformationalResponse | h11.Response):
            names = {key.decode(): value.decode() for key, value in event.headers}
            response = Response(event.status_code, names)
            if event.status_code == 101:
                response.rest = bytes(http.trailing_data[0])
                return response
        elif isinstance(event, h11.Data):
            response.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return response


def frame(opcode: int, payload: bytes, *, key: bytes | None = bytes(4), fin: bool = True) -> bytes:
    """A client's frame; no key makes one that is not masked."""
    first = (0x80 if fin else 0) | opcode
    mask = 0x80 if key is not None else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, mask | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, mask | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask | 127, size)
    if key is not None and any(key):
        payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
    return head + (key or b"") + payload


class WebSocket(WholeFrames):
    """The client's end; pings are answered."""

    def __init__(self, below: trio.abc.Stream, key: bytes | None = bytes(4)) -> None:
        super().__init__(below)
        self.key = key
        self.opcodes: list[int] = []

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.below.send_all(frame(2, bytes(data), key=self.key))

    async def next_payload(self) -> bytes | None:
        message = await self._next_frame()
        if message is None or message[0] == 8:
            return None
        if message[0] == 9:
            await self.below.send_all(frame(10, message[1]))
        return message[1] if message[0] == 2 else b""

    async def _next_frame(self) -> tuple[int, bytes] | None:
        head = await self.exactly(2)
        if head is None:
            return None
        assert head[0] & 0x70 == 0
        assert not head[1] & 0x80, "a server does not mask"
        size = head[1]
        if size > 125:
            size = int.from_bytes(await self.exactly(2 if size == 126 else 8) or b"", "big")
        payload = await self.exactly(size)
        if payload is None:
            return None
        self.opcodes.append(head[0] & 0x0F)
        return head[0] & 0x0F, payload


async def start_tls(
    below: trio.abc.Stream, context: ssl.SSLContext, name: str = "localhost"
) -> trio.SSLStream[trio.abc.Stream]:
    """TLS as a client; an end without close_notify counts as an end."""
    stream = trio.SSLStream(below, context, server_hostname=name, https_compatible=True)
    await stream.do_handshake()
    return stream
