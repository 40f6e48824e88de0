"""What holds for each way of speaking, whatever a client sends: total, bounded, decided soon."""

import json
import re
import struct

import beginnings
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tds_messages import OFF, login, prelogin

from dbproxy.errors import ClientError, Code, DBProxyError, UpstreamError
from dbproxy.protocols import protocol_named
from dbproxy.protocols.client_first import ClientFirst
from dbproxy.protocols.wire import Wire
from dbproxy.protocols.wire.postgres import PostgresWire, error_message
from dbproxy.protocols.wire.ssh import SSH
from dbproxy.protocols.wire.tds import TDSWire
from dbproxy.protocols.wire.tds_packets import MessageReader, error_text
from dbproxy.protocols.wire.tls import TLS

ENOUGH = 24
"""Bytes after which each has decided."""
MIB = 1024 * 1024
LARGEST_ANSWER = 512 * 1024
DOWN = UpstreamError(Code.UPSTREAM_UNREACHABLE, "no connection to teleport.example.com:443")


def wire_of(name: str) -> Wire:
    protocol = protocol_named(name)
    assert isinstance(protocol, ClientFirst)
    return protocol.wire


WIRES: dict[str, tuple[Wire, list[bytes]]] = {
    "tls": (TLS(), [beginnings.CLIENT_HELLO]),
    "ssh": (SSH(), [beginnings.SSH]),
    "postgres": (PostgresWire(), [beginnings.POSTGRES, beginnings.POSTGRES_SSL]),
    "tds": (TDSWire(), [beginnings.TDS, prelogin(OFF)]),
    **{
        name: (
            wire_of(name),
            [sent for sent in all_sent if not sent.startswith((b"PING", b"SET"))],  # inline
        )
        for name, all_sent in beginnings.OF_PROTOCOL.items()
    },
}
GOING_ON = {"tds": login(), "postgres": beginnings.POSTGRES, "spanner": b"\0\0\1\1\5\0\0\0\1\x82"}
"""What asks for the answer that a client prints, where that is not the first message."""
HOSTILE = {
    "tls": [b"\x16\xff", b"\xff" * ENOUGH],
    "ssh": [b"\xff" * ENOUGH],
    "postgres": [b"\xff" * ENOUGH, b"\0\0\xff\xff\0\3", b"\0\0\0\7", b"\0\0\x27\x11"],
    "tds": [b"\x12\x01\xff\xff", b"\x12\x01\0\0", b"\x12\x01\0\x08"],
    "redis": [b"*-1\r\n", b"*\xff"],
    "mongodb": [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), b"\x10\0\0\0"],
    "cassandra": [b"\x04\0\0\0\1\xff\xff\xff\xff", b"\x04\0\0\0\1\x80\0\0\0"],
    "clickhouse": [b"\0\xff", b"\0\x80", b"\0\0"],
    "oracle": [b"\0\0", b"\0\x21", b"\xff\xff\1"],
    "spanner": [b"PRJ", b"\xff" * ENOUGH],
    **{
        name: [b"\xff" * ENOUGH, b"A" * ENOUGH, b"GET " + b"\xff"]
        for name in ("elasticsearch", "opensearch", "dynamodb", "snowflake", "clickhouse-http")
    },
}
"""Lengths and the like that nobody can mean; the bytes up to there must be enough to say so."""

every_wire = pytest.mark.parametrize("name", WIRES)
errors = st.builds(DBProxyError, st.sampled_from(Code), st.text(max_size=60))


def test_none_is_left_out() -> None:
    assert WIRES.keys() == HOSTILE.keys()


