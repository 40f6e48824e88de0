"""MySQL's first packets in each mode, split at every byte."""

import base64
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import beginnings
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mysql_packets import error, greeting_payload, packet, response_payload, tls_request

from dbproxy.errors import ClientError, Code, IdentityError, UpstreamError
from dbproxy.protocols import Carry, ConnectionFacts, MySQL, PrologueEvent, StartTLS
from dbproxy.protocols.mysql import MySQLAnswer, MySQLGreeting, MySQLGreetingReader
from dbproxy.protocols.mysql_login import MySQLLogin
from dbproxy.protocols.wire.mysql_packets import Packet
from dbproxy.settings import Mode

CLIENT_HELLO = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"
RESPONSE = packet(1, response_payload())
EXPIRED = IdentityError(Code.CERTIFICATE_EXPIRED, "it has expired")
every_mode = pytest.mark.parametrize("mode", list(Mode))
tls_modes = pytest.mark.parametrize("mode", [Mode.PASSTHROUGH, Mode.TERMINATE])


def answer_to(mode: Mode, *, ssl: bool | None = None, inside_tls: bool = False) -> MySQLAnswer:
    """The prologue of a client that has been greeted as the mode has it."""
    offers = mode is Mode.PASSTHROUGH if ssl is None else ssl
    greeting = MySQLGreeting(Packet(0, greeting_payload(ssl=offers)))
    return greeting.prologue(mode, inside_tls=inside_tls)


def feed(prologue: MySQLAnswer, sent: bytes, *, cut: int | None = None) -> list[PrologueEvent]:
    """What a prologue says to bytes that come in one piece, or in two."""
    pieces = [sent] if cut is None else [sent[:cut], sent[cut:]]
    events: list[PrologueEvent] = []
    for piece in pieces:
        if piece and not events:
            events += prologue.receive(piece)
    return events


class TestGreetings:
    @pytest.mark.parametrize("size", [1, 2, 5, 1000])
    def test_it_is_read_wherever_it_is_cut(self, size: int) -> None:
        reader, sent = MySQLGreetingReader(), packet(0, greeting_payload())
        found = [reader.receive(sent[i : i + size]) for i in range(0, len(sent), size)]
        assert found[:-1] == [None] * (len(found) - 1)
        assert found[-1] is not None
        assert found[-1].packet == Packet(0, greeting_payload())
        assert found[-1].size == len(sent)

    @pytest.mark.parametrize(
        "sent",
        [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\xff\xff\xff\0",
            packet(0, b"\x09old"),
            packet(0, greeting_payload()) + b"more",
            packet(0, b""),
        ],
    )
    def test_an_upstream_that_speaks_something_else(self, sent: bytes) -> None:
        with pytest.raises(UpstreamError) as caught:
            MySQLGreetingReader().receive(sent)
        assert caught.value.code is Code.UPSTREAM_PROTOCOL_ERROR

    def test_an_error_in_its_place_is_told(self) -> None:
        with pytest.raises(UpstreamError, match="Too many connections"):
            MySQLGreetingReader().receive(error(0, b"Too many connections"))

    @given(st.lists(st.binary(max_size=60), max_size=6))
    def test_any_bytes_are_a_greeting_or_refused(self, pieces: Sequence[bytes]) -> None:
        reader = MySQLGreetingReader()
        with suppress(UpstreamError):
            for piece in pieces:
                if reader.receive(piece) is not None:
                    return

    @pytest.mark.parametrize("mode", [Mode.PASSTHROUGH, Mode.TUNNEL])
    def test_it_is_carried_as_it_is(self, mode: Mode) -> None:
        assert answer_to(mode, ssl=False).opening == packet(0, greeting_payload())
        assert answer_to(mode, ssl=True).opening == packet(0, greeting_payload(ssl=True))

    def test_where_tls_ends_here_it_offers_tls(self) -> None:
        assert answer_to(Mode.TERMINATE).opening == packet(0, greeting_payload(ssl=True))
        assert answer_to(Mode.TERMINATE, inside_tls=True).opening == b""


