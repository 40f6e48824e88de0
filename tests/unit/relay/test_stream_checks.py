"""trio's own checks of what a stream must do, over several transports and layers."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from openssl_ends import VERSION_1_2, client_layer, server_layer
from tls_peers import Credentials
from trio.testing import check_half_closeable_stream, check_two_way_stream

from dbproxy.layers import LayerError, PingLayer
from dbproxy.relay import LayeredStream

Pair = tuple[LayeredStream, LayeredStream]
Maker = Callable[[], Awaitable[Pair]]
Transports = tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]

GOODBYE = 0.05
"""Seconds: on a clogged transport there is no saying it."""


class CourteousStream(LayeredStream):
    """With the manners that trio's checks expect, and that the relay keeps for itself.

    It says goodbye when it closes, and calls an end without goodbye a broken connection.
    """

    async def aclose(self) -> None:
        try:
            with trio.move_on_after(GOODBYE):
                await self.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            await trio.lowlevel.checkpoint()
        finally:
            await super().aclose()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            return await super().receive_some(max_bytes)
        except LayerError as error:
            raise trio.BrokenResourceError from error


def memory() -> Transports:
    return trio.testing.memory_stream_pair()


def lockstep() -> Transports:
    return trio.testing.lockstep_stream_pair()


def sockets() -> Transports:
    one, other = trio.socket.socketpair()
    return trio.SocketStream(one), trio.SocketStream(other)


async def without_layers(transports: Transports, _localhost: Credentials) -> Pair:
    await trio.lowlevel.checkpoint()
    return LayeredStream(transports[0]), LayeredStream(transports[1])


async def with_tls(transports: Transports, localhost: Credentials) -> Pair:
    client, server = CourteousStream(transports[0]), CourteousStream(transports[1])
    async with trio.open_nursery() as nursery:
        # By TLS 1.3 the server would go on to speak, which no one hears on a lockstep transport.
        nursery.start_soon(client.add_layer, client_layer(version=VERSION_1_2))
        nursery.start_soon(server.add_layer, server_layer(localhost))
    return client, server


async def with_tls_and_ping(transports: Transports, localhost: Credentials) -> Pair:
    client, server = await with_tls(transports, localhost)
    await client.add_layer(PingLayer())
    await server.add_layer(PingLayer())
    return client, server


parametrize_layers = pytest.mark.parametrize(
    "add_layers", [without_layers, with_tls, with_tls_and_ping]
)
AddLayers = Callable[[Transports, Credentials], Awaitable[Pair]]


def makers(
    add_layers: AddLayers, transport: Callable[[], Transports], localhost: Credentials
) -> tuple[Maker, Maker]:
    """What makes pairs of streams, and pairs that take no byte which nobody reads."""

    async def make() -> Pair:
        return await add_layers(transport(), localhost)

    async def make_clogged() -> Pair:
        return await add_layers(lockstep(), localhost)

    return make, make_clogged


@parametrize_layers
@pytest.mark.parametrize("transport", [memory, lockstep, sockets])
async def test_a_layered_stream_is_a_two_way_stream(
    add_layers: AddLayers, transport: Callable[[], Transports], localhost: Credentials
) -> None:
    await check_two_way_stream(*makers(add_layers, transport, localhost))


@parametrize_layers
@pytest.mark.parametrize("transport", [memory, sockets])
async def test_a_layered_stream_is_a_half_closeable_stream(
    add_layers: AddLayers, transport: Callable[[], Transports], localhost: Credentials
) -> None:
    await check_half_closeable_stream(*makers(add_layers, transport, localhost))
