"""The prologue of PostgreSQL: both tables of the module, split at every byte."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from dbproxy.errors import ClientError, Code
from dbproxy.protocols import Carry, PrologueEvent, Reply, StartTLS, UpstreamGreeting
from dbproxy.protocols.postgres import PostgresPrologue
from dbproxy.settings import Mode

PASSTHROUGH, TERMINATE, TUNNEL = Mode.PASSTHROUGH, Mode.TERMINATE, Mode.TUNNEL


def packet(code: int, body: bytes = b"") -> bytes:
    return struct.pack("!II", 8 + len(body), code) + body


SSL_REQUEST = packet(80877103)
GSSENC_REQUEST = packet(80877104)
CANCEL_REQUEST = packet(80877102, struct.pack("!II", 4711, 815))
LONG_CANCEL_REQUEST = packet(80877102, struct.pack("!I", 4711) + bytes(256))
STARTUP = packet(3 << 16, b"user\0alice\0database\0example\0\0")
STARTUP_3_2 = packet(3 << 16 | 2, b"user\0alice\0\0")
CLIENT_HELLO = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"


@dataclass(frozen=True)
class Row:
    """What a client sends, and what becomes of it."""

    name: str
    mode: Mode
    sent: bytes
    events: Sequence[PrologueEvent]
    inside_tls: bool = False


CANCEL = Carry(CANCEL_REQUEST, authenticate=True, reply_expected=False)
LONG_CANCEL = Carry(LONG_CANCEL_REQUEST, authenticate=True, reply_expected=False)
NO = Reply(b"N")
CARRIED = Carry(STARTUP, authenticate=True, user="alice", database="example")
CARRIED_3_2 = Carry(STARTUP_3_2, authenticate=True, user="alice", database="alice")

SERVED = [
    Row("ssl request", PASSTHROUGH, SSL_REQUEST, [Carry(SSL_REQUEST, authenticate=False)]),
    Row("ssl request", TERMINATE, SSL_REQUEST, [Reply(b"S"), StartTLS()]),
    Row("ssl request", TUNNEL, SSL_REQUEST, [NO]),
    *(Row("gssenc request", mode, GSSENC_REQUEST, [NO]) for mode in Mode),
    *(Row("cancel request", mode, CANCEL_REQUEST, [CANCEL]) for mode in Mode),
    *(Row("cancel request of 3.2", mode, LONG_CANCEL_REQUEST, [LONG_CANCEL]) for mode in Mode),
    Row("startup", TUNNEL, STARTUP, [CARRIED]),
    Row("startup 3.2", TUNNEL, STARTUP_3_2, [CARRIED_3_2]),
    Row("startup", TERMINATE, STARTUP, [CARRIED], inside_tls=True),
    Row("cancel request", TERMINATE, CANCEL_REQUEST, [CANCEL], inside_tls=True),
    Row(
        "gssenc, ssl and startup",
        TUNNEL,
        GSSENC_REQUEST + SSL_REQUEST + STARTUP,
        [NO, NO, CARRIED],
    ),
    Row(
        "ssl, gssenc and cancel",
        TUNNEL,
        SSL_REQUEST + GSSENC_REQUEST + CANCEL_REQUEST,
        [NO, NO, CANCEL],
    ),
    Row(
        "gssenc and ssl",
        PASSTHROUGH,
        GSSENC_REQUEST + SSL_REQUEST,
        [NO, Carry(SSL_REQUEST, authenticate=False)],
    ),
    Row("gssenc and ssl", TERMINATE, GSSENC_REQUEST + SSL_REQUEST, [NO, Reply(b"S"), StartTLS()]),
]

REFUSED = [
    ("startup", PASSTHROUGH, STARTUP, False, Code.CLIENT_NOT_TLS),
    ("startup", TERMINATE, STARTUP, False, Code.CLIENT_NOT_TLS),
    ("startup after gssenc", TERMINATE, GSSENC_REQUEST + STARTUP, False, Code.CLIENT_NOT_TLS),
    ("hello", TUNNEL, CLIENT_HELLO, False, Code.CLIENT_TLS_ON_TUNNEL),
    ("hello after N", TUNNEL, SSL_REQUEST + CLIENT_HELLO, False, Code.CLIENT_TLS_ON_TUNNEL),
    ("hello in TLS", TERMINATE, CLIENT_HELLO, True, Code.CLIENT_PROTOCOL_ERROR),
    ("two ssl", TUNNEL, SSL_REQUEST * 2, False, Code.CLIENT_PROTOCOL_ERROR),
    ("two gssenc", PASSTHROUGH, GSSENC_REQUEST * 2, False, Code.CLIENT_PROTOCOL_ERROR),
    ("ssl in TLS", TERMINATE, SSL_REQUEST, True, Code.CLIENT_PROTOCOL_ERROR),
    ("gssenc in TLS", TERMINATE, GSSENC_REQUEST, True, Code.CLIENT_PROTOCOL_ERROR),
    ("protocol 2", TUNNEL, packet(2 << 16, bytes(30)), False, Code.CLIENT_PROTOCOL_ERROR),
    ("protocol 4", TUNNEL, packet(4 << 16), False, Code.CLIENT_PROTOCOL_ERROR),
    ("unknown request", TUNNEL, packet(1234 << 16 | 1), False, Code.CLIENT_PROTOCOL_ERROR),
    ("long ssl", TUNNEL, packet(80877103, b"x"), False, Code.CLIENT_PROTOCOL_ERROR),
    ("short cancel", TUNNEL, packet(80877102, b"1234567"), False, Code.CLIENT_PROTOCOL_ERROR),
    ("long cancel", TUNNEL, packet(80877102, bytes(261)), False, Code.CLIENT_PROTOCOL_ERROR),
    ("length 0", TUNNEL, bytes(8), False, Code.CLIENT_PROTOCOL_ERROR),
    ("length 7", TUNNEL, b"\0\0\0\7\0\3\0\0", False, Code.CLIENT_PROTOCOL_ERROR),
    ("too long", TUNNEL, b"\0\0\x27\x11\0\3\0\0", False, Code.CLIENT_PROTOCOL_ERROR),
    ("gigantic", TUNNEL, b"\xff\xff\xff\xff\0\3\0\0", False, Code.CLIENT_PROTOCOL_ERROR),
    ("http", PASSTHROUGH, b"GET / HTTP/1.1\r\n", False, Code.CLIENT_PROTOCOL_ERROR),
    ("ssh", TERMINATE, b"SSH-2.0-OpenSSH\r\n", False, Code.CLIENT_PROTOCOL_ERROR),
    ("alert", TUNNEL, b"\x15\x03\x01\0\2\2\x28", False, Code.CLIENT_PROTOCOL_ERROR),
    ("almost a hello", TUNNEL, b"\x16\x02\x01\0\2", False, Code.CLIENT_PROTOCOL_ERROR),
]


@pytest.mark.parametrize("row", SERVED, ids=lambda row: f"{row.name}, {row.mode}")
def test_each_packet_means_what_the_table_says_however_it_is_cut(row: Row) -> None:
    for cut in range(len(row.sent) + 1):
        prologue = PostgresPrologue(row.mode, inside_tls=row.inside_tls)
        events = [*prologue.receive(row.sent[:cut]), *prologue.receive(row.sent[cut:])]
        assert events == row.events


@pytest.mark.parametrize("row", SERVED, ids=lambda row: f"{row.name}, {row.mode}")
def test_each_packet_may_come_byte_by_byte(row: Row) -> None:
    prologue = PostgresPrologue(row.mode, inside_tls=row.inside_tls)
    events = [event for byte in row.sent for event in prologue.receive(bytes([byte]))]
    assert events == row.events


@pytest.mark.parametrize(
    ("mode", "sent", "inside_tls", "code"),
    [row[1:] for row in REFUSED],
    ids=[f"{row[0]}, {row[1]}" for row in REFUSED],
)
def test_what_cannot_be_served_is_refused_however_it_is_cut(
    mode: Mode, sent: bytes, inside_tls: bool, code: Code
) -> None:
    for cut in range(len(sent) + 1):
        prologue = PostgresPrologue(mode, inside_tls=inside_tls)
        with pytest.raises(ClientError) as caught:
            receive_pieces(prologue, sent[:cut], sent[cut:])
        assert caught.value.code is code


def receive_pieces(prologue: PostgresPrologue, *pieces: bytes) -> list[PrologueEvent]:
    return [event for piece in pieces for event in prologue.receive(piece)]


@pytest.mark.parametrize(
    ("mode", "sent", "words"),
    [
        (PASSTHROUGH, b"GET / HTTP/1.1\r\n", "an HTTP request"),
        (PASSTHROUGH, b"SSH-2.0-OpenSSH\r\n", "an SSH greeting"),
        (
            TUNNEL,
            b"\x4a\0\0\0\x0a8.0.36\0\x01\0\0\0",
            "bytes of another protocol (0x4a0000000a382e30)",
        ),
        (TUNNEL, packet(2 << 16 | 7), "protocol 2.7"),
        (TUNNEL, SSL_REQUEST * 2, "SSLRequest where it is not allowed (a second time)"),
        (PASSTHROUGH, GSSENC_REQUEST * 2, "GSSENCRequest where it is not allowed (a second time)"),
    ],
)
def test_a_refusal_says_what_the_client_sent(mode: Mode, sent: bytes, words: str) -> None:
    with pytest.raises(ClientError) as caught:
        PostgresPrologue(mode).receive(sent)
    assert words in caught.value.message


class TestClientHello:
    """Direct TLS, as PostgreSQL 17 has it: the record is cut where the read was cut."""

    def test_in_passthrough_teleport_is_asked_for_tls_on_the_clients_behalf(self) -> None:
        (event,) = PostgresPrologue(PASSTHROUGH).receive(CLIENT_HELLO)
        greeting = UpstreamGreeting(SSL_REQUEST, b"S")
        assert event == Carry(CLIENT_HELLO, authenticate=False, greeting=greeting)

    def test_in_terminate_tls_ends_here(self) -> None:
        (event,) = PostgresPrologue(TERMINATE).receive(CLIENT_HELLO)
        assert event == StartTLS(CLIENT_HELLO)

    @pytest.mark.parametrize("mode", [PASSTHROUGH, TERMINATE])
    @pytest.mark.parametrize("size", range(2, len(CLIENT_HELLO)))
    def test_two_bytes_of_it_are_enough_to_know_it(self, mode: Mode, size: int) -> None:
        prologue = PostgresPrologue(mode)
        assert prologue.receive(CLIENT_HELLO[:1]) == []
        (event,) = prologue.receive(CLIENT_HELLO[1:size])
        first = event.received if isinstance(event, StartTLS) else None
        assert CLIENT_HELLO[:size] == (event.first_flight if isinstance(event, Carry) else first)


class TestFirstFlight:
    """What came with the first packets is neither lost nor let through unchecked."""

    def test_passthrough_carries_what_follows_an_ssl_request(self) -> None:
        (event,) = PostgresPrologue(PASSTHROUGH).receive(SSL_REQUEST + CLIENT_HELLO)
        assert event == Carry(SSL_REQUEST + CLIENT_HELLO, authenticate=False)

    def test_tunnel_carries_what_follows_the_startup_message(self) -> None:
        (event,) = PostgresPrologue(TUNNEL).receive(STARTUP + b"p\0\0\0\x05x")
        assert event == replace(CARRIED, first_flight=STARTUP + b"p\0\0\0\x05x")

    @pytest.mark.parametrize("smuggled", [b"x", CLIENT_HELLO, STARTUP])
    def test_terminate_takes_no_unencrypted_bytes_behind_an_ssl_request(
        self, smuggled: bytes
    ) -> None:
        with pytest.raises(ClientError, match="unencrypted bytes behind its SSLRequest"):
            PostgresPrologue(TERMINATE).receive(SSL_REQUEST + smuggled)

    @pytest.mark.parametrize("mode", Mode)
    def test_bytes_behind_a_cancel_request_are_not_carried(self, mode: Mode) -> None:
        assert PostgresPrologue(mode).receive(CANCEL_REQUEST + b"junk") == [CANCEL]


@pytest.mark.parametrize("mode", Mode)
def test_a_client_has_started_with_its_first_byte(mode: Mode) -> None:
    prologue = PostgresPrologue(mode)
    assert not prologue.started
    prologue.receive(b"")
    assert not prologue.started
    prologue.receive(b"\0")
    assert prologue.started


def test_the_largest_startup_message_that_a_server_takes_is_carried() -> None:
    startup = packet(3 << 16, bytes(10_000 - 8))
    prologue = PostgresPrologue(TUNNEL)
    assert prologue.receive(startup[:-1]) == []
    assert prologue.receive(startup[-1:]) == [Carry(startup, authenticate=True)]


def test_a_client_that_leaves_when_tls_is_declined_disliked_that() -> None:
    prologue = PostgresPrologue(TUNNEL)
    partings = [prologue.parting]
    for request in (GSSENC_REQUEST, SSL_REQUEST):
        prologue.receive(request)
        partings.append(prologue.parting)
    assert [parting and parting.code for parting in partings] == [
        None,
        None,
        Code.CLIENT_TLS_ON_TUNNEL,
    ]


@pytest.mark.parametrize(
    ("parameters", "user", "database"),
    [
        (b"user\0alice\0\0", "alice", "alice"),
        (b"database\0example\0user\0alice\0application_name\0user\0\0", "alice", "example"),
        (b"user\0alice\0database\0\0\0", "alice", "alice"),
        (b"user\0\xff\0\0", "\ufffd", "\ufffd"),
        (b"\0", None, None),
        (b"user", None, None),
    ],
)
def test_the_record_gets_the_user_and_database_that_the_client_asks_for(
    parameters: bytes, user: str | None, database: str | None
) -> None:
    startup = packet(3 << 16, parameters)
    (event,) = PostgresPrologue(TUNNEL).receive(startup)
    assert event == Carry(startup, authenticate=True, user=user, database=database)