class TestAnswers:
    @pytest.mark.parametrize("cut", range(len(RESPONSE)))
    def test_tunnel_carries_a_login(self, cut: int) -> None:
        (event,) = feed(answer_to(Mode.TUNNEL), RESPONSE, cut=cut)
        assert event == Carry(RESPONSE, authenticate=True, user="alice", database="example")

    @pytest.mark.parametrize("cut", range(len(tls_request())))
    def test_passthrough_carries_a_request_for_tls(self, cut: int) -> None:
        (event,) = feed(answer_to(Mode.PASSTHROUGH), tls_request(), cut=cut)
        assert event == Carry(tls_request(), authenticate=False)

    def test_what_comes_behind_is_carried_too(self) -> None:
        (event,) = feed(answer_to(Mode.PASSTHROUGH), tls_request() + CLIENT_HELLO)
        assert event == Carry(tls_request() + CLIENT_HELLO, authenticate=False)

    @pytest.mark.parametrize("cut", range(len(tls_request() + CLIENT_HELLO)))
    def test_terminate_begins_tls(self, cut: int) -> None:
        (event,) = feed(answer_to(Mode.TERMINATE), tls_request() + CLIENT_HELLO, cut=cut)
        assert isinstance(event, StartTLS)
        came = (tls_request() + CLIENT_HELLO)[: cut or None]
        expected = CLIENT_HELLO if cut < len(tls_request()) else came[len(tls_request()) :]
        assert event.received == expected

    def test_inside_tls_the_login_becomes_a_conversation(self) -> None:
        login = packet(2, response_payload(ssl=True))
        (event,) = feed(answer_to(Mode.TERMINATE, inside_tls=True), login)
        assert isinstance(event, Carry)
        assert (event.first_flight, event.authenticate) == (b"", True)
        assert (event.user, event.database) == ("alice", "example")
        assert event.conversation is not None
        conversation = event.conversation()
        assert isinstance(conversation, MySQLLogin)
        assert conversation.begin().to_upstream == RESPONSE

    def test_a_tunnel_whose_upstream_offers_tls_carries_a_request_for_it(self) -> None:
        (event,) = feed(answer_to(Mode.TUNNEL, ssl=True), tls_request())
        assert event == Carry(tls_request(), authenticate=True)


class TestRefusals:
    @tls_modes
    def test_a_client_without_tls(self, mode: Mode) -> None:
        prologue = answer_to(mode)
        with pytest.raises(ClientError) as caught:
            prologue.receive(RESPONSE)
        assert caught.value.code is Code.CLIENT_NOT_TLS
        refusal = prologue.refusal(caught.value)
        assert refusal[3:13] == b"\2\xff\x57\x0c#HY000"
        assert b"[client-not-tls]" in refusal

    def test_tls_on_a_tunnel(self) -> None:
        prologue = answer_to(Mode.TUNNEL)
        with pytest.raises(ClientError) as caught:
            prologue.receive(tls_request() + CLIENT_HELLO)
        assert caught.value.code is Code.CLIENT_TLS_ON_TUNNEL
        assert prologue.refusal(caught.value)[3:13] == b"\2\xff\x13\x04#08S01"

    def test_tls_inside_tls(self) -> None:
        with pytest.raises(ClientError) as caught:
            answer_to(Mode.TERMINATE, inside_tls=True).receive(tls_request(2))
        assert caught.value.code is Code.CLIENT_PROTOCOL_ERROR

    @every_mode
    @pytest.mark.parametrize(
        ("sent", "what"),
        [
            (b"GET / HTTP/1.1\r\nHost: localhost:3306\r\n\r\n", "an HTTP request"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "an SSH greeting"),
            (CLIENT_HELLO, "a TLS handshake"),
            (packet(7, response_payload()), "0x59000007"),
            (b"\xff\xff\xff\1", "0xffffff01"),
        ],
    )
    def test_another_protocol(self, sent: bytes, what: str, mode: Mode) -> None:
        with pytest.raises(ClientError, match=what) as caught:
            answer_to(mode).receive(sent)
        assert caught.value.code is Code.CLIENT_PROTOCOL_ERROR
        with pytest.raises(ClientError, match=what) as caught:
            MySQL().prologue(mode).receive(sent)
        assert caught.value.code is Code.CLIENT_PROTOCOL_ERROR

    @every_mode
    def test_before_the_greeting_an_error_takes_its_place(self, mode: Mode) -> None:
        prologue = MySQL().prologue(mode)
        assert not prologue.started
        refusal = prologue.refusal(EXPIRED)
        assert refusal[3:7] == b"\0\xff\x95\x05"
        assert refusal[7:].startswith(b"dbproxy: it has expired [certificate-expired]. ")

    def test_who_begins_with_tls_gets_an_alert(self) -> None:
        prologue = MySQL().prologue(Mode.TUNNEL)
        with pytest.raises(ClientError) as caught:
            prologue.receive(CLIENT_HELLO)
        assert prologue.started
        assert prologue.refusal(caught.value)[:2] == b"\x15\x03"

    @pytest.mark.parametrize(
        ("sent", "answer"),
        [
            (beginnings.HTTP, b"HTTP/1.1 400 "),
            (beginnings.REDIS, b"-ERR dbproxy: "),
            (beginnings.POSTGRES, b"E\0"),
            (beginnings.SSH, b"dbproxy: "),
        ],
    )
    def test_who_speaks_before_the_greeting_is_told_in_its_own_words(
        self, sent: bytes, answer: bytes
    ) -> None:
        prologue = MySQL().prologue(Mode.TUNNEL)
        with pytest.raises(ClientError, match="MySQL") as caught:
            prologue.receive(sent)
        assert prologue.refusal(caught.value).startswith(answer)

    def test_who_goes_on_before_the_greeting_is_answered_on(self) -> None:
        prologue = MySQL().prologue(Mode.TUNNEL)
        assert prologue.further(EXPIRED) is None
        with pytest.raises(ClientError) as caught:
            prologue.receive(beginnings.REDIS_SETINFO)
        answering = prologue.further(caught.value)
        assert answering is not None
        assert answering(b"*1\r\n$4\r\nPING\r\n").startswith(b"-ERR dbproxy: ")

    def test_the_number_is_the_one_that_the_client_waits_for(self) -> None:
        silent, logged_in = answer_to(Mode.TUNNEL), answer_to(Mode.TUNNEL)
        logged_in.receive(RESPONSE)
        inside = answer_to(Mode.TERMINATE, inside_tls=True)
        inside.receive(packet(2, response_payload()))
        assert silent.refusal(EXPIRED)[3] == 1
        assert logged_in.refusal(EXPIRED)[3] == 2
        assert inside.refusal(EXPIRED)[3] == 3

    def test_a_client_in_tls_with_teleport_is_told_nothing(self) -> None:
        prologue = answer_to(Mode.PASSTHROUGH)
        prologue.receive(tls_request())
        assert prologue.refusal(EXPIRED) == b""

    def test_every_problem_has_a_number_of_the_servers(self) -> None:
        for code in Code:
            packet_sent = answer_to(Mode.TUNNEL).refusal(IdentityError(code, "x"))
            number = int.from_bytes(packet_sent[5:7], "little")
            assert 1000 <= number < 2000 or 3000 <= number < 4000


