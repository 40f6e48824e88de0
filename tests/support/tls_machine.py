"""A TLS client on memory BIOs."""

from __future__ import annotations

import contextlib
import ssl

import trio

READ_SIZE = 256 * 1024


class Machine:
    """A TLS client that is driven by hand, so that it can do what no stream class allows."""

    def __init__(self, transport: trio.abc.Stream, context: ssl.SSLContext) -> None:
        self.transport = transport
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    async def flush(self) -> None:
        if data := self.outgoing.read():
            await self.transport.send_all(data)

    async def fill(self) -> None:
        self.incoming.write(await self.transport.receive_some(READ_SIZE))

    async def handshake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                await self.fill()
            else:
                await self.flush()
                return

    async def send(self, data: bytes) -> None:
        self.tls.write(data)
        await self.flush()

    async def receive(self) -> bytes:
        while True:
            try:
                return self.tls.read(READ_SIZE)
            except ssl.SSLWantReadError:
                await self.fill()
            except ssl.SSLZeroReturnError:
                return b""

    async def close_notify(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        await self.flush()
