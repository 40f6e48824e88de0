"""A relay in the background, on real sockets, with every stack of layers."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
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
        ends: How it ended, when it has.
        scope: What it runs in.
    """

    relay: AnyRelay
    client: trio.SocketStream
    database: LayeredStream
    transport: trio.SocketStream
    upstream: LayeredStream
    flight: FirstFlight
    answered: list[None] = field(default_factory=list)
    ends: list[RelayEnd] = field(default_factory=list)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

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
    async with (
        engine_running(fast) as engine,
        relaying(engine, stack, credentials, first, verdict) as bench,
    ):
        assert isinstance(bench.relay, FastRelay) is fast
        yield bench


@asynccontextmanager
async def crowd(
    size: int, fast: bool, stack: str, credentials: Credentials
) -> AsyncIterator[list[Bench]]:
    """As many relays on one engine, each of which has carried a message in either direction."""
    async with engine_running(fast) as engine, AsyncExitStack() as relays:
        benches = [
            await relays.enter_async_context(relaying(engine, stack, credentials))
            for _ in range(size)
        ]
        for bench in benches:
            assert isinstance(bench.relay, FastRelay) is fast
            await bench.client.send_all(b"hello")
            assert await bench.database.receive_some() == b"hello"
            await bench.database.send_all(b"welcome")
            assert await bench.client.receive_some() == b"welcome"
        yield benches


@asynccontextmanager
async def engine_running(fast: bool) -> AsyncIterator[RelayEngine]:
    """An engine that runs for the length of the block, which has an end."""
    engine = RelayEngine(fast=fast)
    engine.linger_when_alone(lambda: 1)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as machinery:
            machinery.start_soon(engine.run)
            yield engine
            machinery.cancel_scope.cancel()


@asynccontextmanager
async def relaying(
    engine: RelayEngine,
    stack: str,
    credentials: Credentials,
    first: bytes = b"",
    verdict: VerdictReader | None = None,
) -> AsyncIterator[Bench]:
    """A relay on a running engine; otherwise as `running`."""
    near, client = socket_pair()
    upstream, database, transport = await layered_pair(stack, credentials)
    flight = FirstFlight(first)
    answered: list[None] = []
    client_stream = LayeredStream(near)
    relay = engine.relay(client_stream, upstream, flight, lambda: answered.append(None), verdict)
    bench = Bench(relay, client, database, transport, upstream, flight, answered)

    async def keep_end() -> None:
        with bench.scope:
            bench.ends.append(await relay.run())

    async with client, database, client_stream, upstream, trio.open_nursery() as nursery:
        nursery.start_soon(keep_end)
        yield bench


async def fill(client: trio.SocketStream) -> None:
    """Write until nobody takes any more."""
    full = False
    while not full:
        full = True
        with suppress(BlockingIOError):
            while os.write(client.socket.fileno(), bytes(65536)):
                full = False
        await trio.testing.wait_all_tasks_blocked()


def say_at_once(bench: Bench, data: bytes, behind: bytes = b"") -> None:
    """What the database says is there when nobody has had a turn yet."""
    layers = bench.database.lend()[1]
    layers.send(data)
    os.write(bench.transport.socket.fileno(), layers.outgoing() + behind)
