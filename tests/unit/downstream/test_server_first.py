"""Connections of a protocol in which the server speaks first: MySQL."""

from datetime import UTC, datetime
from functools import partial

import pytest
import trio
import trio.testing
from connection_bench import (
    ADDRESS,
    DOWN,
    REJECTED,
    RESET,
    UNTRUSTED,
    Bench,
    InsideTLS,
    MakeBench,
)
from mysql_packets import (
    error,
    greeting_payload,
    ok,
    packet,
    read_packet,
    response_payload,
    tls_request,
)
from stream_ends import Duplex, FakeStream, Pause, receive_all
from trio.testing import MockClock

from dbproxy.downstream.client import Client
from dbproxy.downstream.converse import converse
from dbproxy.downstream.progress import Progress
from dbproxy.errors import Code
from dbproxy.events import ClosedBy, UpstreamRetried
from dbproxy.protocols import MySQL
from dbproxy.protocols.mysql_login import MySQLLogin
from dbproxy.protocols.wire.mysql_packets import Packet
from dbproxy.relay import LayeredStream
from dbproxy.settings import Mode
from dbproxy.upstream import UpstreamConnection

GREETING = packet(0, greeting_payload())
TLS_GREETING = packet(0, greeting_payload(ssl=True))
RESPONSE = packet(1, response_payload())
LOGIN = packet(2, response_payload(ssl=True))
GRACE = 0.5
"""Seconds of the real clock: the identity is read in threads, which a virtual clock overtakes."""


class HesitantStream(FakeStream):
    """Says when somebody listens, and waits until it may answer."""

    def __init__(self, *script: bytes) -> None:
        self.asked, self.may_answer = trio.Event(), trio.Event()
        super().__init__(self.may_answer, *script)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        self.asked.set()
        return await super().receive_some(max_bytes)


@pytest.fixture
def mysql_bench(make_bench: MakeBench) -> MakeBench:
    return partial(make_bench, protocol=MySQL())


class TestOrder:
    """Who is heard first, and what is said again."""

    async def test_the_greeting_comes_first_and_the_answer_goes_up(
        self, mysql_bench: MakeBench
    ) -> None:
        upstream = FakeStream(GREETING, Pause.UNTIL_IDLE, ok(2), b"")
        bench = mysql_bench(upstream)
        async with bench.connection() as far:
            assert await read_packet(far) == GREETING
            await far.send_all(RESPONSE)
            assert await receive_all(far) == ok(2)
        assert upstream.sent == RESPONSE
        assert bench.dialer.dials == [True]
        record = bench.record
        assert (record.outcome, record.closed_by) == ("relayed", ClosedBy.UPSTREAM)
        assert (record.database_user, record.database_name) == ("alice", "example")
        assert record.bytes_up == len(RESPONSE)
        assert record.bytes_down == len(GREETING) + len(ok(2))

    async def test_in_passthrough_nothing_is_authenticated(self, mysql_bench: MakeBench) -> None:
        upstream = FakeStream(TLS_GREETING, Pause.UNTIL_IDLE, b"server hello", b"")
        bench = mysql_bench(upstream, mode=Mode.PASSTHROUGH)
        async with bench.connection() as far:
            assert await read_packet(far) == TLS_GREETING
            await far.send_all(tls_request() + b"client hello")
            assert await receive_all(far) == b"server hello"
        assert upstream.sent == tls_request() + b"client hello"
        assert bench.dialer.dials == [False]

    async def test_a_probe_costs_no_connection(
        self, mysql_bench: MakeBench, autojump_clock: MockClock
    ) -> None:
        bench = mysql_bench()
        async with bench.connection() as far:
            await far.aclose()
        assert (bench.record.outcome, bench.record.reason) == ("probe", None)
        assert bench.dialer.dials == []

    async def test_who_speaks_too_early_costs_no_connection_either(
        self, mysql_bench: MakeBench, autojump_clock: MockClock
    ) -> None:
        bench = mysql_bench()
        answer = await bench.converse(b"GET / HTTP/1.1\r\n\r\n")
        assert b"[client-protocol-error]" in answer
        assert bench.record.code is Code.CLIENT_PROTOCOL_ERROR
        assert bench.dialer.dials == []

    async def test_who_speaks_while_the_upstream_is_dialled_is_told_in_its_own_words(
        self, mysql_bench: MakeBench
    ) -> None:
        upstream = HesitantStream(GREETING)
        bench = mysql_bench(upstream)
        async with bench.connection() as far:
            await upstream.asked.wait()
            await far.send_all(b"GET / HTTP/1.1\r\n\r\n")
            upstream.may_answer.set()
            answer = await receive_all(far)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"this port carries MySQL, in which the server speaks first" in answer
        assert bench.record.code is Code.CLIENT_PROTOCOL_ERROR
        assert upstream.closed

    async def test_who_leaves_after_the_greeting_is_a_probe_with_a_guess(
        self, mysql_bench: MakeBench
    ) -> None:
        upstream = FakeStream(GREETING)
        bench = mysql_bench(upstream)
        async with bench.connection() as far:
            assert await read_packet(far) == GREETING
        assert (bench.record.outcome, bench.record.code) == ("probe", None)
        assert "requires TLS" in (bench.record.reason or "")
        assert upstream.closed


