"""Receiving never waits for a peer that does not read, whenever a sender comes along."""

import pytest
import trio
from stream_ends import FakeStream
from trio.testing import MockClock

from dbproxy.layers import PingLayer
from dbproxy.relay import LayeredStream


class StuckStream(FakeStream):
    """Its peer sends and does not read."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep_forever()


@pytest.mark.parametrize("late", range(8))
async def test_a_receiver_does_not_get_stuck_with_the_bytes_of_a_sender(
    late: int, autojump_clock: MockClock
) -> None:
    stream = LayeredStream(StuckStream(b"\0\0\0\5first", b"\0\0\0\6second"))
    await stream.add_layer(PingLayer())

    async def send() -> None:
        for _ in range(late):
            await trio.lowlevel.checkpoint()
        await stream.send_all(b"request")

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            received = await stream.receive_some() + await stream.receive_some()
            nursery.cancel_scope.cancel()
    assert received == b"firstsecond"
