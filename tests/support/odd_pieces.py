"""Many bytes in pieces of odd sizes, and an upstream that sends them back."""

from collections.abc import Iterator
from itertools import cycle

import trio

from dbproxy.lab.handshake import Handshake

MEBIBYTE = 1024 * 1024
ODD_SIZES = (1, 3, 16_383, 65_537, 16_385, 7, 262_143, 4, 99_991, 16_384, 1_048_577, 2, 32_769)
"""Around the sizes of TLS records and of reads, and far from them."""

Stream = trio.abc.HalfCloseableStream


async def echo(stream: Stream, _facts: Handshake) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.send_eof()


def in_odd_pieces(data: bytes) -> Iterator[memoryview]:
    view, position = memoryview(data), 0
    for size in cycle(ODD_SIZES):
        if position >= len(view):
            return
        yield view[position : position + size]
        position += size


async def send(stream: Stream, data: bytes) -> None:
    """Send everything in odd pieces, then the end."""
    for piece in in_odd_pieces(data):
        await stream.send_all(piece)
    await stream.send_eof()


async def receive(stream: trio.abc.ReceiveStream, expected: bytes) -> None:
    """Receive up to the end; every byte must be the expected one."""
    position = 0
    while data := await stream.receive_some():
        assert expected[position : position + len(data)] == data, f"differs behind byte {position}"
        position += len(data)
    assert position == len(expected)
