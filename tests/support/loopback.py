"""Servers and clients on loopback, and a look at the descriptors that they leave."""

import gc
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial

import psutil
import trio
from tls_peers import StdlibTLS

Handler = Callable[[trio.SocketStream], Awaitable[None]]
TLSHandler = Callable[["TLSStream"], Awaitable[None]]


MOMENT = 10.0
"""Seconds: a thread of low priority on a busy machine may not run for five."""


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Fails when more descriptors are open at the end than at the beginning.

    A thread that watches files may take a moment to notice that it is not needed any more, and the
    lab's TLS contexts, whose key logs are open, are part of cycles.
    """
    process = psutil.Process()
    before = process.num_fds()
    yield
    deadline = time.monotonic() + MOMENT
    while process.num_fds() > before:
        gc.collect()
        assert time.monotonic() < deadline, process.open_files() + process.net_connections()
        gc.collect()  # costs too much to do it each time
        time.sleep(0.02)


def free_port() -> int:
    """A port of 127.0.0.1 where nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@asynccontextmanager
async def open_server(handler: Handler) -> AsyncIterator[int]:
    """Serve TCP on a free port of 127.0.0.1, the number of which is the value."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, handler, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


class TLSStream(trio.abc.HalfCloseableStream):
    """TLS of the standard library that sends its alerts, which `trio.SSLStream` does not."""

    def __init__(
        self, transport: trio.abc.Stream, context: ssl.SSLContext, *, server_side: bool
    ) -> None:
        self.transport = transport
        hostname = None if server_side else "localhost"
        self.end = StdlibTLS(context, server_side=server_side, server_hostname=hostname)
        self._received = b""

    async def do_handshake(self) -> None:
        """Raises `ssl.SSLError` or `trio.BrokenResourceError`."""
        self.end.start()
        while self.end.handshaking:
            await self._flush()
            await self._receive_batch()
        await self._flush()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while not self._received and not self.end.ended:
            await self._receive_batch()
        size = len(self._received) if max_bytes is None else max_bytes
        received, self._received = self._received[:size], self._received[size:]
        return received

    async def _receive_batch(self) -> None:
        data = bytes(await self.transport.receive_some())
        if not data:
            raise trio.BrokenResourceError("an end without close_notify")
        try:
            self._received += self.end.receive(data)
        finally:
            await self._flush()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.end.send(bytes(data))
        await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        self.end.send_eof()
        await self._flush()

    async def aclose(self) -> None:
        await self.transport.aclose()

    async def _flush(self) -> None:
        if outgoing := self.end.outgoing():
            await self.transport.send_all(outgoing)


def tls_handler(context: ssl.SSLContext, handler: TLSHandler) -> Handler:
    """Do TLS as a server, then go on with `handler`; what the peer breaks just ends it."""

    async def serve(transport: trio.SocketStream) -> None:
        stream = TLSStream(transport, context, server_side=True)
        with suppress(ssl.SSLError, trio.BrokenResourceError):
            await stream.do_handshake()
            await handler(stream)

    return serve


async def wait_for_end(stream: trio.abc.ReceiveStream) -> None:
    """Read until the peer ends or breaks the connection."""
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        return
