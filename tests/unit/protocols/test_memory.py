"""Nobody makes us keep more than a first message, however long the one is that it announces."""

import struct
from collections.abc import Callable

import pytest
from mysql_packets import greeting_payload, response_payload
from tds_messages import ON, prelogin

from dbproxy.errors import ClientError, Code, UpstreamError
from dbproxy.protocols import (
    Carry,
    Conversation,
    MySQL,
    Prologue,
    StartTLS,
    choose_protocol,
    protocol_named,
)
from dbproxy.protocols.mysql import MySQLGreeting
from dbproxy.protocols.mysql_login import MySQLLogin
from dbproxy.protocols.sqlserver import SQLServerPrelogin
from dbproxy.protocols.wire.mysql_packets import Packet
from dbproxy.settings import Mode, Settings

KIB = 1024
PIECE = 4 * KIB
MOST = 128 * KIB + 2 * PIECE
"""Bytes after which everybody has decided; the largest message is a login of MySQL or TDS."""
PORTS = [
    *("postgres", "cockroachdb", "sqlserver", "mongodb", "redis", "cassandra", "clickhouse"),
    *("oracle", "spanner", "elasticsearch", "dynamodb", "snowflake", "clickhouse-http"),
]
ANNOUNCING = {
    "zeros": bytes(8),
    "ones": b"\xff" * 8,
    "a PostgreSQL packet as long as can be": struct.pack("!II", 10_000, 3 << 16),
    "a MySQL packet as long as can be": struct.pack("<I", 128 * KIB)[:3] + b"\1",
    "a MySQL packet of 16 MiB": b"\xff\xff\xff\1",
    "a login of SQL Server without end": struct.pack(">BBH4x", 0x10, 0, 0xFFFF),
    "a PRELOGIN without end": struct.pack(">BBH4x", 0x12, 0, PIECE),
    "many small packets of a PRELOGIN": struct.pack(">BBH4x", 0x12, 0, 8) * 512,
    "a MongoDB message as long as can be": struct.pack("<iiii", 65535, 1, 0, 2013),
    "a long command of Redis": b"*3\r\n$3\r\nSET\r\n$999999999\r\n",
    "a long request line": b"GET /",
    "a long frame of CQL": b"\x05\0\0\1\1\0\0\xff\xff",
}
announcing = pytest.mark.parametrize("start", ANNOUNCING.values(), ids=ANNOUNCING.keys())


def fill(prologue: Prologue, start: bytes) -> int:
    """Send until it decides; how much that took."""
    fed = 0
    piece = start
    while fed <= 2 * MOST:
        fed += len(piece)
        try:
            events = prologue.receive(piece)
        except ClientError as error:
            prologue.refusal(error)
            return fed
        if any(isinstance(event, Carry | StartTLS) for event in events):
            return fed
        piece = bytes(PIECE)
    raise AssertionError("it goes on for ever")


@announcing
@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("mode", Mode)
def test_a_prologue_decides_before_it_has_kept_much(port: str, mode: Mode, start: bytes) -> None:
    assert fill(protocol_named(port).prologue(mode), start) <= MOST
    assert fill(protocol_named(port).prologue(Mode.TERMINATE, inside_tls=True), start) <= MOST


@announcing
@pytest.mark.parametrize("mode", Mode)
def test_so_does_the_answer_to_mysqls_greeting(mode: Mode, start: bytes) -> None:
    greeting = MySQLGreeting(Packet(0, greeting_payload(ssl=mode is not Mode.TUNNEL)))
    assert fill(greeting.prologue(mode), start) <= MOST
    assert fill(greeting.prologue(Mode.TERMINATE, inside_tls=True), start) <= MOST
    assert fill(MySQL().prologue(mode), start) <= MOST


@announcing
def test_what_nobody_knows_is_carried_at_once(start: bytes) -> None:
    protocol = choose_protocol(Settings(protocol="unheard", alpn="unheard"), "postgres")
    for mode in Mode:
        assert fill(protocol.prologue(mode), start) == len(start)


def test_of_a_first_message_that_is_carried_only_what_a_refusal_refers_to_is_kept() -> None:
    prologue = protocol_named("redis").prologue(Mode.TUNNEL)
    ping = b"*1\r\n$4\r\nPING\r\n"
    prologue.receive(ping * 900)
    answers = prologue.refusal(ClientError(Code.CLIENT_STALLED, "x")).count(b"-ERR ")
    assert 4000 < answers * len(ping) < 4200


def test_a_client_that_waits_for_its_login_to_be_read_is_not_kept_either() -> None:
    prologue = protocol_named("sqlserver").prologue(Mode.TUNNEL)
    prologue.receive(prelogin(ON))
    assert fill(prologue, struct.pack(">BBH4x", 0x10, 0, 0xFFFF)) <= MOST


def flood(receive: Callable[[bytes], object], start: bytes) -> int:
    """Send until that is refused; how much it took."""
    fed, piece = 0, start
    while fed <= 2 * MOST:
        fed += len(piece)
        try:
            receive(piece)
        except (ClientError, UpstreamError):
            return fed
        piece = bytes(PIECE)
    raise AssertionError("it goes on for ever")


LONG_LOGIN = struct.pack("<I", 128 * KIB)[:3]


@pytest.mark.parametrize("start", [b"\xff\xff\xff\0", LONG_LOGIN + b"\0\x0a8.0\0"])
def test_an_upstreams_greeting_has_a_limit(start: bytes) -> None:
    assert flood(MySQL().greeting_reader().receive, start) <= MOST


def logging_in() -> Conversation:
    login = MySQLLogin(Packet(2, response_payload(ssl=True)))
    login.begin()
    return login


@pytest.mark.parametrize("side", ["client", "upstream"])
def test_a_login_keeps_one_packet_of_each_side_at_most(side: str) -> None:
    """Bytes that come out are not kept; those that do not are those of one packet."""
    login, kept = logging_in(), 0
    sent = (LONG_LOGIN + b"\3" + b"\1" * 128 * KIB) * 3
    for start in range(0, len(sent), PIECE):
        piece = sent[start : start + PIECE]
        said = login.from_client(piece) if side == "client" else login.from_upstream(piece)
        kept += len(piece) - len(said.to_upstream + said.to_client)
        assert 0 <= kept <= MOST


@pytest.mark.parametrize("side", ["client", "upstream"])
def test_a_login_with_a_packet_that_is_too_long_is_refused(side: str) -> None:
    login = logging_in()
    receive = login.from_client if side == "client" else login.from_upstream
    assert flood(receive, b"\xff\xff\xff\2") <= MOST


def test_an_answer_to_prelogin_has_a_limit() -> None:
    start = struct.pack(">BBH4x", 4, 0, 0xFFFF)
    assert flood(SQLServerPrelogin().from_upstream, start) <= MOST