class TestRetries:
    """Until the greeting, another upstream will do as well."""

    async def test_an_upstream_that_is_restarted_is_waited_for(
        self, mysql_bench: MakeBench
    ) -> None:
        upstream = FakeStream(GREETING, Pause.UNTIL_IDLE, ok(2), b"")
        half = FakeStream(GREETING[:10], b"")
        bench = mysql_bench(DOWN, FakeStream(RESET), half, upstream, connect_grace=GRACE)
        async with bench.connection() as far:
            assert await read_packet(far) == GREETING
            await far.send_all(RESPONSE)
            assert await receive_all(far) == ok(2)
        assert bench.record.attempts == 4
        assert half.closed
        assert len([e for e in bench.events if isinstance(e, UpstreamRetried)]) == 3

    async def test_after_the_greeting_the_client_is_told(self, mysql_bench: MakeBench) -> None:
        first = FakeStream(GREETING, Pause.UNTIL_IDLE, RESET)
        bench = mysql_bench(first, FakeStream(GREETING), connect_grace=GRACE)
        async with bench.connection() as far:
            assert await read_packet(far) == GREETING
            await far.send_all(RESPONSE)
            refusal = await receive_all(far)
        assert refusal[3:13] == b"\2\xff\x86\x04#08S01"
        assert b"[upstream-closed-early]" in refusal
        assert bench.record.code is Code.UPSTREAM_CLOSED_EARLY
        assert bench.record.closed_by is ClosedBy.UPSTREAM
        assert first.closed

    @pytest.mark.parametrize(
        ("upstream", "number", "code"),
        [
            (DOWN, 1429, Code.UPSTREAM_UNREACHABLE),
            (UNTRUSTED, 1429, Code.UPSTREAM_UNTRUSTED),
            (FakeStream(REJECTED), 1045, Code.CERTIFICATE_REJECTED),
            (FakeStream(b"HTTP/1.1 400\r\n\r\n"), 1158, Code.UPSTREAM_PROTOCOL_ERROR),
            (FakeStream(error(0, b"Too many")), 1158, Code.UPSTREAM_PROTOCOL_ERROR),
            (FakeStream(b""), 1158, Code.UPSTREAM_CLOSED_EARLY),
        ],
        ids=lambda value: str(value) if isinstance(value, Code) else "",
    )
    async def test_an_error_takes_the_place_of_the_greeting(
        self,
        upstream: Duplex | Exception,
        number: int,
        code: Code,
        mysql_bench: MakeBench,
    ) -> None:
        bench = mysql_bench(upstream)
        refusal = await bench.converse()
        assert refusal[3:5] == b"\0\xff"
        assert int.from_bytes(refusal[5:7], "little") == number
        assert refusal[7:].startswith(b"dbproxy: ")
        assert f"[{code}]".encode() in refusal
        assert bench.record.code is code

    async def test_a_silent_upstream_is_given_up(
        self, mysql_bench: MakeBench, autojump_clock: MockClock
    ) -> None:
        upstream = FakeStream()
        bench = mysql_bench(upstream)
        refusal = await bench.converse()
        assert b"took longer than 3 s" in refusal
        assert upstream.closed

    async def test_a_client_that_leaves_meanwhile_ends_the_wait(
        self, mysql_bench: MakeBench
    ) -> None:
        bench = mysql_bench(*[DOWN] * 50, connect_grace=30)
        async with bench.connection() as far:
            await trio.sleep(0.1)
            await far.aclose()
        assert bench.record.outcome == "probe"


