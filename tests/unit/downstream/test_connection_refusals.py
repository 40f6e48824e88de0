"""Connections that are told why not, and what their records say."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing
from connection_bench import (
    CANCEL_REQUEST,
    CLIENT_HELLO,
    DOWN,
    POSTGRES,
    REJECTED,
    RESET,
    SSL_REQUEST,
    STARTUP,
    UNTRUSTED,
    MakeBench,
    fields,
)
from identities import Cluster, write_destination
from loopback import TLSStream
from stream_ends import FakeStream, Pause, receive_all
from tls_peers import client_context
from trio.testing import MockClock

from dbproxy.downstream import (
    LocalAuthority,
    TerminatingAdmission,
)
from dbproxy.errors import Code, DBProxyError
from dbproxy.events import (
    ClosedBy,
)
from dbproxy.identity import IdentityStore
from dbproxy.layers import TruncatedError
from dbproxy.settings import Mode


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
            (Mode.TUNNEL, b"\x7fELF\2\1\1\0", Code.CLIENT_PROTOCOL_ERROR),
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

    async def test_a_client_of_another_protocol_is_told_in_its_own_words(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench()
        answer = await bench.converse(b"GET / HTTP/1.1\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"this port carries PostgreSQL, and the client began with an HTTP request" in answer
        assert bench.record.code is Code.CLIENT_PROTOCOL_ERROR

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
        said_no = answer.startswith(b"E") if sent else answer[3:5] == b"\0\xff"  # as MySQL does
        assert said_no
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
