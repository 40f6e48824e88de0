"""SQL Server's first messages in each mode, split at every byte."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import beginnings
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tds_messages import (
    NOT_SUPPORTED,
    OFF,
    ON,
    PRELOGIN,
    REQUIRED,
    TDS_7_1,
    login,
    login_payload,
    packet,
    prelogin,
    prelogin_answer,
)

from dbproxy.errors import ClientError, Code, IdentityError, UpstreamError
from dbproxy.protocols import Carry, ConnectionFacts, PrologueEvent, Reply, StartTLS
from dbproxy.protocols.sqlserver import SQLServer, SQLServerPrelogin, SQLServerPrologue
from dbproxy.protocols.wire.tds_packets import (
    Encryption,
    MessageReader,
    encryption_of,
    error_text,
    login_error,
)
from dbproxy.settings import Mode

CLIENT_HELLO = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"
EXPIRED = IdentityError(Code.CERTIFICATE_EXPIRED, "it has expired")
CARRIED = Carry(
    login(),
    authenticate=True,
    conversation=SQLServerPrelogin,
    user="alice",
    database="example",
)


def feed(prologue: SQLServerPrologue, *pieces: bytes) -> list[PrologueEvent]:
    """What a prologue says, until it is finished."""
    events: list[PrologueEvent] = []
    for piece in pieces:
        events += prologue.receive(piece)
    return events


def cut(sent: bytes, size: int) -> list[bytes]:
    """Pieces of this size."""
    return [sent[start : start + size] for start in range(0, len(sent), size)]


def told(event: PrologueEvent) -> Encryption:
    """What the answer to PRELOGIN says about TLS."""
    assert isinstance(event, Reply)
    reader = MessageReader()
    reader.feed(event.data)
    message = reader.next_message()
    assert message is not None
    assert message.kind == 4
    return encryption_of(message.payload)


def refusal_text(prologue: SQLServerPrologue) -> str | None:
    reader = MessageReader()
    reader.feed(prologue.refusal(EXPIRED))
    message = reader.next_message()
    return None if message is None else error_text(message.payload)


class TestTunnel:
    @pytest.mark.parametrize("wanted", [OFF, ON, NOT_SUPPORTED, REQUIRED, None, 0x81])
    def test_every_client_is_told_that_there_is_no_tls(self, wanted: int | None) -> None:
        prologue = SQLServerPrologue(Mode.TUNNEL)
        (event,) = feed(prologue, prelogin(wanted))
        assert told(event) is Encryption.NOT_SUPPORTED
        insists = wanted in (ON, REQUIRED, 0x81)
        parting = prologue.parting
        assert (parting.code if parting else None) == (
            Code.CLIENT_TLS_ON_TUNNEL if insists else None
        )
        assert feed(prologue, login()) == [CARRIED]

    @pytest.mark.parametrize("cut", range(1, len(prelogin(OFF) + login())))
    def test_wherever_it_is_cut(self, cut: int) -> None:
        sent = prelogin(OFF) + login()
        answer, carry = feed(SQLServerPrologue(Mode.TUNNEL), sent[:cut], sent[cut:])
        assert told(answer) is Encryption.NOT_SUPPORTED
        assert carry == CARRIED

    def test_a_login_of_several_packets_is_carried_as_it_came(self) -> None:
        _, carry = feed(SQLServerPrologue(Mode.TUNNEL), prelogin(OFF), login(pieces=3) + b"rest")
        assert isinstance(carry, Carry)
        assert carry.first_flight == login(pieces=3) + b"rest"
        assert (carry.user, carry.database) == ("alice", "example")

    def test_an_old_client_begins_with_its_login(self) -> None:
        assert feed(SQLServerPrologue(Mode.TUNNEL), login()) == [CARRIED]

    def test_tls_at_once_is_refused_with_an_alert(self) -> None:
        prologue = SQLServerPrologue(Mode.TUNNEL)
        with pytest.raises(ClientError) as caught:
            feed(prologue, CLIENT_HELLO[:1], CLIENT_HELLO[1:])
        assert caught.value.code is Code.CLIENT_TLS_ON_TUNNEL
        assert prologue.refusal(caught.value)[:2] == b"\x15\x03"


class TestTerminate:
    @pytest.mark.parametrize(
        ("wanted", "answer"),
        [
            (ON, Encryption.ON),
            (OFF, Encryption.REQUIRED),
            (REQUIRED, Encryption.ON),
            (0x81, Encryption.ON),
        ],
    )
    def test_tls_begins_in_tds_packets(self, wanted: int, answer: Encryption) -> None:
        hello = packet(PRELOGIN, CLIENT_HELLO)
        for behind in (b"", hello[:5], hello):
            reply, start = feed(SQLServerPrologue(Mode.TERMINATE), prelogin(wanted) + behind)
            assert told(reply) is answer
            assert start == StartTLS(behind, in_tds_packets=True)

    @pytest.mark.parametrize("cut", range(1, len(prelogin(ON))))
    def test_wherever_prelogin_is_cut(self, cut: int) -> None:
        sent = prelogin(ON)
        reply, start = feed(SQLServerPrologue(Mode.TERMINATE), sent[:cut], sent[cut:])
        assert told(reply) is Encryption.ON
        assert start == StartTLS(in_tds_packets=True)

    @pytest.mark.parametrize("cut", range(len(CLIENT_HELLO)))
    def test_tds_8_begins_with_tls(self, cut: int) -> None:
        pieces = [piece for piece in (CLIENT_HELLO[:cut], CLIENT_HELLO[cut:]) if piece]
        prologue = SQLServerPrologue(Mode.TERMINATE)
        events: list[PrologueEvent] = []
        came = b""
        for piece in pieces:
            came += piece
            if events := feed(prologue, piece):
                break
        assert events == [StartTLS(came)]
        assert SQLServer().server_alpn() == b"tds/8.0"

    @pytest.mark.parametrize("wanted", [NOT_SUPPORTED, None])
    def test_a_client_without_tls_is_told_that_it_is_required(self, wanted: int | None) -> None:
        prologue = SQLServerPrologue(Mode.TERMINATE)
        (event,) = feed(prologue, prelogin(wanted))
        assert told(event) is Encryption.REQUIRED
        assert prologue.parting is not None
        assert prologue.parting.code is Code.CLIENT_NOT_TLS
        with pytest.raises(ClientError) as caught:
            feed(prologue, login())
        assert caught.value.code is Code.CLIENT_NOT_TLS

    def test_a_login_without_tls_is_refused(self) -> None:
        with pytest.raises(ClientError) as caught:
            feed(SQLServerPrologue(Mode.TERMINATE), login())
        assert caught.value.code is Code.CLIENT_NOT_TLS

    def test_inside_tls_the_login_is_carried(self) -> None:
        prologue = SQLServerPrologue(Mode.TERMINATE, inside_tls=True)
        assert feed(prologue, login()) == [CARRIED]

    @pytest.mark.parametrize(
        ("wanted", "answer"),
        [(ON, Encryption.ON), (OFF, Encryption.NOT_SUPPORTED), (None, Encryption.NOT_SUPPORTED)],
    )
    def test_in_tds_8_prelogin_comes_inside(self, wanted: int, answer: Encryption) -> None:
        prologue = SQLServerPrologue(Mode.TERMINATE, inside_tls=True)
        reply, carry = feed(prologue, prelogin(wanted), login())
        assert told(reply) is answer
        assert carry == CARRIED

    def test_tls_inside_tls_is_refused(self) -> None:
        with pytest.raises(ClientError) as caught:
            feed(SQLServerPrologue(Mode.TERMINATE, inside_tls=True), CLIENT_HELLO)
        assert caught.value.code is Code.CLIENT_PROTOCOL_ERROR


class TestRefusals:
    def test_a_client_that_has_said_nothing_is_told_nothing(self) -> None:
        prologue = SQLServerPrologue(Mode.TUNNEL)
        assert not prologue.started
        assert prologue.refusal(EXPIRED) == b""

    def test_nothing_until_its_time_is_over_is_what_mysql_clients_say(self) -> None:
        stalled = ClientError(Code.CLIENT_STALLED, "too late")
        refusal = SQLServerPrologue(Mode.TUNNEL).refusal(stalled)
        assert refusal[3:7] == b"\0\xff\x13\x04"
        assert b"this port carries SQL Server" in refusal
        assert SQLServerPrologue(Mode.TERMINATE, inside_tls=True).refusal(stalled) == b""

    @pytest.mark.parametrize(
        ("sent", "answer"),
        [
            (beginnings.HTTP, b"HTTP/1.1 400 "),
            (beginnings.REDIS, b"-ERR dbproxy: "),
            (beginnings.POSTGRES, b"E\0"),
            (beginnings.CASSANDRA, b"\x84\0"),
        ],
    )
    @pytest.mark.parametrize("size", [1, 3, 1000])
    def test_another_protocol_is_answered_in_its_own_words(
        self, sent: bytes, answer: bytes, size: int
    ) -> None:
        prologue = SQLServerPrologue(Mode.TUNNEL)
        with pytest.raises(ClientError, match="this port carries SQL Server") as caught:
            feed(prologue, *cut(sent, size))
        assert prologue.refusal(caught.value).startswith(answer)

    @pytest.mark.parametrize("size", [1, 8, 1000])
    def test_another_protocol_may_begin_with_the_same_byte(self, size: int) -> None:
        sent = b"\x12\x01" + beginnings.MONGODB[2:]  # 274 bytes are announced
        prologue = SQLServerPrologue(Mode.TUNNEL)
        with pytest.raises(ClientError, match="a MongoDB message") as caught:
            feed(prologue, *cut(sent, size))
        assert b"errmsg" in prologue.refusal(caught.value)

    def test_who_goes_on_in_another_protocol_is_answered_on(self) -> None:
        prologue = SQLServerPrologue(Mode.TUNNEL)
        assert prologue.further(EXPIRED) is None
        with pytest.raises(ClientError) as caught:
            prologue.receive(beginnings.REDIS_SETINFO)
        answering = prologue.further(caught.value)
        assert answering is not None
        assert answering(b"*1\r\n$4\r\nPING\r\n").startswith(b"-ERR dbproxy: ")

    def test_the_text_has_code_cause_and_next_step(self) -> None:
        prologue = SQLServerPrologue(Mode.TUNNEL)
        feed(prologue, prelogin(OFF), login())
        text = refusal_text(prologue)
        assert text is not None
        assert text.startswith("dbproxy: it has expired [certificate-expired]. ")
        assert text.endswith(".")

    def test_it_is_in_the_clients_version(self) -> None:
        prologue = SQLServerPrologue(Mode.TUNNEL)
        feed(prologue, login(version=TDS_7_1))
        text = refusal_text(prologue)
        assert text is not None
        assert prologue.refusal(EXPIRED) == login_error(text, TDS_7_1)

    @pytest.mark.parametrize("mode", [Mode.TERMINATE, Mode.TUNNEL])
    @pytest.mark.parametrize(
        ("sent", "what"),
        [
            (b"GET / HTTP/1.1\r\n", "an HTTP request"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "an SSH greeting"),
            (b"\x10\x01\x00\x04\0\0\0\0", "another protocol"),
            (b"\x16\x99\x01\x01", "another protocol"),
            (b"\x12\x01\x00\x09\0\0\0\0\0", "PRELOGIN"),
            (prelogin(NOT_SUPPORTED) + prelogin(OFF), "another protocol"),
        ],
    )
    def test_another_protocol(self, sent: bytes, what: str, mode: Mode) -> None:
        with pytest.raises(ClientError, match=what) as caught:
            feed(SQLServerPrologue(mode), sent)
        assert caught.value.code is Code.CLIENT_PROTOCOL_ERROR


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from([prelogin(ON), prelogin(OFF), login(), login(pieces=2), CLIENT_HELLO]),
        ),
        max_size=4,
    ),
    st.lists(st.integers(0, 600), max_size=6),
    st.sampled_from(Mode),
    st.booleans(),
)
def test_any_bytes_at_all_lead_to_events_or_to_a_refusal(
    parts: Sequence[bytes], cuts: Sequence[int], mode: Mode, inside_tls: bool
) -> None:
    sent = b"".join(parts)
    edges = sorted({0, len(sent), *(cut % (len(sent) + 1) for cut in cuts)})
    prologue = SQLServerPrologue(mode, inside_tls=inside_tls)
    with suppress(ClientError):
        for a, b in pairwise(edges):
            events = prologue.receive(sent[a:b])
            assert all(isinstance(event, Reply) for event in events[:-1])
            if events and not isinstance(events[-1], Reply):
                return
    assert not prologue.started or prologue.refusal(EXPIRED)


class TestWithTheUpstream:
    """The PRELOGIN that the client does not hear."""

    @pytest.mark.parametrize("size", [1, 7, 1000])
    @pytest.mark.parametrize("answer", [OFF, NOT_SUPPORTED])
    def test_it_is_over_with_the_answer(self, answer: int, size: int) -> None:
        conversation, wire = SQLServerPrelogin(), prelogin_answer(answer)
        assert not conversation.hears_client
        asked = conversation.begin().to_upstream
        assert asked[0] == PRELOGIN
        assert encryption_of(asked[8:]) is Encryption.NOT_SUPPORTED
        for start in range(0, len(wire), size):
            assert not conversation.over
            assert conversation.from_upstream(wire[start : start + size]).to_client == b""
        assert conversation.over
        assert conversation.from_client(b"up").to_upstream == b"up"
        assert conversation.from_upstream(b"down").to_client == b"down"
        assert conversation.refusal(EXPIRED) == b""

    @pytest.mark.parametrize(
        ("answer", "what"),
        [
            (prelogin_answer(REQUIRED), "wants TLS"),
            (prelogin_answer(ON), "wants TLS"),
            (login_error("no such database", 0x74000004), "no such database"),
            (packet(PRELOGIN, b"\xff"), "type 18"),
            (packet(4, b""), "ends too early"),
            (b"HTTP/1.1 400 Bad Request\r\n", "type 72"),
        ],
    )
    def test_another_answer_is_an_error(self, answer: bytes, what: str) -> None:
        with pytest.raises(UpstreamError, match=what) as caught:
            SQLServerPrelogin().from_upstream(answer)
        assert caught.value.code is Code.UPSTREAM_PROTOCOL_ERROR

    @given(st.lists(st.binary(max_size=60), max_size=5))
    def test_any_bytes_are_an_answer_or_an_error(self, pieces: list[bytes]) -> None:
        conversation = SQLServerPrelogin()
        with suppress(UpstreamError):
            for piece in pieces:
                conversation.from_upstream(piece)


def test_the_line_to_paste() -> None:
    facts = ConnectionFacts(
        host="localhost",
        port=1433,
        mode=Mode.TUNNEL,
        user="alice",
        database="example",
        ca_file=None,
        certificate_file=None,
        key_file=None,
    )
    command = "sqlcmd -S localhost,1433 -No -U alice -P '' -d example"
    assert SQLServer().connect_command(facts) == command


def test_what_teleport_has_for_it() -> None:
    protocol = SQLServer()
    assert list(protocol.alpn) == ["teleport-sqlserver-ping", "teleport-sqlserver"]
    assert not protocol.passthrough
    assert protocol.port_of_socket("any.sock") == 1433
    assert protocol.greeting_reader() is None
    assert len(login_payload()) < 300
    assert Path(protocol.socket_name(1433)).suffix == ".sock"
