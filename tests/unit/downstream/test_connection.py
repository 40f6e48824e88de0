"""The life of one connection: exactly one record, whatever happens."""

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing
from identities import Cluster, write_destination
from loopback import TLSStream, wait_for_end
from stream_ends import Duplex, FakeStream, Pause, memory_pair, receive_all, socket_pair
from tls_peers import client_context
from trio.testing import MockClock

from dbproxy.downstream import (
    Admission,
    ConnectionHandler,
    LocalAuthority,
    RelayedAdmission,
    TerminatingAdmission,
)
from dbproxy.downstream.client import Client
from dbproxy.errors import Code, DBProxyError, UpstreamError
from dbproxy.events import (
    ClosedBy,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    ConnectionRecord,
    Event,
    UpstreamConnected,
)
from dbproxy.identity import Identity, IdentityStore
from dbproxy.layers import TLSError, TruncatedError
from dbproxy.protocols import Carry, protocol_named
from dbproxy.relay import LayeredStream
from dbproxy.settings import Mode
from dbproxy.upstream import ProxyAddress, UpstreamConnection, UpstreamDialer, UpstreamTrust

POSTGRES = protocol_named("postgres")
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
CANCEL_REQUEST = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\1\0\0\0\2"
STARTUP = b"\0\0\0\x0e\0\3\0\0user\0\0"
CLIENT_HELLO = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"
RESET = trio.BrokenResourceError("reset")
REJECTED = TLSError("tlsv1 alert unknown ca", alert="unknown ca", during_handshake=False)
DOWN = UpstreamError(Code.UPSTREAM_UNREACHABLE, "cannot connect")
UNTRUSTED = UpstreamError(Code.UPSTREAM_UNTRUSTED, "not trusted")


class FakeDialer(UpstreamDialer):
    """Gives one upstream after another, or fails."""

    def __init__(self, *upstreams: Duplex | Exception) -> None:
        super().__init__(
            ProxyAddress("teleport.example.com", 443),
            UpstreamTrust(),
            connect_timeout=10,
            handshake_timeout=10,
        )
        self._upstreams = list(upstreams)
        self.dials: list[bool] = []

    async def dial(
        self, alpn: Sequence[str], identity: Identity, *, authenticate: bool
    ) -> UpstreamConnection:
        await trio.lowlevel.checkpoint()
        assert list(alpn) == list(POSTGRES.alpn)
        self.dials.append(authenticate)
        upstream = self._upstreams.pop(0)
        if isinstance(upstream, Exception):
            raise upstream
        return UpstreamConnection(LayeredStream(upstream), alpn[0], "TLSv1.3", 0.5)


