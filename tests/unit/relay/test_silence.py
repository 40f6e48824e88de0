"""A peer that promised pings, and what its silence means."""

from math import inf

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from stream_ends import memory_pair
from trio.testing import MockClock

from dbproxy.layers import PingLayer
from dbproxy.relay import LayeredStream, PingWatch, SilenceError

PING = bytes(4)
HELLO = b"\0\0\0\5hello"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_before_the_first_ping_silence_means_nothing() -> None:
    assert PingWatch(PingLayer(), Clock())() == inf


def test_the_interval_is_measured_and_the_longest_counts() -> None:
    clock, ping = Clock(), PingLayer()
    watch = PingWatch(ping, clock)
    for now, limit in [(130.0, 90.0), (140.0, 90.0), (180.0, 120.0)]:
        clock.now = now
        ping.receive(PING)
        assert watch() == pytest.approx(limit)


def test_pings_that_waited_while_nobody_read_do_not_make_the_interval_longer() -> None:
    clock, ping = Clock(), PingLayer()
    watch = PingWatch(ping, clock)
    clock.now += 600
    ping.receive(20 * PING)
    assert watch() == pytest.approx(90)


def test_a_gap_in_which_the_server_could_not_send_is_forgotten() -> None:
    clock, ping = Clock(), PingLayer()
    watch, limits = PingWatch(ping, clock), []
    for gap in (30, 600, 30, 30, 30):
        clock.now += gap
        ping.receive(PING)
        limits.append(watch())
    assert limits == pytest.approx([90, 1800, 1800, 1800, 90])


def test_pings_that_have_waited_and_come_one_shortly_after_the_other_do_not_shorten_it() -> None:
    clock, ping = Clock(), PingLayer()
    watch = PingWatch(ping, clock)
    for gap in (30, 30, 170, 0.01, 0.01, 0.01, 0.01):
        clock.now += gap
        ping.receive(PING)
        assert watch() >= 90


@pytest.mark.parametrize("pings", [1, 3, 200_000])
def test_however_many_pings_come_a_second_is_waited_for(pings: int) -> None:
    clock, ping = Clock(), PingLayer()
    watch = PingWatch(ping, clock)
    for _ in range(3):
        clock.now += 0.01
        ping.receive(pings * PING)
        assert watch() == 1.0


def test_pings_at_the_very_moment_of_the_handshake_measure_nothing() -> None:
    ping = PingLayer()
    watch = PingWatch(ping, Clock())
    ping.receive(3 * PING)
    assert watch() == inf


@given(
    interval=st.floats(0.1, 600),
    delays=st.lists(st.floats(0, 5000), min_size=1, max_size=30),
)
def test_however_pings_are_held_up_three_intervals_are_waited_for(
    interval: float, delays: list[float]
) -> None:
    clock, ping, arrival = Clock(), PingLayer(), 0.0
    watch = PingWatch(ping, clock)
    for number, delay in enumerate(delays, 1):
        arrival = max(arrival, number * interval + delay)  # they keep their order
        clock.now = 100.0 + arrival
        ping.receive(PING)
        assert watch() >= 3 * interval * (1 - 1e-9)


def test_other_bytes_are_no_pings() -> None:
    clock, ping = Clock(), PingLayer()
    watch = PingWatch(ping, clock)
    clock.now += 30
    ping.receive(HELLO)
    assert watch() == inf


async def watched() -> tuple[LayeredStream, trio.abc.HalfCloseableStream]:
    near, far = memory_pair()
    stream, ping = LayeredStream(near), PingLayer()
    await stream.add_layer(ping)
    stream.patience = PingWatch(ping, trio.current_time)
    return stream, far


async def test_a_peer_that_falls_silent_after_a_ping_is_given_up_after_three_intervals(
    autojump_clock: MockClock,
) -> None:
    stream, far = await watched()
    started = trio.current_time()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _ping_twice() -> None:
            for _ in range(2):
                await trio.sleep(30)
                await far.send_all(PING)

        with pytest.raises(SilenceError, match=r"not a byte came for 90\.0 s"):
            await stream.receive_some()
    assert trio.current_time() - started == pytest.approx(2 * 30 + 90)


async def test_any_byte_counts_not_only_pings(autojump_clock: MockClock) -> None:
    stream, far = await watched()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _ping_and_trickle() -> None:
            await trio.sleep(10)
            await far.send_all(PING)
            for byte in HELLO:
                await trio.sleep(29)
                await far.send_all(bytes([byte]))

        received = b""
        while len(received) < 5:
            received += await stream.receive_some()
    assert received == b"hello"


async def test_a_peer_without_pings_may_be_silent_for_a_day(autojump_clock: MockClock) -> None:
    stream, far = await watched()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _answer_late() -> None:
            await trio.sleep(86400)
            await far.send_all(HELLO)

        assert await stream.receive_some() == b"hello"


async def test_being_cancelled_while_waiting_loses_no_byte(autojump_clock: MockClock) -> None:
    stream, far = await watched()
    await far.send_all(PING)
    with trio.move_on_after(5):
        await stream.receive_some()
    await far.send_all(HELLO)
    assert await stream.receive_some() == b"hello"