class TestParting:
    def test_who_leaves_a_tunnel_without_a_word_may_have_wanted_tls(self) -> None:
        parting = answer_to(Mode.TUNNEL).parting
        assert parting is not None
        assert parting.code is Code.CLIENT_TLS_ON_TUNNEL

    def test_who_has_answered_did_not(self) -> None:
        prologue = answer_to(Mode.TUNNEL)
        prologue.receive(RESPONSE[:5])
        assert prologue.parting is None

    @tls_modes
    def test_nor_who_was_offered_tls(self, mode: Mode) -> None:
        assert answer_to(mode).parting is None


@given(
    st.lists(st.one_of(st.binary(max_size=50), st.just(RESPONSE), st.just(tls_request()))),
    st.lists(st.integers(0, 300), max_size=6),
    st.sampled_from(Mode),
    st.booleans(),
)
def test_any_bytes_at_all_lead_to_one_event_or_to_a_refusal(
    parts: Sequence[bytes], cuts: Sequence[int], mode: Mode, inside_tls: bool
) -> None:
    sent = b"".join(parts)
    edges = sorted({0, len(sent), *(cut % (len(sent) + 1) for cut in cuts)})
    prologue = answer_to(mode, inside_tls=inside_tls)
    with suppress(ClientError):
        for a, b in pairwise(edges):
            if events := prologue.receive(sent[a:b]):
                assert len(events) == 1
                return
    assert prologue.refusal(EXPIRED)


class TestVersion:
    def test_it_is_one_more_alpn_value(self) -> None:
        assert list(MySQL().alpn) == ["teleport-mysql-ping", "teleport-mysql"]
        first, second, version = MySQL().telling("8.0.36-log").alpn
        assert (first, second) == tuple(MySQL().alpn)
        prefix, _, encoded = version.rpartition("-")
        assert prefix == "teleport-mysql"
        assert base64.b64decode(encoded) == b"8.0.36-log"

    @pytest.mark.parametrize(("length", "kept"), [(180, True), (181, False), (1000, False)])
    def test_what_tls_has_no_room_for_is_left_out(self, length: int, kept: bool) -> None:
        alpn = MySQL().telling("8" * length).alpn
        assert (len(alpn) == 3) is kept
        assert all(len(value) <= 255 for value in alpn)


class TestCommands:
    def _facts(self, **changes: object) -> ConnectionFacts:
        values: dict[str, object] = {
            "host": "localhost",
            "port": 3306,
            "mode": Mode.PASSTHROUGH,
            "user": "alice",
            "database": "example",
            "ca_file": Path("/opt/machine-id/ca.crt"),
            "certificate_file": Path("/opt/machine-id/tlscert"),
            "key_file": Path("/opt/machine-id/key"),
        }
        return ConnectionFacts(**(values | changes))  # type: ignore[arg-type]

    def test_with_tls(self) -> None:
        assert MySQL().connect_command(self._facts()) == (
            "mysql --host=localhost --port=3306 --protocol=tcp --user=alice"
            " --ssl-ca=/opt/machine-id/ca.crt --ssl-cert=/opt/machine-id/tlscert"
            " --ssl-key=/opt/machine-id/key"
            " --loose-ssl-verify-server-cert --loose-ssl-mode=VERIFY_IDENTITY --database=example"
        )

    def test_without_tls(self) -> None:
        facts = self._facts(mode=Mode.TUNNEL, hostaddr="::1", user=None, database=None)
        assert MySQL().connect_command(facts) == (
            "mysql --host=::1 --port=3306 --protocol=tcp --loose-skip-ssl"
        )

    def test_on_a_socket(self) -> None:
        assert MySQL().port_of_socket("mysql.sock") == 3306
        assert MySQL().port_of_socket("other") == 3306
        facts = self._facts(mode=Mode.TUNNEL, host="/run/a dir", socket=Path("/run/a dir/other"))
        command = MySQL().connect_command(facts)
        assert command.startswith("mysql '--socket=/run/a dir/other' --user=alice")
