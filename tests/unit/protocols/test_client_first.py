"""The table of `client_first`, for each of its protocols, split at every byte."""

from collections.abc import Iterator

import beginnings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.errors import ClientError, Code, UpstreamError
from dbproxy.protocols import Carry, Prologue, PrologueEvent, StartTLS, protocol_named
from dbproxy.settings import Mode

PASSTHROUGH, TERMINATE, TUNNEL = Mode.PASSTHROUGH, Mode.TERMINATE, Mode.TUNNEL
HELLO = beginnings.CLIENT_HELLO
ALERT = b"\x15\x03\x03\x00\x02\x02\x28"
NAMES = sorted(beginnings.OF_PROTOCOL)
FIRST = [(name, sent) for name in NAMES for sent in beginnings.OF_PROTOCOL[name]]
DOWN = UpstreamError(Code.UPSTREAM_UNREACHABLE, "no connection to teleport.example.com:443")

OWN = beginnings.OF_PROTOCOL

every_protocol = pytest.mark.parametrize("name", NAMES)
every_first = pytest.mark.parametrize(("name", "sent"), FIRST, ids=lambda value: repr(value)[:30])


def open_prologue(name: str, mode: Mode, *, inside_tls: bool = False) -> Prologue:
    return protocol_named(name).prologue(mode, inside_tls=inside_tls)


def cuts(sent: bytes) -> Iterator[tuple[bytes, bytes]]:
    return ((sent[:cut], sent[cut:]) for cut in range(len(sent) + 1))


def carried(event: PrologueEvent) -> bytes:
    assert isinstance(event, Carry)
    return event.first_flight


@every_first
@pytest.mark.parametrize(("mode", "inside_tls"), [(TUNNEL, False), (TERMINATE, True)])
def test_the_protocol_is_carried_with_our_certificate(
    name: str, sent: bytes, mode: Mode, inside_tls: bool
) -> None:
    for head, tail in cuts(sent):
        prologue = open_prologue(name, mode, inside_tls=inside_tls)
        early = prologue.receive(head)
        (event,) = early or prologue.receive(tail)
        assert event == Carry(head if early else sent, authenticate=True)
        assert sent.startswith(carried(event))


@every_first
def test_it_takes_only_a_few_bytes_to_begin(name: str, sent: bytes) -> None:
    prologue = open_prologue(name, TUNNEL)
    sizes = [size for size in range(len(sent)) if prologue.receive(sent[size : size + 1])]
    assert len(sizes) == 1
    assert sizes[0] < 24


@every_first
@pytest.mark.parametrize("mode", [PASSTHROUGH, TERMINATE])
def test_without_tls_it_is_refused_in_its_own_words(name: str, sent: bytes, mode: Mode) -> None:
    for pieces in cuts(sent):
        prologue = open_prologue(name, mode)
        with pytest.raises(ClientError) as caught:
            _ = [prologue.receive(piece) for piece in pieces]
        assert caught.value.code is Code.CLIENT_NOT_TLS
        refusal = prologue.refusal(caught.value)
        assert (b"client-not-tls" in refusal) == (name != "spanner")  # gRPC asks later


@every_protocol
class TestClientHello:
    def test_in_passthrough_it_is_carried_as_it_is(self, name: str) -> None:
        for size in range(2, len(HELLO) + 1):
            prologue = open_prologue(name, PASSTHROUGH)
            assert prologue.receive(HELLO[:1]) == []
            assert prologue.receive(HELLO[1:size]) == [Carry(HELLO[:size], authenticate=False)]

    def test_in_passthrough_a_refusal_is_an_alert(self, name: str) -> None:
        prologue = open_prologue(name, PASSTHROUGH)
        prologue.receive(HELLO)
        assert prologue.refusal(DOWN) == ALERT

    def test_in_terminate_tls_ends_here(self, name: str) -> None:
        prologue = open_prologue(name, TERMINATE)
        assert [*prologue.receive(HELLO[:1]), *prologue.receive(HELLO[1:])] == [StartTLS(HELLO)]

    def test_in_tunnel_it_is_told_that_there_is_no_tls(self, name: str) -> None:
        prologue = open_prologue(name, TUNNEL)
        with pytest.raises(ClientError) as caught:
            prologue.receive(HELLO)
        assert caught.value.code is Code.CLIENT_TLS_ON_TUNNEL
        assert prologue.refusal(caught.value) == ALERT

    def test_inside_tls_it_is_refused(self, name: str) -> None:
        prologue = open_prologue(name, TERMINATE, inside_tls=True)
        with pytest.raises(ClientError, match="TLS inside TLS"):
            prologue.receive(HELLO)


