"""Noticing a peer that vanished."""

import socket

import trio
from stream_ends import socket_pair

from dbproxy.relay import keep_alive


async def tcp_stream() -> tuple[trio.SocketStream, trio.SocketListener]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    return await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]), listener


async def test_a_silent_peer_is_probed_and_given_up_within_a_minute() -> None:
    stream, listener = await tcp_stream()
    async with stream, listener:
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        keep_alive(stream.socket)
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle, interval, count = (
            stream.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
    assert idle + interval * count <= 60


async def test_a_unix_socket_and_a_dead_one_are_left_alone() -> None:
    near, far = socket_pair()
    async with near, far:
        keep_alive(near.socket)
    stream, listener = await tcp_stream()
    async with listener:
        await stream.aclose()
        keep_alive(stream.socket)