class TestStalling:
    """Clients that do not answer, and cancellation at every step."""

    async def test_a_client_that_does_not_answer_is_dropped(
        self, mysql_bench: MakeBench, autojump_clock: MockClock
    ) -> None:
        upstream = FakeStream(GREETING)
        bench = mysql_bench(upstream)
        async with bench.connection() as far:
            assert await read_packet(far) == GREETING
            refusal = await receive_all(far)
        assert refusal[3] == 1
        assert bench.record.code is Code.CLIENT_STALLED
        assert upstream.closed

    @pytest.mark.parametrize("said", [b"", RESPONSE[:9], RESPONSE], ids=["", "half", "whole"])
    @pytest.mark.parametrize(
        "script", [(), (GREETING[:9],), (GREETING,)], ids=["silent", "half", "greeted"]
    )
    async def test_cancelled_it_leaves_nothing_open(
        self, script: tuple[bytes, ...], said: bytes, mysql_bench: MakeBench
    ) -> None:
        upstream = FakeStream(*script)
        bench = mysql_bench(upstream)
        near, far = trio.socket.socketpair()
        async with trio.SocketStream(far) as client, trio.open_nursery() as nursery:
            nursery.start_soon(bench.handler.handle, trio.SocketStream(near))
            await trio.sleep(0.05)
            if script == (GREETING,):
                await client.send_all(said)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert upstream.closed
        assert bench.record.outcome == "stopped"