FOREIGN = [
    (beginnings.HTTP, "an HTTP request", b"HTTP/1.1 400 "),
    (beginnings.HTTP2, "an HTTP/2 preface", b"\0\0\0\4\0"),
    (beginnings.POSTGRES, "a PostgreSQL packet", b"E\0"),
    (beginnings.POSTGRES_SSL, "a PostgreSQL packet", b"N"),
    (beginnings.REDIS, "a Redis command", b"-ERR "),
    (beginnings.MONGODB, "a MongoDB message", b""),
    (beginnings.CASSANDRA, "a CQL frame", b"\x84"),
    (beginnings.CLICKHOUSE, "a ClickHouse Hello", b"\2\x65\0\0\0"),
    (beginnings.TDS, "a SQL Server PRELOGIN packet", b""),
    (beginnings.SSH, "an SSH greeting", b"dbproxy: "),
]


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(
    ("name", "sent", "words", "answer"),
    [(name, *row) for name in NAMES for row in FOREIGN if row[0] not in OWN[name]],
    ids=lambda value: repr(value)[:24],
)
def test_another_protocol_is_told_in_its_own_words_what_this_port_carries(
    name: str, mode: Mode, sent: bytes, words: str, answer: bytes
) -> None:
    protocol = protocol_named(name)
    prologue = protocol.prologue(mode)
    with pytest.raises(ClientError) as caught:
        prologue.receive(sent)
    assert caught.value.code is Code.CLIENT_PROTOCOL_ERROR
    expected = f"this port carries {protocol.readable_name}, and the client began with {words}"
    assert caught.value.message == expected
    assert prologue.refusal(caught.value).startswith(answer)


def test_a_key_that_begins_like_a_url_may_be_asked_for_at_a_terminal() -> None:
    for sent in (b"GET hello\r\n", b"GET http\r\n"):
        (event,) = open_prologue("redis", TUNNEL).receive(sent)
        assert event == Carry(sent, authenticate=True)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"redis"}))
@pytest.mark.parametrize("sent", [b"\x7fELF\2\1\1\0", bytes(24), b"hello, world\r\n"])
def test_what_nobody_knows_is_refused(name: str, sent: bytes) -> None:
    with pytest.raises(ClientError) as caught:
        open_prologue(name, TUNNEL).receive(sent)
    assert caught.value.code is Code.CLIENT_PROTOCOL_ERROR
    assert f"bytes of another protocol (0x{sent[:8].hex()})" in caught.value.message


@every_protocol
class TestSilence:
    """Only a MySQL client waits to be greeted."""

    def test_who_said_nothing_until_the_end_is_told_as_mysql_does(self, name: str) -> None:
        prologue = open_prologue(name, TUNNEL)
        answer = prologue.refusal(ClientError(Code.CLIENT_STALLED, "10 s are over"))
        assert int.from_bytes(answer[:3], "little") == len(answer) - 4
        assert answer[3:5] == b"\0\xff"
        text = answer[7:].decode()
        readable_name = protocol_named(name).readable_name
        assert f"this port carries {readable_name}, and the client said nothing" in text

    def test_who_said_nothing_yet_is_told_nothing(self, name: str) -> None:
        assert open_prologue(name, TUNNEL).refusal(DOWN) == b""
        assert open_prologue(name, TUNNEL).further(DOWN) is None

    def test_after_tls_there_is_no_greeting(self, name: str) -> None:
        prologue = open_prologue(name, TERMINATE, inside_tls=True)
        assert prologue.refusal(ClientError(Code.CLIENT_STALLED, "10 s are over")) == b""

    def test_a_client_has_started_with_its_first_byte(self, name: str) -> None:
        prologue = open_prologue(name, TUNNEL)
        assert prologue.receive(b"") == []
        assert not prologue.started
        prologue.receive(beginnings.OF_PROTOCOL[name][0][:1])
        assert prologue.started


@pytest.mark.parametrize("mode", Mode)
@given(name=st.sampled_from(NAMES), pieces=st.lists(st.binary(max_size=12), max_size=12))
def test_whatever_is_sent_it_is_carried_refused_or_waited_for(
    mode: Mode, name: str, pieces: list[bytes]
) -> None:
    prologue = open_prologue(name, mode)
    said = b""
    for piece in pieces:
        said += piece
        try:
            events = prologue.receive(piece)
        except ClientError as error:
            prologue.refusal(error)
            return
        if events:
            (event,) = events
            assert isinstance(event, Carry | StartTLS)
            kept = event.first_flight if isinstance(event, Carry) else event.received
            assert kept == said
            return
    assert len(said) < 24
    prologue.refusal(DOWN)


@every_first
def test_what_comes_with_the_beginning_is_carried_too(name: str, sent: bytes) -> None:
    (event,) = open_prologue(name, TUNNEL).receive(sent + bytes(100_000))
    assert carried(event) == sent + bytes(100_000)


@every_first
def test_a_client_that_stalls_after_its_beginning_is_told_in_its_words(
    name: str, sent: bytes
) -> None:
    prologue = open_prologue(name, TUNNEL)
    prologue.receive(sent)
    refusal = prologue.refusal(DOWN)
    assert refusal
    assert (b"upstream-unreachable" in refusal) == (name != "spanner")  # gRPC asks later