@every_wire
class TestBeginnings:
    def test_its_own_is_told_at_every_byte_and_never_doubted(self, name: str) -> None:
        wire, beginning = WIRES[name]
        for sent in beginning:
            verdicts = [wire.begins(sent[:size]) for size in range(len(sent) + 1)]
            decided = verdicts.index(True)
            assert decided <= ENOUGH
            assert set(verdicts[:decided]) <= {None}
            assert set(verdicts[decided:]) == {True}

    @given(data=st.binary(max_size=64))
    def test_any_bytes_are_decided_soon_and_for_good(self, name: str, data: bytes) -> None:
        wire, _ = WIRES[name]
        verdicts = [wire.begins(data[:size]) for size in range(len(data) + 1)]
        known = [verdict for verdict in verdicts if verdict is not None]
        assert len(set(known)) <= 1
        assert verdicts[: len(verdicts) - len(known)] == [None] * (len(verdicts) - len(known))
        assert len(data) < ENOUGH or known

    @given(data=st.binary(max_size=30), at=st.integers(0, 30))
    def test_a_beginning_with_some_bytes_changed_is_decided_too(
        self, name: str, data: bytes, at: int
    ) -> None:
        wire, beginning = WIRES[name]
        for sent in beginning:
            changed = (sent[:at] + data + sent[at + len(data) :]).ljust(ENOUGH, b"\0")
            assert wire.begins(changed) is not None

    def test_hostile_lengths_are_not_waited_for(self, name: str) -> None:
        wire, _ = WIRES[name]
        for sent in HOSTILE[name]:
            assert wire.begins(sent) is False, sent


