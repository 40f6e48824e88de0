"""Bugs and stops: one record each, nothing left open, and the other connections go on."""

import pytest
import trio
import trio.testing
from connection_bench import DOWN, STARTUP, MakeBench
from loopback import wait_for_end
from stream_ends import FakeStream, memory_pair, receive_all, socket_pair

from dbproxy.downstream.client import Client
from dbproxy.errors import Code
from dbproxy.events import (
    ClosedBy,
)
from dbproxy.protocols import Carry, Greeting


class Buggy:
    """An admission with a bug."""

    def __init__(self, bug: BaseException) -> None:
        self.bug = bug

    async def admit(self, _client: Client, _greeting: Greeting | None = None) -> Carry:
        await trio.lowlevel.checkpoint()
        raise self.bug


class TestBugs:
    """One connection's bug is reported, and does not end the others."""

    @pytest.mark.parametrize("bug", [ZeroDivisionError("bug"), ExceptionGroup("g", [KeyError(1)])])
    async def test_a_bug_in_admission_is_reported(
        self, bug: Exception, make_bench: MakeBench
    ) -> None:
        bench = make_bench(admission=Buggy(bug))
        async with bench.connection() as far:
            await far.send_all(STARTUP)
            await wait_for_end(far)
        assert bench.bugs == [bug]
        assert bench.record.outcome == "failed"
        assert bench.record.code is Code.INTERNAL_ERROR
        assert bench.record.closed_by is ClosedBy.DBPROXY

    async def test_a_bug_in_dialling_is_reported(self, make_bench: MakeBench) -> None:
        bench = make_bench(ZeroDivisionError("bug"))
        await bench.converse(STARTUP)
        assert [type(bug) for bug in bench.bugs] == [ZeroDivisionError]
        assert bench.record.outcome == "failed"

    async def test_a_bug_in_the_relay_is_reported_and_its_upstream_closed(
        self, make_bench: MakeBench
    ) -> None:
        upstream = FakeStream(ZeroDivisionError("bug"))
        bench = make_bench(upstream)
        await bench.converse(STARTUP)
        assert len(bench.bugs) == 1
        assert bench.record.outcome == "failed"
        assert upstream.closed

    async def test_the_other_connections_go_on(self, make_bench: MakeBench) -> None:
        database, upstream = memory_pair()
        bench = make_bench(upstream, ZeroDivisionError("bug"))
        async with trio.open_nursery() as nursery:
            good_near, good_far = socket_pair()
            bad_near, bad_far = socket_pair()
            async with good_far, bad_far:
                nursery.start_soon(bench.handler.handle, good_near)
                await good_far.send_all(STARTUP)
                assert await database.receive_some() == STARTUP
                nursery.start_soon(bench.handler.handle, bad_near)
                await bad_far.send_all(STARTUP)
                assert await receive_all(bad_far) == b""
                await database.send_all(b"still here")
                assert await good_far.receive_some() == b"still here"
                assert bench.handler.open_connections == 1
                await database.send_eof()


class TestStopping:
    """Cancellation ends a connection at once, with a record."""

    @pytest.mark.parametrize("sent", [b"", STARTUP[:5], STARTUP])
    async def test_a_stopped_connection_has_its_record(
        self, sent: bytes, make_bench: MakeBench
    ) -> None:
        upstream = FakeStream()
        bench = make_bench(upstream)
        near, far = socket_pair()
        async with far:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.handler.handle, near)
                await far.send_all(sent)
                await trio.testing.wait_all_tasks_blocked()
                assert bench.handler.open_connections == 1
                nursery.cancel_scope.cancel()
            assert near.socket.fileno() == -1
        assert bench.record.outcome == "stopped"
        assert bench.record.closed_by is ClosedBy.DBPROXY
        assert bench.record.reason == "dbproxy was stopped"
        assert bench.handler.ended_early == 1
        assert upstream.closed is (sent == STARTUP)

    @pytest.mark.parametrize("steps", range(20))
    async def test_whenever_it_comes_there_is_one_record_and_no_socket_left(
        self, steps: int, make_bench: MakeBench
    ) -> None:
        upstream = FakeStream(b"welcome", b"")
        bench = make_bench(upstream)
        near, far = socket_pair()
        async with far:
            await far.send_all(STARTUP)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.handler.handle, near)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        assert near.socket.fileno() == -1
        assert bench.record.outcome in {"stopped", "relayed"}
        assert upstream.closed or not bench.dialer.dials

    async def test_a_refused_connection_that_lingers_is_not_ended_early(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench(DOWN)
        near, far = socket_pair()
        async with far:
            await far.send_all(STARTUP)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.handler.handle, near)
                assert await receive_all(far)
                nursery.cancel_scope.cancel()
        assert bench.record.outcome == "refused"
        assert bench.handler.ended_early == 0
