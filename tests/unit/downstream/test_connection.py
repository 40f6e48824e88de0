"""The life of one connection: what is carried, and what its record says."""

import pytest
import trio
import trio.testing
from connection_bench import (
    CANCEL_REQUEST,
    CLIENT_HELLO,
    REJECTED,
    RESET,
    SSL_REQUEST,
    STARTUP,
    MakeBench,
)
from stream_ends import FakeStream, Pause, receive_all
from trio.testing import MockClock

from dbproxy.errors import Code
from dbproxy.events import (
    ClosedBy,
    UpstreamConnected,
)
from dbproxy.layers import TruncatedError
from dbproxy.settings import Mode
from dbproxy.upstream import explain_loss


class TestRelayed:
    """Connections that carried something."""

    async def test_a_good_connection_has_a_complete_record(self, make_bench: MakeBench) -> None:
        upstream = FakeStream(b"welcome", Pause.UNTIL_IDLE, b"")
        bench = make_bench(upstream)
        async with bench.connection() as far:
            await far.send_all(STARTUP)
            assert await far.receive_some() == b"welcome"
            await far.send_eof()
            assert await receive_all(far) == b""
        record = bench.record
        assert (record.outcome, record.code, record.reason) == ("relayed", None, None)
        assert (record.bytes_up, record.bytes_down) == (len(STARTUP), 7)
        assert record.id == 1
        assert (record.mode, record.protocol) == ("tunnel", "postgres")
        assert record.service == "example-server"
        assert (record.database_user, record.database_name) == ("alice", "example")
        assert record.generation == 1
        assert record.peer.startswith("unix pid=")
        assert record.duration >= 0
        assert record.opened_at.tzinfo is not None
        assert upstream.closed
        assert bench.dialer.dials == [True]

    async def test_the_upstreams_handshake_is_an_event(self, make_bench: MakeBench) -> None:
        bench = make_bench(FakeStream(b"x", b""))
        await bench.converse(STARTUP)
        (event,) = (event for event in bench.events if isinstance(event, UpstreamConnected))
        assert event == UpstreamConnected(
            id=1,
            address="teleport.example.com:443",
            alpn="teleport-postgres-ping",
            tls_version="TLSv1.3",
            resumed=False,
            upgraded=False,
            duration=0.5,
        )

    async def test_each_connection_has_a_number_of_its_own(self, make_bench: MakeBench) -> None:
        bench = make_bench(FakeStream(b"x", b""), FakeStream(b"x", b""))
        for number in (1, 2):
            bench.events.clear()
            await bench.converse(STARTUP)
            assert bench.record.id == number

    async def test_who_ended_first_is_on_the_record(self, make_bench: MakeBench) -> None:
        bench = make_bench(FakeStream(b"goodbye", b""))
        async with bench.connection() as far:
            await far.send_all(STARTUP)
            assert await receive_all(far) == b"goodbye"
        assert bench.record.closed_by is ClosedBy.UPSTREAM
        assert bench.record.outcome == "relayed"

    @pytest.mark.parametrize("error", [RESET, TruncatedError("cut"), REJECTED], ids=repr)
    async def test_an_upstream_that_fails_midway_is_a_relayed_connection_with_a_reason(
        self, error: Exception, make_bench: MakeBench
    ) -> None:
        bench = make_bench(FakeStream(b"half", Pause.UNTIL_IDLE, error))
        assert await bench.converse(STARTUP) == b"half"
        assert bench.record.outcome == "relayed"
        assert bench.record.closed_by is ClosedBy.UPSTREAM
        assert bench.record.code is Code.UPSTREAM_LOST
        assert bench.record.reason == explain_loss("teleport.example.com:443", error).message

    async def test_a_cancel_request_that_teleport_rejects_is_on_the_record(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench(FakeStream(Pause.UNTIL_IDLE, REJECTED))
        await bench.converse(CANCEL_REQUEST)
        assert bench.record.outcome == "cancel-request"
        assert bench.record.code is Code.CERTIFICATE_REJECTED

    async def test_a_client_has_a_moment_to_read_what_an_upstream_said_before_it_failed(
        self, make_bench: MakeBench, autojump_clock: MockClock
    ) -> None:
        bench = make_bench(FakeStream(b"half", Pause.UNTIL_IDLE, RESET))
        async with bench.connection() as far:
            await far.send_all(STARTUP)
            assert await receive_all(far) == b"half"
            await far.send_all(b"closing over these bytes would reset the connection")
            await trio.sleep(0.5)
            assert bench.handler.open_connections == 1
        assert bench.record.outcome == "relayed"

    async def test_a_client_that_vanishes_ends_the_connection_at_once(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench(FakeStream(b"never read"))
        async with bench.connection() as far:
            await far.send_all(STARTUP)
            await trio.testing.wait_all_tasks_blocked()
            await far.aclose()  # over unread bytes, hence a reset
        assert bench.record.outcome == "relayed"
        assert bench.record.closed_by is ClosedBy.CLIENT
        assert bench.record.reason == "the connection broke: connection reset by peer"

    async def test_a_cancel_request_is_carried_and_its_silent_end_is_no_failure(
        self, make_bench: MakeBench
    ) -> None:
        upstream = FakeStream(Pause.UNTIL_IDLE, b"")
        bench = make_bench(upstream, mode=Mode.PASSTHROUGH)
        assert await bench.converse(CANCEL_REQUEST) == b""
        assert upstream.sent == CANCEL_REQUEST
        assert bench.dialer.dials == [True]
        assert bench.record.outcome == "cancel-request"
        assert bench.record.code is None

    async def test_passthrough_does_not_show_our_certificate(self, make_bench: MakeBench) -> None:
        bench = make_bench(FakeStream(b"S", b""), mode=Mode.PASSTHROUGH)
        assert await bench.converse(SSL_REQUEST) == b"S"
        assert bench.dialer.dials == [False]


class TestGreeting:
    """Direct TLS: the upstream is asked for TLS on the client's behalf."""

    async def test_the_answer_is_not_passed_on(self, make_bench: MakeBench) -> None:
        upstream = FakeStream(b"S", b"server hello", b"")
        bench = make_bench(upstream, mode=Mode.PASSTHROUGH)
        assert await bench.converse(CLIENT_HELLO) == b"server hello"
        assert upstream.sent == SSL_REQUEST + CLIENT_HELLO
        assert bench.record.bytes_up == len(CLIENT_HELLO)

    async def test_what_comes_with_the_answer_is_not_lost(self, make_bench: MakeBench) -> None:
        bench = make_bench(FakeStream(b"Sserver hello", b""), mode=Mode.PASSTHROUGH)
        assert await bench.converse(CLIENT_HELLO) == b"server hello"

    @pytest.mark.parametrize(
        ("script", "code"),
        [
            ([b"N"], Code.UPSTREAM_PROTOCOL_ERROR),
            ([b"E\0\0\0"], Code.UPSTREAM_PROTOCOL_ERROR),
            ([b""], Code.UPSTREAM_CLOSED_EARLY),
            ([RESET], Code.UPSTREAM_CLOSED_EARLY),
            ([REJECTED], Code.CERTIFICATE_REJECTED),
        ],
    )
    async def test_another_answer_is_a_refusal_by_an_alert(
        self, script: list[bytes | Exception], code: Code, make_bench: MakeBench
    ) -> None:
        bench = make_bench(FakeStream(*script), mode=Mode.PASSTHROUGH)
        assert (await bench.converse(CLIENT_HELLO))[:1] == b"\x15"
        assert bench.record.code is code

    async def test_no_answer_is_a_refusal_after_a_while(
        self, make_bench: MakeBench, autojump_clock: MockClock
    ) -> None:
        bench = make_bench(FakeStream(), mode=Mode.PASSTHROUGH)
        assert (await bench.converse(CLIENT_HELLO))[:1] == b"\x15"
        assert bench.record.outcome == "refused"
        assert bench.record.reason is not None
        assert bench.record.code is Code.UPSTREAM_UNREACHABLE, "as any step that takes too long"
        assert "the request for TLS" in bench.record.reason
        assert "took longer than 3 s" in bench.record.reason
        assert bench.record.duration == pytest.approx(3, abs=1.5)


class TestGone:
    """Clients that went away before their first message was complete."""

    @pytest.mark.parametrize(
        ("sent", "outcome", "reason"),
        [
            (b"", "probe", None),
            (
                STARTUP[:5],
                "abandoned",
                "the client closed the connection before its first message was complete",
            ),
        ],
    )
    async def test_a_probe_is_told_from_a_client_that_gave_up(
        self, sent: bytes, outcome: str, reason: str | None, make_bench: MakeBench
    ) -> None:
        bench = make_bench()
        async with bench.connection() as far:
            await far.send_all(sent)
            await far.send_eof()
            assert await receive_all(far) == b""
        assert (bench.record.outcome, bench.record.reason) == (outcome, reason)
        assert bench.record.closed_by is ClosedBy.CLIENT
        assert bench.record.code is None
        assert bench.dialer.dials == []

    async def test_a_client_that_is_reset_in_the_queue_is_on_the_record(
        self, make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gone(_socket: object) -> str:
            raise OSError(107, "Transport endpoint is not connected")

        monkeypatch.setattr("dbproxy.downstream.connection.describe_peer", gone)
        bench = make_bench()
        async with bench.connection() as far:
            await far.send_eof()
        assert bench.record.peer == "gone"
