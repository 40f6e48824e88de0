"""A whole proxy in this process, in front of a server that echoes."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from loopback import TLSStream, open_server, tls_handler

from dbproxy import DatabaseProxy, Settings, Started
from dbproxy.events import Event

SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
STARTUP = b"\0\0\0\x0e\0\3\0\0user\0\0"
PATIENCE = 15.0
ONLY_ECHOES: dict[str, Any] = {"no_discovery": True, "connection_upgrade": "never"}
"""Settings for a server that knows nothing of Teleport's web API and of its ALPN values."""


async def echo(stream: trio.abc.HalfCloseableStream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.send_eof()


@dataclass
class Bench:
    """A running proxy, what it says and how it ended."""

    proxy: DatabaseProxy
    started: Started
    events: list[Event]
    ended: trio.Event = field(default_factory=trio.Event)

    async def connect(self) -> trio.SocketStream:
        host, _colon, port = self.started.address.rpartition(":")
        return await trio.open_tcp_stream(host, int(port))

    async def connect_and_greet(self) -> trio.SocketStream:
        """A connection that is being relayed."""
        client = await self.connect()
        await client.send_all(STARTUP)
        assert await client.receive_some() == STARTUP
        return client

    async def converse_inside_tls(self, context: ssl.SSLContext) -> None:
        """A connection whose TLS ends at the proxy, from its first byte to the end."""
        async with await self.connect() as transport:
            await transport.send_all(SSL_REQUEST)
            assert await transport.receive_some(1) == b"S"
            tls = TLSStream(transport, context, server_side=False)
            await tls.do_handshake()
            await tls.send_all(STARTUP)
            assert await tls.receive_some() == STARTUP

    def published(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def running(
    destination: Path,
    upstream: ssl.SSLContext,
    *,
    handler: Callable[[TLSStream], Any] = echo,
    **settings: Any,
) -> AsyncIterator[Bench]:
    """A proxy in front of a server that echoes; it must have ended by itself after the block."""
    events: list[Event] = []
    with trio.fail_after(PATIENCE):
        async with open_server(tls_handler(upstream, handler)) as port:
            given: dict[str, Any] = {
                "tunnel": True,
                "proxy": f"127.0.0.1:{port}",
                "connect_grace": 0.0,
                **ONLY_ECHOES,
                **settings,
            }
            proxy = DatabaseProxy(Settings(destination_dir=destination, **given), events.append)
            async with trio.open_nursery() as nursery:
                bench = Bench(proxy, await nursery.start(proxy.run), events)

                async def stop_at_the_end() -> None:
                    await bench.ended.wait()
                    proxy.stop()

                nursery.start_soon(stop_at_the_end)
                yield bench
                bench.ended.set()