class TestLoginInsideTLS:
    """The conversation in which numbers are put right."""

    def _bench(self, mysql_bench: MakeBench, upstream: FakeStream) -> Bench:
        return mysql_bench(upstream, mode=Mode.TERMINATE, admission=InsideTLS())

    async def test_the_login_is_translated_and_the_rest_is_relayed(
        self, mysql_bench: MakeBench
    ) -> None:
        rows = packet(1, b"rows")
        upstream = FakeStream(
            *(GREETING, Pause.UNTIL_IDLE, packet(2, b"\1\4"), Pause.UNTIL_IDLE, ok(4)),
            *(Pause.UNTIL_IDLE, rows, b""),
        )
        bench = self._bench(mysql_bench, upstream)
        async with bench.connection() as far:
            assert await read_packet(far) == TLS_GREETING
            await far.send_all(LOGIN)
            assert await read_packet(far) == packet(3, b"\1\4")
            await far.send_all(packet(4, b"secret\0"))
            assert await read_packet(far) == ok(5)
            await far.send_all(packet(0, b"\3SELECT 1"))
            assert await receive_all(far) == rows
        expected = RESPONSE + packet(3, b"secret\0") + packet(0, b"\3SELECT 1")
        assert upstream.sent == expected
        record = bench.record
        assert (record.outcome, record.code) == ("relayed", None)
        assert record.bytes_up == len(expected)
        assert record.bytes_down == len(GREETING + packet(3, b"\1\4") + ok(5) + rows)

    async def test_an_idle_session_that_the_upstream_ends_is_not_a_failure(
        self, mysql_bench: MakeBench
    ) -> None:
        upstream = FakeStream(GREETING, Pause.UNTIL_IDLE, ok(2), b"")
        bench = self._bench(mysql_bench, upstream)
        async with bench.connection() as far:
            await read_packet(far)
            await far.send_all(LOGIN)
            assert await receive_all(far) == ok(3)
        assert (bench.record.outcome, bench.record.code) == ("relayed", None)
        assert bench.record.closed_by is ClosedBy.UPSTREAM

    async def test_an_upstream_that_says_no(self, mysql_bench: MakeBench) -> None:
        upstream = FakeStream(GREETING, Pause.UNTIL_IDLE, error(2), b"")
        bench = self._bench(mysql_bench, upstream)
        async with bench.connection() as far:
            await read_packet(far)
            await far.send_all(LOGIN)
            assert await receive_all(far) == error(3)
        assert bench.record.outcome == "relayed"

    @pytest.mark.parametrize("end", [b"", RESET], ids=["close", "reset"])
    async def test_an_upstream_that_ends_in_the_middle_is_explained(
        self, end: bytes | Exception, mysql_bench: MakeBench
    ) -> None:
        upstream = FakeStream(GREETING, Pause.UNTIL_IDLE, packet(2, b"\1\4"), end)
        bench = self._bench(mysql_bench, upstream)
        async with bench.connection() as far:
            await read_packet(far)
            await far.send_all(LOGIN)
            said = await receive_all(far)
        more, refusal = said[:6], said[6:]
        assert more == packet(3, b"\1\4")
        assert refusal[3] == 4
        assert b"in the middle of the login" in refusal

    async def test_an_upstream_that_does_not_listen_may_have_said_why(
        self, mysql_bench: MakeBench
    ) -> None:
        upstream = FakeStream(GREETING, Pause.UNTIL_IDLE, error(2), b"", send_error=RESET)
        bench = self._bench(mysql_bench, upstream)
        async with bench.connection() as far:
            await read_packet(far)
            await far.send_all(LOGIN)
            assert await receive_all(far) == error(3)

    async def test_a_client_that_leaves_in_the_middle(self, mysql_bench: MakeBench) -> None:
        upstream = FakeStream(GREETING, Pause.UNTIL_IDLE, packet(2, b"\1\4"))
        bench = self._bench(mysql_bench, upstream)
        async with bench.connection() as far:
            await read_packet(far)
            await far.send_all(LOGIN)
            await read_packet(far)
        assert bench.record.outcome == "abandoned"
        assert upstream.closed

    async def test_a_client_that_breaks_the_protocol_in_the_middle(
        self, mysql_bench: MakeBench
    ) -> None:
        upstream = FakeStream(GREETING, Pause.UNTIL_IDLE, packet(2, b"\1\4"))
        bench = self._bench(mysql_bench, upstream)
        async with bench.connection() as far:
            await read_packet(far)
            await far.send_all(LOGIN)
            await read_packet(far)
            await far.send_all(b"\xff\xff\xff\4")
            assert b"[client-protocol-error]" in await receive_all(far)
        assert bench.record.code is Code.CLIENT_PROTOCOL_ERROR

    async def test_there_is_no_time_limit_for_the_database(
        self, mysql_bench: MakeBench, autojump_clock: MockClock
    ) -> None:
        slow = trio.Event()
        upstream = FakeStream(GREETING, slow, ok(2), b"")
        bench = self._bench(mysql_bench, upstream)
        async with bench.connection() as far:
            await read_packet(far)
            await far.send_all(LOGIN)
            with trio.CancelScope(shield=True):
                await trio.sleep(15)
            slow.set()
            assert await receive_all(far) == ok(3)

    async def test_cancelled_it_is_over_at_once(self) -> None:
        near, _far = trio.testing.memory_stream_pair()
        connection = UpstreamConnection(
            stream=LayeredStream(FakeStream()),
            address=ADDRESS,
            alpn="teleport-mysql",
            tls_version="TLSv1.3",
            duration=0,
        )
        progress = Progress(1, "peer", datetime.now(UTC), 0.0)
        login = MySQLLogin(Packet(2, response_payload()))
        with trio.move_on_after(0.05) as scope:
            await converse(Client(near), connection, login, progress, greeted=True)
        assert scope.cancelled_caught
        assert not login.over
