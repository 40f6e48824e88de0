"""Peers that vanish, and peers that only do not read.

A socket with a filter that takes nothing is a stand-in for a machine that is gone: its kernel
acknowledges nothing any more (socket(7), SO_ATTACH_FILTER; a classic BPF program `ret #0`).
"""

import ctypes
import errno
import gc
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from dbproxy.relay import Liveness
from dbproxy.relay.liveness import is_unanswered

SO_ATTACH_FILTER = 26
RETURN_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)
CHUNK = bytes(64 * 1024)
PATIENCE = 20.0


def tcp_info(*, retransmits: int = 0, probes: int = 0, last_ack: int = 0) -> bytes:
    words = [0] * 24
    words[12] = last_ack
    return struct.pack("=8B24I", 1, 0, retransmits, probes, 0, 0, 0, 0, *words)


@pytest.mark.parametrize(
    ("info", "unanswered"),
    [
        (tcp_info(last_ack=3_600_000), False),
        (tcp_info(retransmits=1), True),
        (tcp_info(probes=1, last_ack=120_000), False),
        (tcp_info(probes=9, last_ack=59_000), False),
        (tcp_info(probes=9, last_ack=61_000), True),
    ],
    ids=["idle", "repeated", "does not read", "lost probes", "gone while it did not read"],
)
def test_what_the_system_knows_is_understood(info: bytes, unanswered: bool) -> None:
    assert is_unanswered(info, 60.0) is unanswered


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        far = await listener.accept()
        async with near, far:
            yield near, far


def cut_off(stream: trio.SocketStream) -> None:
    """From now on nothing that is sent to the socket arrives."""
    program = ctypes.create_string_buffer(RETURN_NOTHING)
    filters = struct.pack("HxxxxxxP", 1, ctypes.addressof(program))
    stream.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filters)


async def fill(stream: trio.SocketStream) -> None:
    """Send until the peer takes no more."""
    with trio.move_on_after(0.2):
        while True:
            await stream.send_all(CHUNK)


async def test_a_peer_that_is_gone_with_bytes_on_their_way_is_given_up() -> None:
    liveness = Liveness(interval=0.05, limit=1.0)
    async with connection() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(liveness.run)
        liveness.watch(near)
        cut_off(far)
        await near.send_all(b"anybody there?")
        with trio.fail_after(PATIENCE), pytest.raises(trio.BrokenResourceError) as caught:
            await near.receive_some()
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.ETIMEDOUT
        nursery.cancel_scope.cancel()


async def test_a_peer_that_does_not_read_is_not_given_up() -> None:
    liveness = Liveness(interval=0.05, limit=0.3)
    async with connection() as (near, far), trio.open_nursery() as nursery:
        nursery.start_soon(liveness.run)
        liveness.watch(near)
        await fill(near)
        await trio.sleep(1.5)  # several probes of the closed window, and five times the limit
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        await far.send_all(b"still here")
        assert await near.receive_some() == b"still here"
        nursery.cancel_scope.cancel()


async def test_connections_that_have_ended_are_forgotten() -> None:
    liveness = Liveness()
    async with connection() as (near, _far):
        liveness.watch(near)
        assert len(liveness._limited) == 1
    del near, _far
    gc.collect()
    assert len(liveness._limited) == 0


async def test_what_is_no_tcp_connection_is_left_alone() -> None:
    liveness = Liveness()
    one, other = trio.socket.socketpair()
    async with trio.SocketStream(one) as near, trio.SocketStream(other):
        liveness.watch(near)
        assert len(liveness._limited) == 0
