"""A relay in the background, on real sockets, with every stack of layers."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from openssl_ends import client_layer, server_layer
from stream_ends import socket_pair
from tls_peers import Credentials

from dbproxy.layers import Layer, PingLayer, WebSocketLayer
from dbproxy.protocols import VerdictReader
from dbproxy.relay import AnyRelay, FirstFlight, LayeredStream, RelayEnd, RelayEngine
from dbproxy.relay.fast import FastRelay

KIB = 1024
MIB = 1024 * KIB
PATIENCE = 20.0
STACKS = ("plain", "tls", "tls-ping", "tls-websocket-tls-ping")

every_engine = pytest.mark.parametrize("fast", [False, True], ids=["trio", "reactor"])
every_stack = pytest.mark.parametrize("stack", STACKS)


@dataclass
class Bench:
    """A relay in the background, and the far ends of its two sides.

    Attributes:
        client: The client's end.
        database: The upstream's end, behind its layers.
        transport: The socket under it.
        upstream: The relay's end of it.
        answered: How often the relay told about a first byte.
    """

    relay: AnyRelay
    client: trio.SocketStream
    database: LayeredStream
    transport: trio.SocketStream
    upstream: LayeredStream
    flight: FirstFlight
    answered: list[None] = field(default_factory=list)
    ends: list[RelayEnd] = field(default_factory=list)

    @property
    def end(self) -> RelayEnd:
        """How it ended; it must have."""
        (end,) = self.ends
        return end


async def add_both(
    near: LayeredStream, far: LayeredStream, make: Callable[[], tuple[Layer, Layer]]
) -> None:
    one, other = make()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.add_layer, one)
        nursery.start_soon(far.add_layer, other)


async def layered_pair(
    stack: str, credentials: Credentials
) -> tuple[LayeredStream, LayeredStream, trio.SocketStream]:
    """Two connected ends with the layers of a way to Teleport."""
    near, far = socket_pair()
    upstream, database = LayeredStream(near), LayeredStream(far)
    kinds: dict[str, Callable[[], tuple[Layer, Layer]]] = {
        "tls": lambda: (client_layer(), server_layer(credentials)),
        "websocket": lambda: (WebSocketLayer(), WebSocketLayer()),
        "ping": lambda: (PingLayer(), PingLayer()),
    }
    for name in stack.split("-"):
        if name in kinds:
            await add_both(upstream, database, kinds[name])
    return upstream, database, far


@asynccontextmanager
async def running(
    fast: bool,
    stack: str,
    credentials: Credentials,
    first: bytes = b"",
    verdict: VerdictReader | None = None,
) -> AsyncIterator[Bench]:
    """A relay; at the end of the block it must have ended, or end by itself."""
    near, client = socket_pair()
    upstream, database, transport = await layered_pair(stack, credentials)
    engine, flight = RelayEngine(fast=fast), FirstFlight(first)
    engine.linger_when_alone(lambda: 1)
    answered: list[None] = []
    client_stream = LayeredStream(near)
    relay = engine.relay(client_stream, upstream, flight, lambda: answered.append(None), verdict)
    assert isinstance(relay, FastRelay) is fast
    bench = Bench(relay, client, database, transport, upstream, flight, answered)

    async def keep_end() -> None:
        bench.ends.append(await relay.run())

    with trio.fail_after(PATIENCE):
        async with client, database, client_stream, upstream, trio.open_nursery() as machinery:
            machinery.start_soon(engine.run)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_end)
                yield bench
            machinery.cancel_scope.cancel()