@every_wire
class TestRefusals:
    @given(data=st.binary(max_size=80), error=errors, more=st.lists(st.binary(max_size=80)))
    def test_whatever_was_sent_and_happened_there_is_an_answer_or_none(
        self, name: str, data: bytes, error: DBProxyError, more: list[bytes]
    ) -> None:
        wire, _ = WIRES[name]
        assert isinstance(wire.refusal(data, error), bytes)
        answering = wire.further(data, error)
        for piece in more:
            assert answering is None or isinstance(answering(piece), bytes)

    @pytest.mark.parametrize("message", ["x" * 70_000, "漢" * 70_000, "\0" * 70_000, "/\udcff"])
    def test_a_cause_that_nothing_has_room_for_or_that_is_no_text_is_told_all_the_same(
        self, name: str, message: str
    ) -> None:
        wire, (beginning, *_) = WIRES[name]
        error = UpstreamError(Code.UPSTREAM_PROTOCOL_ERROR, message)
        told = wire.refusal(beginning, error)
        if (answering := wire.further(beginning, error)) is not None:
            told += answering(GOING_ON.get(name, b""))
        largest_frame = 16 * 1024  # that every HTTP/2 client takes
        assert len(told) < (largest_frame if name == "spanner" else 2 * largest_frame)
        if name != "tls":
            assert "[upstream-protocol-error]" in told.decode(errors="replace").replace("\0", "")

    @pytest.mark.parametrize(
        "junk",
        [
            bytes(MIB),
            b"*0\r\n" * (MIB // 4),
            b"\0\0\0\1\5\0\0\0\1" * (MIB // 9),  # HTTP/2 requests, as short as can be
            b"\x10\1\0\x08\0\0\0\0" * (MIB // 8),  # TDS logins
            b"\x10\0\0\x08\0\0\0\0" * (MIB // 8),  # a TDS login without end
            b"GET / HTTP/1.1\r\n\r\n" * (MIB // 18),
        ],
        ids=["zeros", "redis", "http2", "tds", "endless-tds", "http"],
    )
    def test_a_client_that_sends_much_gets_little_and_soon(self, name: str, junk: bytes) -> None:
        wire, (beginning, *_) = WIRES[name]
        assert len(wire.refusal(beginning + junk, DOWN)) < LARGEST_ANSWER
        answering = wire.further(beginning, DOWN)
        if answering is not None:
            assert len(answering(junk)) < LARGEST_ANSWER


words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)
"""Without spaces, of which a run becomes one."""


@given(text=words)
def test_the_words_of_an_error_are_read_back_as_they_are(text: str) -> None:
    """Those that other tests do not read with a driver's own code."""
    error = ClientError(Code.CLIENT_PROTOCOL_ERROR, text)
    expected = f"dbproxy: {text} [client-protocol-error]. {error.problem.client_hint}"
    assert SSH().refusal(beginnings.SSH, error).decode() == f"{expected}\r\n"
    (line,) = wire_of("redis").refusal(beginnings.REDIS, error).split(b"\r\n")[:-1]
    assert line.decode() == f"-ERR {expected}"
    body = wire_of("elasticsearch").refusal(beginnings.HTTP, error).partition(b"\r\n\r\n")[2]
    assert json.loads(body)["error"]["reason"] == expected
    reader = MessageReader()
    reader.feed(TDSWire().refusal(prelogin(OFF) + login(), error))
    answer_to_prelogin, answer_to_login = reader.next_message(), reader.next_message()
    assert answer_to_prelogin is not None
    assert answer_to_login is not None
    assert error_text(answer_to_login.payload) == expected
    packet = wire_of("oracle").refusal(beginnings.ORACLE, error)
    assert struct.unpack_from(">H", packet) == (len(packet),)
    told = re.search(r"\(TMP=(.*?)\)\(VSNNUM", packet[12:].decode(), re.DOTALL)
    assert told is not None
    assert told[1] == re.sub(r"[()='\"\\]", " ", expected)


class TestSQLServerClientsOnOtherPorts:
    """PRELOGIN is answered, so that there is a LOGIN7 to answer with the error."""

    @pytest.mark.parametrize("size", [1, 5, 4096])
    def test_the_login_is_answered_however_it_is_cut(self, size: int) -> None:
        sent = prelogin(OFF)[4:] + login(pieces=3)
        answer = TDSWire().refusal(prelogin(OFF)[:4], DOWN)
        answering = TDSWire().further(prelogin(OFF)[:4], DOWN)
        answers = [answering(sent[at : at + size]) for at in range(0, len(sent), size)]
        assert answer[0] == 4
        assert not any(answers[:-1])
        reader = MessageReader()
        reader.feed(answers[-1])
        message = reader.next_message()
        assert message is not None
        assert "[upstream-unreachable]" in (error_text(message.payload) or "")

    def test_it_is_answered_once(self) -> None:
        answering = TDSWire().further(prelogin(OFF), DOWN)
        assert answering(login())
        assert answering(login()) == b""

    def test_what_is_no_login_is_not_answered_and_not_kept(self) -> None:
        answering = TDSWire().further(prelogin(OFF), DOWN)
        assert answering(b"\x10\1\0\1\0\0\0\0") == b""
        assert answering(login()) == b""


class TestPostgreSQLClientsOnOtherPorts:
    """Encryption is declined, so that there is a StartupMessage to answer with the error."""

    SENT = beginnings.POSTGRES_GSSENC + beginnings.POSTGRES_SSL + beginnings.POSTGRES

    @pytest.mark.parametrize("first", range(8, len(SENT)))
    @pytest.mark.parametrize("size", [1, 3, 4096])
    def test_the_startup_message_is_answered_however_it_is_cut(self, first: int, size: int) -> None:
        wire, rest = PostgresWire(), self.SENT[first:]
        answering = wire.further(self.SENT[:first], DOWN)
        answers = [wire.refusal(self.SENT[:first], DOWN)]
        answers += [answering(rest[at : at + size]) for at in range(0, len(rest), size)]
        answer = b"".join(answers)
        assert answer == b"NN" + error_message(DOWN)
        assert b"[upstream-unreachable]" in answer

    def test_it_is_answered_once(self) -> None:
        answering = PostgresWire().further(beginnings.POSTGRES_SSL, DOWN)
        assert answering(beginnings.POSTGRES) == error_message(DOWN)
        assert answering(beginnings.POSTGRES) == b""
