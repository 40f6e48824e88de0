"""The rules of the relay, one by one, over memory streams and scripted ones."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from stream_ends import Duplex, FakeStream, Pause, lockstep_pair, memory_pair, receive_all
from trio.testing import MockClock

from dbproxy.events import ClosedBy
from dbproxy.layers import TLSError, TruncatedError
from dbproxy.relay import BUSY, FirstFlight, Relay, RelayEnd
from dbproxy.relay.pump import LAST_WORD

KIB = 1024
MIB = 1024 * KIB
RESET = trio.BrokenResourceError("reset")
TRUNCATED = TruncatedError("the connection ended without a TLS close_notify")
ALERT = TLSError("tlsv1 alert unknown ca", alert="unknown ca", during_handshake=False)
FAILURES = [RESET, TRUNCATED, ALERT]


@dataclass
class Running:
    """A relay in the background, and the far ends of its two sides."""

    relay: Relay
    client: Duplex
    database: Duplex
    ends: list[RelayEnd] = field(default_factory=list)

    @property
    def end(self) -> RelayEnd:
        """How it ended; it must have."""
        (end,) = self.ends
        return end


class SlowToEnd(FakeStream):
    """Takes its time for the end."""

    async def send_eof(self) -> None:
        await trio.sleep(0.9 * BUSY)
        await super().send_eof()


@asynccontextmanager
async def running(first_flight: bytes = b"") -> AsyncIterator[Running]:
    """A relay between two memory streams; at the end of the block it must end by itself."""
    client, near = memory_pair()
    upstream, database = memory_pair()
    run = Running(Relay(near, upstream, FirstFlight(first_flight)), client, database)

    async def keep_end() -> None:
        run.ends.append(await run.relay.run())

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_end)
            yield run


async def run_relay(client: Duplex, upstream: Duplex, first_flight: bytes = b"") -> RelayEnd:
    with trio.fail_after(10):
        return await Relay(client, upstream, FirstFlight(first_flight)).run()


class TestBytes:
    """What goes in comes out, and is counted."""

    async def test_bytes_go_both_ways_and_are_counted(self) -> None:
        async with running() as run:
            await run.client.send_all(b"question")
            assert await run.database.receive_some() == b"question"
            await run.database.send_all(b"the answer")
            assert await run.client.receive_some() == b"the answer"
            assert (run.relay.bytes_up, run.relay.bytes_down) == (8, 10)
            await run.client.send_eof()
            await run.database.send_eof()

    async def test_the_first_flight_goes_before_all_else_and_is_counted(self) -> None:
        async with running(b"startup, ") as run:
            await run.client.send_all(b"question")
            await run.client.send_eof()
            assert await receive_all(run.database) == b"startup, question"
            assert run.relay.bytes_up == 17
            await run.database.send_eof()

    @given(
        st.lists(st.binary(min_size=1, max_size=50), max_size=12),
        st.lists(st.binary(min_size=1, max_size=50), max_size=12),
        st.binary(max_size=9),
        st.randoms(use_true_random=False),
    )
    def test_whatever_is_sent_arrives_in_order(
        self, up: Sequence[bytes], down: Sequence[bytes], first: bytes, chance: random.Random
    ) -> None:
        async def send(stream: Duplex, pieces: Sequence[bytes]) -> None:
            for piece in pieces:
                await stream.send_all(piece)
                await trio.sleep(chance.random())
            await stream.send_eof()

        async def transfer() -> tuple[bytes, bytes, RelayEnd]:
            async with running(first) as run, trio.open_nursery() as nursery:
                nursery.start_soon(send, run.client, up)
                nursery.start_soon(send, run.database, [*down, b"last"])
                arrived_up = await receive_all(run.database)
                arrived_down = await receive_all(run.client)
            return arrived_up, arrived_down, run.end

        arrived_up, arrived_down, end = trio.run(transfer, clock=MockClock(autojump_threshold=0))
        assert arrived_up == first + b"".join(up)
        assert arrived_down == b"".join(down) + b"last"
        assert end.error is None


class TestCleanEnds:
    """One direction ends, the other one goes on."""

    async def test_a_client_that_has_asked_its_last_question_still_gets_the_answer(self) -> None:
        async with running() as run:
            await run.client.send_all(b"last question")
            await run.client.send_eof()
            assert await receive_all(run.database) == b"last question"
            await trio.testing.wait_all_tasks_blocked()
            await run.database.send_all(b"answer")
            await run.database.send_eof()
            assert await receive_all(run.client) == b"answer"
        assert run.end == RelayEnd(
            ClosedBy.CLIENT, None, upstream_spoke=True, upstream_error=None, client_ended=True
        )

    async def test_an_upstream_that_has_said_its_last_word_still_listens(self) -> None:
        async with running() as run:
            await run.database.send_all(b"goodbye")
            await run.database.send_eof()
            assert await receive_all(run.client) == b"goodbye"
            await trio.testing.wait_all_tasks_blocked()
            await run.client.send_all(b"late news")
            await run.client.send_eof()
            assert await receive_all(run.database) == b"late news"
        assert run.end == RelayEnd(
            ClosedBy.UPSTREAM, None, upstream_spoke=True, upstream_error=None, client_ended=True
        )

    @pytest.mark.parametrize("last_words", [b"", b"question"])
    async def test_an_upstream_that_ends_without_a_byte_ends_the_relay_and_the_client_hears_nothing(
        self, last_words: bytes
    ) -> None:
        client = FakeStream(last_words) if last_words else FakeStream()
        end = await run_relay(client, FakeStream(Pause.UNTIL_IDLE, b""))
        assert end == RelayEnd(
            ClosedBy.UPSTREAM, None, upstream_spoke=False, upstream_error=None, client_ended=False
        )
        assert client.sent == b""
        assert not client.eof_sent

    async def test_an_end_that_cannot_be_passed_on_is_no_failure(self) -> None:
        client = FakeStream(b"")
        upstream = FakeStream(b"answer", b"", eof_error=RESET)
        end = await run_relay(client, upstream)
        assert end.error is None
        assert client.sent == b"answer"

    async def test_neither_stream_is_closed_by_the_relay(self) -> None:
        client, upstream = FakeStream(b""), FakeStream(b"answer", b"")
        await run_relay(client, upstream)
        assert not client.closed
        assert not upstream.closed
        assert client.eof_sent
        assert upstream.eof_sent


class TestFailures:
    """Who fails how, and what becomes of the other side."""

    @pytest.mark.parametrize("error", FAILURES, ids=repr)
    async def test_a_failure_of_receiving_from_the_client_ends_everything_at_once(
        self, error: Exception
    ) -> None:
        upstream = FakeStream(b"answer")
        client = FakeStream(b"question", Pause.UNTIL_IDLE, error)
        end = await run_relay(client, upstream)
        assert end == RelayEnd(
            ClosedBy.CLIENT, error, upstream_spoke=True, upstream_error=None, client_ended=True
        )
        assert upstream.sent == b"question"
        assert not upstream.eof_sent, "a broken connection is no end of the messages"

    @pytest.mark.parametrize("error", FAILURES, ids=repr)
    @pytest.mark.parametrize("words", [[], [b"half an ans"]])
    async def test_a_failure_of_receiving_from_the_upstream_ends_everything_at_once(
        self, error: Exception, words: list[bytes]
    ) -> None:
        client = FakeStream(b"question")
        end = await run_relay(client, FakeStream(*words, Pause.UNTIL_IDLE, error))
        assert end == RelayEnd(
            ClosedBy.UPSTREAM,
            error,
            upstream_spoke=bool(words),
            upstream_error=error,
            client_ended=False,
        )
        assert client.sent == b"".join(words)
        assert not client.eof_sent, "a client must not take half an answer for a whole one"

    @pytest.mark.parametrize("error", FAILURES, ids=repr)
    async def test_a_failure_of_sending_to_the_client_ends_everything_at_once(
        self, error: Exception
    ) -> None:
        client = FakeStream(send_error=error)
        end = await run_relay(client, FakeStream(b"answer"))
        assert end == RelayEnd(
            ClosedBy.CLIENT, error, upstream_spoke=True, upstream_error=None, client_ended=True
        )

    @pytest.mark.parametrize("error", FAILURES, ids=repr)
    async def test_when_sending_to_the_upstream_fails_its_last_words_still_arrive(
        self, error: Exception
    ) -> None:
        client = FakeStream(b"insert 1", b"insert 2", b"insert 3")
        upstream = FakeStream(
            Pause.UNTIL_IDLE, b"FATAL: ", b"disk full", b"", send_error=error, good_sends=1
        )
        end = await run_relay(client, upstream)
        assert client.sent == b"FATAL: disk full"
        assert client.eof_sent
        assert upstream.sent == b"insert 1"
        assert upstream.sends == 2, "after a failure nothing more is sent"
        assert end == RelayEnd(
            ClosedBy.UPSTREAM, error, upstream_spoke=True, upstream_error=None, client_ended=False
        )

    async def test_when_sending_the_first_flight_fails_the_upstreams_reason_still_arrives(
        self,
    ) -> None:
        client = FakeStream()
        upstream = FakeStream(Pause.UNTIL_IDLE, b"no", b"", send_error=RESET)
        end = await run_relay(client, upstream, b"startup")
        assert client.sent == b"no"
        assert end.error is RESET

    async def test_a_client_stuck_in_writing_to_a_dead_upstream_is_read_to_the_end(self) -> None:
        client, near = lockstep_pair()
        all_sent = trio.Event()
        upstream = FakeStream(all_sent, b"reason", b"", send_error=RESET)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_relay, near, upstream)
            for _ in range(100):
                await client.send_all(b"insert")
            all_sent.set()
            assert await receive_all(client) == b"reason"

    async def test_an_upstream_that_has_ended_and_takes_no_more_ends_the_relay(self) -> None:
        client = FakeStream(Pause.UNTIL_IDLE, b"insert")
        upstream = FakeStream(b"goodbye", b"", send_error=RESET)
        end = await run_relay(client, upstream)
        assert end == RelayEnd(
            ClosedBy.UPSTREAM, None, upstream_spoke=True, upstream_error=None, client_ended=False
        )

    async def test_a_client_that_takes_no_more_is_heard_until_nothing_of_it_is_taken_any_more(
        self, autojump_clock: MockClock
    ) -> None:
        words = [trio.Event() for _ in range(4)]
        script = [part for word in words for part in (word, b"word ")]
        client, upstream = FakeStream(*script, send_error=RESET), FakeStream(b"nobody hears that")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _say() -> None:
                for word, pause in zip(words, (0.6, 0.6, 0.6, 1.1), strict=True):
                    await trio.sleep(pause * LAST_WORD)
                    word.set()

            end = await run_relay(client, upstream)
        assert upstream.sent == b"word " * 3
        assert end.closed_by is ClosedBy.CLIENT

    async def test_who_hears_a_client_out_gives_a_slow_upstream_its_time_for_a_large_batch(
        self, autojump_clock: MockClock
    ) -> None:
        said = bytes(3 * 64 * KIB + 1)
        client = FakeStream(said, send_error=RESET)
        upstream, database = lockstep_pair()
        relay, received = Relay(client, upstream), b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.run)
            await database.send_all(b"nobody hears that")
            while len(received) < len(said):
                await trio.sleep(0.6 * BUSY)
                received += await database.receive_some(64 * KIB)
        assert received == said
        assert relay.bytes_up == len(said)

    async def test_an_upstream_that_is_busy_has_its_time_for_an_end_that_a_client_has_said(
        self, autojump_clock: MockClock
    ) -> None:
        upstream = SlowToEnd(b"nobody hears that")
        relay = Relay(FakeStream(Pause.UNTIL_IDLE, b"", send_error=RESET), upstream)
        relay._says_end = True  # as TLS does
        await relay.run()
        assert upstream.eof_sent

    async def test_an_upstream_that_is_stuck_does_not_keep_a_client_that_is_gone(
        self, autojump_clock: MockClock
    ) -> None:
        upstream, database = lockstep_pair()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _relay() -> None:
                await Relay(FakeStream(b"COMMIT", send_error=RESET), upstream).run()

            await database.send_all(b"nobody hears that")
        assert BUSY <= trio.current_time() < BUSY + LAST_WORD

    async def test_the_first_of_two_failures_is_the_one_that_counts(self) -> None:
        upstream = FakeStream(Pause.UNTIL_IDLE, TRUNCATED, send_error=RESET)
        end = await run_relay(FakeStream(b"question"), upstream)
        assert end.error is RESET
        assert end.upstream_error is TRUNCATED

    @pytest.mark.parametrize("side", ["client", "upstream"])
    async def test_a_bug_is_not_mistaken_for_a_failure_of_the_connection(self, side: str) -> None:
        bad, good = FakeStream(ZeroDivisionError()), FakeStream()
        ends = (bad, good) if side == "client" else (good, bad)
        with pytest.RaisesGroup(ZeroDivisionError):
            await run_relay(*ends)


class TestCounters:
    """Only what was delivered counts."""

    async def test_what_the_upstream_did_not_take_is_not_counted(self) -> None:
        client = FakeStream(b"taken", b"lost", b"lost")
        upstream = FakeStream(Pause.UNTIL_IDLE, b"x", b"", send_error=RESET, good_sends=1)
        relay = Relay(client, upstream)
        await relay.run()
        assert (relay.bytes_up, relay.bytes_down) == (5, 1)

    async def test_what_the_client_did_not_take_is_not_counted(self) -> None:
        relay = Relay(FakeStream(send_error=RESET, good_sends=1), FakeStream(b"one", b"three"))
        await relay.run()
        assert relay.bytes_down == 3


class TestBackpressure:
    """A slow reader slows its writer down, and only that one."""

    @pytest.mark.parametrize("direction", ["up", "down"])
    async def test_at_most_one_batch_waits_for_a_slow_reader(self, direction: str) -> None:
        client, near = lockstep_pair()
        upstream, database = lockstep_pair()
        writer, reader = (client, database) if direction == "up" else (database, client)
        taken = 0

        async def write() -> None:
            nonlocal taken
            while True:
                await writer.send_all(b"batch")
                taken += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_relay, near, upstream)
            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            assert taken == 1
            for already in range(1, 4):
                assert await reader.receive_some() == b"batch"
                await trio.testing.wait_all_tasks_blocked()
                assert taken == already + 1
            nursery.cancel_scope.cancel()

    async def test_a_direction_that_is_stuck_does_not_hold_up_the_other_one(self) -> None:
        client, near = lockstep_pair()
        upstream, database = lockstep_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_relay, near, upstream)
            nursery.start_soon(client.send_all, b"nobody reads this")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(database.send_all, b"news")
            assert await client.receive_some() == b"news"
            nursery.cancel_scope.cancel()


class TestCancellation:
    """It ends at once, wherever it is, and closes nothing."""

    @pytest.mark.parametrize("checkpoints", range(12))
    async def test_it_ends_wherever_it_is(self, checkpoints: int) -> None:
        client, near = lockstep_pair()
        upstream, database = lockstep_pair()
        async with trio.open_nursery() as peers:
            peers.start_soon(client.send_all, b"question")
            peers.start_soon(database.send_all, b"answer")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_relay, near, upstream, b"first")
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            assert not nursery.child_tasks
            peers.cancel_scope.cancel()

    async def test_cancelling_it_closes_neither_stream(self) -> None:
        client, upstream = FakeStream(), FakeStream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Relay(client, upstream).run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert not client.closed
        assert not upstream.closed
        assert not client.eof_sent
