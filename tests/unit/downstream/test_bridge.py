"""Another upstream for a client that has not been answered yet."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from connection_bench import (
    CANCEL_REQUEST,
    CLIENT_HELLO,
    DOWN,
    REJECTED,
    RESET,
    SSL_REQUEST,
    STARTUP,
    UNTRUSTED,
    Bench,
    MakeBench,
    fields,
)
from identities import Cluster, write_destination
from lab_client import until
from stream_ends import FakeStream, Pause, receive_all

from dbproxy.errors import Code, UpstreamError
from dbproxy.events import ClosedBy, UpstreamRetried
from dbproxy.relay.first_flight import LIMIT
from dbproxy.settings import Mode
from dbproxy.upstream import UpstreamConnection

REJECTED_EARLY = UpstreamError(Code.CERTIFICATE_REJECTED, "rejected with unknown_ca")
GRACE = 0.5
"""Seconds of the real clock: the identity is read in threads, which a virtual clock overtakes."""


def welcoming() -> FakeStream:
    """An upstream that answers."""
    return FakeStream(Pause.UNTIL_IDLE, b"welcome", b"")


def failing(error: Exception | bytes) -> FakeStream:
    """An upstream that takes what the client says and fails without a byte."""
    return FakeStream(Pause.UNTIL_IDLE, error)


class TestRestart:
    """An upstream that is being restarted."""

    async def test_a_client_does_not_notice_that_the_upstream_was_away(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench(DOWN, DOWN, DOWN, welcoming(), connect_grace=GRACE)
        assert await bench.converse(STARTUP) == b"welcome"
        assert bench.record.outcome == "relayed"
        assert bench.record.attempts == 4
        retries = [event for event in bench.events if isinstance(event, UpstreamRetried)]
        assert [retry.attempt for retry in retries] == [1, 2, 3]
        assert {retry.code for retry in retries} == {Code.UPSTREAM_UNREACHABLE}

    @pytest.mark.parametrize("error", [RESET, b""], ids=["reset", "close"])
    async def test_what_the_client_said_is_said_again_to_the_next(
        self, error: Exception | bytes, make_bench: MakeBench
    ) -> None:
        first, second = failing(error), welcoming()
        bench = make_bench(first, second, connect_grace=GRACE)
        async with bench.connection() as far:
            await far.send_all(STARTUP)
            await trio.testing.wait_all_tasks_blocked()
            await far.send_all(b" and more")
            assert await receive_all(far) == b"welcome"
        assert first.closed
        assert second.sent == STARTUP + b" and more"
        assert bench.record.bytes_up == len(second.sent)

    async def test_the_greeting_of_direct_tls_is_said_again(self, make_bench: MakeBench) -> None:
        second = FakeStream(b"S", b"server hello", b"")
        bench = make_bench(FakeStream(RESET), second, mode=Mode.PASSTHROUGH, connect_grace=GRACE)
        assert await bench.converse(CLIENT_HELLO) == b"server hello"
        assert second.sent == SSL_REQUEST + CLIENT_HELLO

    async def test_an_upstream_that_stays_away_is_named_when_the_grace_is_over(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench(*[DOWN] * 50, connect_grace=GRACE)
        assert "cannot connect" in fields(await bench.converse(STARTUP))["M"]
        assert bench.record.code is Code.UPSTREAM_UNREACHABLE
        assert bench.record.duration >= GRACE

    async def test_a_silent_close_is_an_accident_once(self, make_bench: MakeBench) -> None:
        bench = make_bench(failing(b""), failing(b""), welcoming(), connect_grace=GRACE)
        assert fields(await bench.converse(STARTUP))["M"].endswith("[upstream-closed-early]")
        assert bench.record.attempts == 2

    async def test_what_stays_wrong_is_told_at_once(self, make_bench: MakeBench) -> None:
        bench = make_bench(UNTRUSTED, welcoming(), connect_grace=GRACE)
        assert fields(await bench.converse(STARTUP))["M"].endswith("[upstream-untrusted]")
        assert bench.record.attempts == 1

    async def test_a_cancel_request_is_not_repeated_once_it_was_sent(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench(failing(b""), welcoming(), connect_grace=GRACE)
        assert await bench.converse(CANCEL_REQUEST) == b""
        assert bench.record.attempts == 1

    async def test_an_answered_client_is_never_replayed(self, make_bench: MakeBench) -> None:
        bench = make_bench(
            FakeStream(b"half", Pause.UNTIL_IDLE, RESET), welcoming(), connect_grace=GRACE
        )
        assert await bench.converse(STARTUP) == b"half"
        assert bench.record.attempts == 1
        assert bench.record.code is Code.UPSTREAM_LOST

    async def test_a_client_that_says_much_before_the_answer_has_one_try(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench(failing(RESET), welcoming(), connect_grace=GRACE)
        async with bench.connection() as far:
            await far.send_all(STARTUP + b"x" * LIMIT)
            assert fields(await receive_all(far))["M"].endswith("[upstream-closed-early]")
        assert bench.record.attempts == 1

    async def test_when_the_proxy_stops_nobody_waits_any_longer(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench(*[DOWN] * 50, connect_grace=3600)
        async with bench.connection() as far:
            await far.send_all(STARTUP)
            await until(lambda: any(isinstance(event, UpstreamRetried) for event in bench.events))
            bench.handler.bridge.retries.stop()
            assert fields(await receive_all(far))["M"].endswith("[upstream-unreachable]")
        assert bench.record.outcome == "refused"

    async def test_a_client_that_is_cancelled_while_it_waits_leaves_nothing(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench(*[DOWN] * 50, connect_grace=3600)
        with trio.move_on_after(GRACE):
            async with bench.connection() as far:
                await far.send_all(STARTUP)
                await trio.sleep_forever()
        assert bench.record.outcome == "stopped"


def waits(bench: Bench) -> bool:
    """Whether the client is kept waiting, or was."""
    return any(isinstance(event, UpstreamRetried) for event in bench.events)


class TestLeaving:
    """A client that does not wait for as long as dbproxy would."""

    @pytest.mark.parametrize("error", [DOWN, REJECTED_EARLY], ids=["down", "rejected"])
    async def test_its_end_ends_the_wait_and_is_on_the_record(
        self, error: UpstreamError, make_bench: MakeBench
    ) -> None:
        bench = make_bench(*[error] * 50, connect_grace=3600)
        async with bench.connection() as far:
            await far.send_all(STARTUP)
            await until(lambda: waits(bench))
            await far.aclose()
        assert bench.record.outcome == "abandoned"
        assert bench.record.closed_by is ClosedBy.CLIENT
        assert bench.record.code is error.code
        assert "the client left while it was kept waiting" in str(bench.record.reason)
        assert error.message in str(bench.record.reason)

    async def test_one_that_only_has_nothing_more_to_say_is_told_at_once(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench(*[DOWN] * 50, connect_grace=3600)
        async with bench.connection() as far:
            await far.send_all(STARTUP)
            await until(lambda: waits(bench))
            await far.send_eof()
            assert fields(await receive_all(far))["M"].endswith("[upstream-unreachable]")

    async def test_what_a_client_says_while_it_waits_arrives_in_order(
        self, make_bench: MakeBench
    ) -> None:
        upstream = welcoming()
        bench = make_bench(DOWN, DOWN, upstream, connect_grace=20)
        async with bench.connection() as far:
            await far.send_all(STARTUP)
            await until(lambda: len(bench.dialer.dials) == 1)
            await far.send_all(b"1")
            await until(lambda: len(bench.dialer.dials) >= 2)
            await far.send_all(b"2")
            assert await receive_all(far) == b"welcome"
        assert upstream.sent == STARTUP + b"12"

    async def test_one_that_says_much_meanwhile_is_held_up_and_loses_nothing(
        self, make_bench: MakeBench
    ) -> None:
        upstream, much = FakeStream(Pause.UNTIL_IDLE, b"welcome", b""), b"x" * 3 * LIMIT
        bench = make_bench(DOWN, DOWN, DOWN, upstream, connect_grace=20)
        async with bench.connection() as far, trio.open_nursery() as nursery:
            await far.send_all(STARTUP)
            await until(lambda: waits(bench))
            nursery.start_soon(far.send_all, much)
            assert await receive_all(far) == b"welcome"
        assert upstream.sent == STARTUP + much

    async def test_a_cancel_request_whose_client_has_left_is_carried_all_the_same(
        self, make_bench: MakeBench
    ) -> None:
        upstream = failing(b"")
        bench = make_bench(DOWN, DOWN, upstream, connect_grace=20)
        async with bench.connection() as far:
            await far.send_all(CANCEL_REQUEST)
            await far.aclose()
        assert upstream.sent == CANCEL_REQUEST
        assert bench.record.outcome == "cancel-request"


class TestRejection:
    """A certificate that the upstream does not take any more."""

    async def test_the_identity_that_tbot_writes_meanwhile_is_used(
        self,
        make_bench: MakeBench,
        destination: Path,
        cluster: Cluster,
    ) -> None:
        bench = make_bench(failing(REJECTED), welcoming(), connect_grace=20)
        async with bench.connection() as far:
            await far.send_all(STARTUP)
            await until(lambda: any(isinstance(event, UpstreamRetried) for event in bench.events))
            write_destination(destination, cluster)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.handler.store.settled)
                assert await receive_all(far) == b"welcome"
        assert bench.record.generation == 2
        assert bench.record.attempts == 2

    async def test_when_the_proxy_stops_nobody_waits_for_a_newer_one(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench(failing(REJECTED), welcoming(), connect_grace=3600)
        async with bench.connection() as far:
            await far.send_all(STARTUP)
            await until(lambda: waits(bench))
            bench.handler.bridge.retries.stop()
            assert fields(await receive_all(far))["M"].endswith("[certificate-rejected]")

    async def test_without_a_newer_identity_the_rejection_is_told(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench(failing(REJECTED), welcoming(), connect_grace=GRACE)
        assert "unknown_ca" in fields(await bench.converse(STARTUP))["M"]
        assert bench.record.attempts == 1
        assert bench.record.duration >= GRACE

    async def test_clients_do_not_wait_one_by_one_for_a_renewal_that_does_not_come(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench(failing(REJECTED), failing(REJECTED), connect_grace=GRACE)
        await bench.converse(STARTUP)
        bench.events.clear()
        await bench.converse(STARTUP)
        assert bench.record.code is Code.CERTIFICATE_REJECTED
        (retry,) = (event for event in bench.events if isinstance(event, UpstreamRetried))
        assert retry.pause < GRACE / 2  # what the first one's dial took, when the machine is busy

    async def test_a_certificate_that_was_accepted_meanwhile_is_waited_for_anew(
        self, make_bench: MakeBench
    ) -> None:
        """The first rejection was another Proxy's, say; the next one may be a rotation's."""
        bench = make_bench(failing(REJECTED), welcoming(), failing(REJECTED), connect_grace=GRACE)
        await bench.converse(STARTUP)
        assert await bench.converse(STARTUP) == b"welcome"
        bench.events.clear()
        await bench.converse(STARTUP)
        (retry,) = (event for event in bench.events if isinstance(event, UpstreamRetried))
        assert retry.pause == pytest.approx(GRACE, abs=0.2)

    async def test_a_client_that_has_ended_its_direction_is_told_of_it(
        self, make_bench: MakeBench
    ) -> None:
        rejects = trio.Event()
        bench = make_bench(FakeStream(rejects, REJECTED), welcoming())
        async with bench.connection() as far:
            await far.send_all(STARTUP)
            await far.send_eof()
            await trio.testing.wait_all_tasks_blocked()
            rejects.set()
            assert fields(await receive_all(far))["M"].endswith("[certificate-rejected]")
        assert (bench.record.outcome, bench.record.code) == (
            "refused",
            Code.CERTIFICATE_REJECTED,
        )

    async def test_an_upstream_that_ends_because_the_client_has_is_no_refusal(
        self, make_bench: MakeBench
    ) -> None:
        ends = trio.Event()
        bench = make_bench(FakeStream(ends, b""))
        async with bench.connection() as far:
            await far.send_all(STARTUP)
            await far.send_eof()
            await trio.testing.wait_all_tasks_blocked()
            ends.set()
            assert await receive_all(far) == b""
        assert (bench.record.outcome, bench.record.closed_by) == ("relayed", ClosedBy.CLIENT)


class TestQueue:
    """As many are being dialled as may be at a time."""

    async def test_who_is_cancelled_just_when_it_was_dialled_leaves_no_socket(
        self, make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upstream = FakeStream()
        bench = make_bench(upstream)
        dial = bench.dialer.dial

        async def cancelled_at_the_end(*arguments: Any, **options: Any) -> UpstreamConnection:
            connection = await dial(*arguments, **options)
            scope.cancel()
            return connection

        monkeypatch.setattr(type(bench.dialer), "busy", True)
        monkeypatch.setattr(bench.dialer, "dial", cancelled_at_the_end)
        with trio.CancelScope() as scope:
            async with bench.connection() as far:
                await far.send_all(STARTUP)
                await trio.sleep_forever()
        assert upstream.closed
        assert upstream.sent == b""

    async def test_a_failure_is_told_as_it_is(
        self, make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = make_bench(UNTRUSTED)
        monkeypatch.setattr(type(bench.dialer), "busy", True)
        assert fields(await bench.converse(STARTUP))["M"].endswith("[upstream-untrusted]")
