"""A refusal of Teleport's: what the client gets, and what the record says."""

import struct
from functools import partial

import pytest
from connection_bench import CLIENT_HELLO, SSL_REQUEST, STARTUP, InsideTLS, MakeBench, fields
from mysql_packets import greeting_payload, ok, packet, read_packet, response_payload, tls_request
from stream_ends import FakeStream, Pause, receive_all
from teleports_refusals import DENIED, OTHER, UNKNOWN_SERVICE

from dbproxy.errors import Code
from dbproxy.events import ClosedBy
from dbproxy.protocols import MySQL
from dbproxy.settings import Mode

SECRET = "a password that the client has sent"
GREETING = packet(0, greeting_payload())
RESPONSE = packet(1, response_payload())
LOGIN = packet(2, response_payload(ssl=True))


def error_response(text: str) -> bytes:
    body = b"M" + text.encode() + b"\0\0"
    return b"E" + struct.pack("!I", len(body) + 4) + body


def err(text: str, number: int = 2) -> bytes:
    return packet(number, b"\xff" + struct.pack("<H", 1105) + b"#HY000" + text.encode())


class TestPostgres:
    """What a PostgreSQL client is told, and what is left alone."""

    async def test_a_refusal_is_completed_and_recorded(self, make_bench: MakeBench) -> None:
        bench = make_bench(FakeStream(error_response(DENIED), Pause.UNTIL_IDLE, b""))
        told = await bench.converse(STARTUP)
        assert fields(told) == {
            "S": "FATAL",
            "V": "FATAL",
            "C": "28000",
            "M": DENIED,
            "H": "Check the database user and name; if they are right, ask for a Teleport role that"
            " allows them. [access-denied]",
        }
        record = bench.record
        assert (record.outcome, record.code) == ("refused", Code.ACCESS_DENIED)
        assert record.closed_by is ClosedBy.UPSTREAM
        assert record.bytes_down == len(told)
        assert (record.database_user, record.attempts) == ("alice", 1)

    async def test_an_unknown_service_has_a_sqlstate_of_its_own(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench(FakeStream(error_response(UNKNOWN_SERVICE), b""))
        told = fields(await bench.converse(STARTUP))
        assert (told["C"], told["M"]) == ("3D000", UNKNOWN_SERVICE)
        assert bench.record.code is Code.SERVICE_NOT_FOUND

    async def test_it_may_come_byte_by_byte(self, make_bench: MakeBench) -> None:
        pieces = [bytes([byte]) for byte in error_response(DENIED)]
        bench = make_bench(FakeStream(*pieces, b""))
        assert fields(await bench.converse(STARTUP))["C"] == "28000"

    async def test_one_that_is_cut_arrives_as_it_came_and_is_no_refusal(
        self, make_bench: MakeBench
    ) -> None:
        cut = error_response(DENIED)[:20]
        bench = make_bench(FakeStream(cut, Pause.UNTIL_IDLE, b""))
        assert await bench.converse(STARTUP) == cut
        assert (bench.record.outcome, bench.record.code) == ("relayed", None)
        assert bench.dialer.dials == [True], "an upstream that has spoken is the last one"

    async def test_without_rewriting_the_bytes_stay_and_the_record_knows(
        self, make_bench: MakeBench
    ) -> None:
        bench = make_bench(FakeStream(error_response(DENIED), b""), rewrite=False)
        assert await bench.converse(STARTUP) == error_response(DENIED)
        assert (bench.record.outcome, bench.record.code) == ("refused", Code.ACCESS_DENIED)

    async def test_the_record_has_nothing_of_the_message(self, make_bench: MakeBench) -> None:
        for text in (f"{OTHER} {SECRET}", f"{DENIED} {SECRET}"):
            bench = make_bench(FakeStream(error_response(text), b""))
            assert SECRET in fields(await bench.converse(STARTUP))["M"]
            assert SECRET not in repr(bench.events)
            assert bench.record.reason is not None
            assert bench.record.reason.startswith("Teleport refused the session")

    @pytest.mark.parametrize("sent", [SSL_REQUEST, SSL_REQUEST + CLIENT_HELLO])
    async def test_in_passthrough_nothing_is_read(self, sent: bytes, make_bench: MakeBench) -> None:
        bench = make_bench(FakeStream(error_response(DENIED), b""), mode=Mode.PASSTHROUGH)
        assert await bench.converse(sent) == error_response(DENIED)
        assert bench.record.outcome == "relayed"

    async def test_an_attempt_that_failed_leaves_nothing_for_the_next(
        self, make_bench: MakeBench
    ) -> None:
        upstreams = FakeStream(Pause.UNTIL_IDLE, b""), FakeStream(b"R\0\0\0\x08\0\0\0\0", b"")
        bench = make_bench(*upstreams, connect_grace=5)
        assert await bench.converse(STARTUP) == b"R\0\0\0\x08\0\0\0\0"
        assert (bench.record.outcome, bench.record.code) == ("relayed", None)
        assert bench.dialer.dials == [True, True]


class TestMySQL:
    """The same for MySQL, with and without the login's numbers being put right."""

    @pytest.fixture
    def mysql_bench(self, make_bench: MakeBench) -> MakeBench:
        return partial(make_bench, protocol=MySQL())

    @pytest.mark.parametrize("size", [1, 4096])
    async def test_a_refusal_is_told_apart_in_tunnel_mode(
        self, size: int, mysql_bench: MakeBench
    ) -> None:
        sent = err(DENIED)
        pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
        bench = mysql_bench(FakeStream(GREETING, Pause.UNTIL_IDLE, *pieces, b""))
        async with bench.connection() as far:
            assert await read_packet(far) == GREETING
            await far.send_all(RESPONSE)
            told = await receive_all(far)
        assert told[3:13] == b"\2\xff" + struct.pack("<H", 1045) + b"#28000"
        assert told[13:].startswith(DENIED.encode())
        assert told.endswith(b" [access-denied]")
        assert (bench.record.outcome, bench.record.code) == ("refused", Code.ACCESS_DENIED)
        assert bench.record.closed_by is ClosedBy.UPSTREAM

    async def test_a_refusal_is_told_apart_in_terminate_mode_and_numbered_for_the_client(
        self, mysql_bench: MakeBench
    ) -> None:
        upstream = FakeStream(GREETING, Pause.UNTIL_IDLE, err(UNKNOWN_SERVICE), b"")
        bench = mysql_bench(upstream, mode=Mode.TERMINATE, admission=InsideTLS())
        async with bench.connection() as far:
            await read_packet(far)
            await far.send_all(LOGIN)
            told = await receive_all(far)
        assert told[3:13] == b"\3\xff" + struct.pack("<H", 1049) + b"#42000"
        assert told[13:].startswith(UNKNOWN_SERVICE.encode())
        assert bench.record.code is Code.SERVICE_NOT_FOUND

    async def test_without_rewriting_only_the_number_of_the_packet_changes(
        self, mysql_bench: MakeBench
    ) -> None:
        upstream = FakeStream(GREETING, Pause.UNTIL_IDLE, err(DENIED), b"")
        bench = mysql_bench(upstream, mode=Mode.TERMINATE, admission=InsideTLS(), rewrite=False)
        async with bench.connection() as far:
            await read_packet(far)
            await far.send_all(LOGIN)
            assert await receive_all(far) == err(DENIED, 3)
        assert bench.record.code is Code.ACCESS_DENIED

    async def test_errors_of_commands_are_not_looked_at(self, mysql_bench: MakeBench) -> None:
        upstream = FakeStream(GREETING, Pause.UNTIL_IDLE, ok(2) + err(DENIED, 1), b"")
        bench = mysql_bench(upstream)
        async with bench.connection() as far:
            assert await read_packet(far) == GREETING
            await far.send_all(RESPONSE)
            assert await receive_all(far) == ok(2) + err(DENIED, 1)
        assert (bench.record.outcome, bench.record.code) == ("relayed", None)

    async def test_in_passthrough_nothing_is_read(self, mysql_bench: MakeBench) -> None:
        greeting = packet(0, greeting_payload(ssl=True))
        upstream = FakeStream(greeting, Pause.UNTIL_IDLE, err(DENIED), b"")
        bench = mysql_bench(upstream, mode=Mode.PASSTHROUGH)
        async with bench.connection() as far:
            assert await read_packet(far) == greeting
            await far.send_all(tls_request())
            assert await receive_all(far) == err(DENIED)
        assert bench.record.outcome == "relayed"
