from __future__ import annotations

from functools import partial

import trio
import trio.testing

from dbproxy.lab.relay import relay


class Relayed:
    """A running relay between two streams, seen from the far ends of both."""

    def __init__(self) -> None:
        self.near_client, self.client = trio.testing.memory_stream_pair()
        self.near_server, self.server = trio.testing.memory_stream_pair()
        self.from_client: list[int] = []
        self.to_client: list[int] = []
        self.ended = trio.Event()

    async def run(self) -> None:
        await relay(
            self.near_client,
            self.near_server,
            count_from_client=self.from_client.append,
            count_to_client=self.to_client.append,
        )
        self.ended.set()


async def test_bytes_go_both_ways_and_are_counted(nursery: trio.Nursery) -> None:
    relayed = Relayed()
    nursery.start_soon(relayed.run)
    await relayed.client.send_all(b"question")
    assert await relayed.server.receive_some() == b"question"
    await relayed.server.send_all(b"an answer")
    assert await relayed.client.receive_some() == b"an answer"
    assert (sum(relayed.from_client), sum(relayed.to_client)) == (8, 9)
    nursery.cancel_scope.cancel()


async def test_one_direction_may_end_before_the_other(nursery: trio.Nursery) -> None:
    relayed = Relayed()
    nursery.start_soon(relayed.run)
    await relayed.client.send_eof()
    assert await relayed.server.receive_some() == b""
    await relayed.server.send_all(b"late")
    assert await relayed.client.receive_some() == b"late"
    assert not relayed.ended.is_set()
    await relayed.server.send_eof()
    assert await relayed.client.receive_some() == b""
    with trio.fail_after(5):
        await relayed.ended.wait()


async def test_a_broken_side_ends_both_directions(nursery: trio.Nursery) -> None:
    relayed = Relayed()
    nursery.start_soon(relayed.run)
    await relayed.client.aclose()
    await relayed.server.send_all(b"to nobody")
    with trio.fail_after(5):
        await relayed.ended.wait()


async def test_a_slow_reader_holds_the_sender_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near_client, client = trio.testing.lockstep_stream_pair()
    near_server, _server = trio.testing.lockstep_stream_pair()
    taken: list[int] = []
    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(
                    relay,
                    near_client,
                    near_server,
                    count_from_client=taken.append,
                    count_to_client=taken.append,
                )
            )
            await client.send_all(bytes(100))
            await client.send_all(bytes(100))
            raise AssertionError("the second write should have waited for the reader")
    assert taken == []
