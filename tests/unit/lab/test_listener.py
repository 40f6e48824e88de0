from __future__ import annotations

import pytest
import trio
import trio.testing

from dbproxy.lab.address import TcpAddress
from dbproxy.lab.errors import LabError
from dbproxy.lab.listener import Listener

ANY = TcpAddress("127.0.0.1", 0)


async def serve_until_the_client_leaves(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.receive_some()


async def connect(listener: Listener) -> trio.SocketStream:
    return await trio.open_tcp_stream(listener.address.host, listener.address.port)


async def test_clients_can_connect_once_it_is_bound(nursery: trio.Nursery) -> None:
    listener = Listener(ANY, serve_until_the_client_leaves)
    await listener.bind()
    assert listener.address.port != 0
    async with await connect(listener) as client:
        nursery.start_soon(listener.run)
        await client.send_all(b"x")
        assert await client.receive_some() == b""
    nursery.cancel_scope.cancel()


async def test_closing_ends_open_connections_and_frees_the_port(nursery: trio.Nursery) -> None:
    listener = Listener(ANY, serve_until_the_client_leaves)
    await listener.bind()
    nursery.start_soon(listener.run)
    async with await connect(listener) as client:
        await trio.testing.wait_all_tasks_blocked(0.01)
        await listener.close()
        assert await client.receive_some() == b""
    again = Listener(listener.address, serve_until_the_client_leaves)
    await again.bind()
    again.abandon()


async def test_an_abandoned_socket_is_closed() -> None:
    listener = Listener(ANY, serve_until_the_client_leaves)
    await listener.bind()
    listener.abandon()
    listener.abandon()
    with pytest.raises(OSError, match="connect"):
        await connect(listener)


async def test_serving_needs_a_bound_socket() -> None:
    with pytest.raises(LabError, match="has to be bound"):
        await Listener(ANY, serve_until_the_client_leaves).run()