@dataclass
class Bench:
    """A handler, what it published, and the way to connect to it."""

    handler: ConnectionHandler
    dialer: FakeDialer
    events: list[Event] = field(default_factory=list)

    @property
    def record(self) -> ConnectionRecord:
        """The only record, which comes last."""
        assert isinstance(self.events[0], ConnectionOpened)
        (closed,) = (event for event in self.events if isinstance(event, ConnectionClosed))
        assert self.events[-1] is closed
        assert closed.record.id == self.events[0].id
        assert self.handler.open_connections == 0
        return closed.record

    @property
    def bugs(self) -> list[Exception]:
        """The bugs reported."""
        return [event.error for event in self.events if isinstance(event, ConnectionFailed)]

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[trio.SocketStream]:
        """A client's end; afterwards the handler must have ended and have closed its own."""
        near, far = socket_pair()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery, far:
                nursery.start_soon(self.handler.handle, near)
                yield far
        assert near.socket.fileno() == -1

    async def converse(self, sent: bytes = b"") -> bytes:
        """Send, and read to the end."""
        async with self.connection() as far:
            if sent:
                await far.send_all(sent)
            return await receive_all(far)


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(store: IdentityStore) -> MakeBench:
    """Makes a handler whose dialer gives the upstreams named."""

    def make(
        *upstreams: Duplex | Exception,
        mode: Mode = Mode.TUNNEL,
        admission: Admission | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Bench:
        dialer = FakeDialer(*upstreams)
        events: list[Event] = []
        handler = ConnectionHandler(
            mode=mode,
            protocol=POSTGRES,
            store=store,
            dialer=dialer,
            admission=admission or RelayedAdmission(POSTGRES, mode),
            publish=events.append,
            prologue_timeout=5,
            handshake_timeout=3,
            clock=clock,
        )
        return Bench(handler, dialer, events)

    return make


def fields(message: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse."""
    assert message[:1] == b"E"
    return {part[:1].decode(): part[1:].decode() for part in message[5:].split(b"\0") if part}


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
        assert bench.record.reason == str(error)

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
        assert bench.record.reason is not None

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
        assert bench.record.duration == pytest.approx(3, abs=1.5)


class TestRefused:
    """Connections that were told why not."""

    @pytest.mark.parametrize(
        ("error", "sqlstate", "closed_by"),
        [
            (DOWN, "08001", ClosedBy.UPSTREAM),
            (UNTRUSTED, "08001", ClosedBy.DBPROXY),
        ],
    )
    async def test_an_upstream_that_cannot_be_reached(
        self, error: DBProxyError, sqlstate: str, closed_by: ClosedBy, make_bench: MakeBench
    ) -> None:
        bench = make_bench(error)
        told = fields(await bench.converse(STARTUP))
        assert told["C"] == sqlstate
        assert error.message in told["M"]
        assert bench.record.outcome == "refused"
        assert bench.record.code is error.code
        assert bench.record.reason == error.message
        assert bench.record.closed_by is closed_by
        assert bench.record.generation == 1

    @pytest.mark.parametrize(
        ("script", "code"),
        [
            ([b""], Code.UPSTREAM_CLOSED_EARLY),
            ([RESET], Code.UPSTREAM_CLOSED_EARLY),
            ([TruncatedError("cut")], Code.UPSTREAM_CLOSED_EARLY),
            ([REJECTED], Code.CERTIFICATE_REJECTED),
        ],
    )
    async def test_an_upstream_that_ends_without_a_byte(
        self, script: list[bytes | Exception], code: Code, make_bench: MakeBench
    ) -> None:
        upstream = FakeStream(Pause.UNTIL_IDLE, *script)
        bench = make_bench(upstream)
        assert str(code) in fields(await bench.converse(STARTUP))["M"]
        assert bench.record.code is code
        assert upstream.closed

    async def test_an_upstream_that_takes_nothing_and_says_nothing(
        self, make_bench: MakeBench
    ) -> None:
        upstream = FakeStream(Pause.UNTIL_IDLE, REJECTED, send_error=RESET)
        bench = make_bench(upstream)
        assert "unknown_ca" in fields(await bench.converse(STARTUP))["M"]
        assert bench.record.code is Code.CERTIFICATE_REJECTED

    @pytest.mark.parametrize(
        ("mode", "sent", "code"),
        [
            (Mode.PASSTHROUGH, STARTUP, Code.CLIENT_NOT_TLS),
            (Mode.TUNNEL, b"GET / HTTP/1.1\r\n", Code.CLIENT_PROTOCOL_ERROR),
            (Mode.TUNNEL, SSL_REQUEST * 2, Code.CLIENT_PROTOCOL_ERROR),
        ],
    )
    async def test_a_client_that_cannot_be_served_costs_nothing_upstream(
        self, mode: Mode, sent: bytes, code: Code, make_bench: MakeBench
    ) -> None:
        bench = make_bench(mode=mode)
        answer = await bench.converse(sent)
        assert fields(answer[answer.index(b"E") :])["M"].endswith(f"[{code}]")
        assert bench.dialer.dials == []
        assert bench.record.code is code
        assert bench.record.closed_by is ClosedBy.DBPROXY
        assert bench.record.generation == 0

    async def test_a_client_that_speaks_tls_to_a_tunnel_gets_an_alert(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench()
        assert (await bench.converse(CLIENT_HELLO))[:1] == b"\x15"
        assert bench.record.code is Code.CLIENT_TLS_ON_TUNNEL

    async def test_a_certificate_that_has_expired_is_noticed_before_dialling(
        self, make_bench: MakeBench
    ) -> None:
        later = datetime.now(UTC) + timedelta(hours=2)
        bench = make_bench(clock=lambda: later)
        assert fields(await bench.converse(STARTUP))["M"].endswith("[certificate-expired]")
        assert bench.dialer.dials == []
        assert bench.record.code is Code.CERTIFICATE_EXPIRED

    @pytest.mark.parametrize("sent", [b"", b"\0\0\0"])
    async def test_a_client_that_stalls(
        self, sent: bytes, make_bench: MakeBench, autojump_clock: MockClock
    ) -> None:
        bench = make_bench()
        answer = await bench.converse(sent)
        assert answer[:1] == (b"E" if sent else b"")
        assert bench.record.code is Code.CLIENT_STALLED
        assert bench.record.duration == pytest.approx(5, abs=1.5)

    async def test_a_cancel_request_that_cannot_be_carried_is_not_answered(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench(DOWN)
        assert await bench.converse(CANCEL_REQUEST) == b""
        assert bench.record.code is Code.UPSTREAM_UNREACHABLE

    async def test_a_renewal_is_used_by_the_next_connection(
        self, make_bench: MakeBench, destination: Path, cluster: Cluster
    ) -> None:
        bench = make_bench(FakeStream(b"x", b""))
        write_destination(destination, cluster)
        await bench.converse(STARTUP)
        assert bench.record.generation == 2

    async def test_in_terminate_the_refusal_is_read_inside_tls(
        self, make_bench: MakeBench, store: IdentityStore, tmp_path: Path
    ) -> None:
        server_certificate = LocalAuthority.open(tmp_path / "state").issue_server_certificate()
        admission = TerminatingAdmission(POSTGRES, server_certificate, store)
        bench = make_bench(mode=Mode.TERMINATE, admission=admission)
        async with bench.connection() as far:
            await far.send_all(SSL_REQUEST)
            assert await far.receive_some(1) == b"S"
            tls = TLSStream(far, client_context(), server_side=False)
            await tls.do_handshake()
            await tls.send_all(STARTUP)
            told = fields(await receive_all(tls))
        assert told["M"].endswith("[client-certificate-missing]")
        assert told["C"] == "28000"
        assert bench.dialer.dials == []

    async def test_a_client_that_breaks_its_own_tls_is_no_bug(
        self, make_bench: MakeBench, store: IdentityStore, tmp_path: Path
    ) -> None:
        server_certificate = LocalAuthority.open(tmp_path / "state").issue_server_certificate()
        admission = TerminatingAdmission(POSTGRES, server_certificate, store)
        bench = make_bench(mode=Mode.TERMINATE, admission=admission)
        async with bench.connection() as far:
            await far.send_all(SSL_REQUEST)
            assert await far.receive_some(1) == b"S"
            tls = TLSStream(far, client_context(), server_side=False)
            await tls.do_handshake()
            await trio.testing.wait_all_tasks_blocked()
            await far.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
            with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
                await tls.receive_some()
        assert bench.record.outcome == "abandoned"
        assert bench.bugs == []


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


class Buggy:
    """An admission with a bug."""

    def __init__(self, bug: BaseException) -> None:
        self.bug = bug

    async def admit(self, _client: Client) -> Carry:
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
