"""A client that speaks no PostgreSQL beyond its first message: for tests of the bytes behind it.

TLS is the standard library's, on memory BIOs, because `trio.SSLStream` cannot end one direction
and go on reading the other.
"""

import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio
from database_clients import tls_context
from lab_client import SSL_REQUEST, exactly, startup
from running_proxy import RunningProxy

from dbproxy import Mode

READ_SIZE = 256 * 1024


class TLSClientStream(trio.abc.HalfCloseableStream):
    """The client's end of a TLS connection; one task may send while another receives."""

    def __init__(self, transport: trio.SocketStream, context: ssl.SSLContext) -> None:
        self.transport = transport
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._received = b""
        self._ended = False

    async def do_handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                self._incoming.write(await self.transport.receive_some(READ_SIZE))
            else:
                return await self._flush()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._tls.write(data)
        await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Send close_notify, which ends this direction only (RFC 8446 §6.1)."""
        self._decrypt()  # OpenSSL takes no unread data while it shuts down
        with suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        await self._flush()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while not self._received and not self._ended:
            data = await self.transport.receive_some(READ_SIZE)
            if not data:
                raise trio.BrokenResourceError("the end came without close_notify")
            self._incoming.write(data)
            self._decrypt()
        await trio.lowlevel.checkpoint()
        size = len(self._received) if max_bytes is None else max_bytes
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def _decrypt(self) -> None:
        pieces = [self._received]
        with suppress(ssl.SSLWantReadError):
            while not self._ended:
                pieces.append(self._read())
                self._ended = not pieces[-1]
        self._received = b"".join(pieces)

    def _read(self) -> bytes:
        try:
            return self._tls.read(READ_SIZE)
        except ssl.SSLZeroReturnError:  # instead of b"" once our own end has been sent
            return b""

    async def aclose(self) -> None:
        await self.transport.aclose()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self.transport.send_all(data)


@asynccontextmanager
async def data_connection(proxy: RunningProxy) -> AsyncIterator[trio.abc.HalfCloseableStream]:
    """Connect and send the first message; all that follows are bytes for the other side.

    In passthrough mode the first message is an SSLRequest, and nobody insists on TLS behind it.
    """
    stream: trio.SocketStream | TLSClientStream
    async with await proxy.connect() as tcp:
        stream = tcp
        if proxy.started.mode is Mode.PASSTHROUGH:
            await tcp.send_all(SSL_REQUEST)
        elif proxy.started.mode is Mode.TUNNEL:
            await tcp.send_all(startup(user="alice"))
        else:
            await tcp.send_all(SSL_REQUEST)
            assert await exactly(tcp, 1) == b"S"
            stream = TLSClientStream(tcp, tls_context(proxy))
            await stream.do_handshake()
            await stream.send_all(startup(user="alice"))
        yield stream


async def take_first_message(stream: trio.abc.ReceiveStream) -> None:
    """The other side: read the first message, which begins with its length."""
    (size,) = struct.unpack("!I", await exactly(stream, 4))
    await exactly(stream, size - 4)


def reset(stream: trio.abc.AsyncResource) -> None:
    """Close the TCP connection under a stream with a reset."""
    tcp = stream.transport if isinstance(stream, TLSClientStream) else stream
    assert isinstance(tcp, trio.SocketStream)
    tcp.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp.socket.close()
