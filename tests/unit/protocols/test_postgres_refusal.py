"""The ErrorResponse that says no, read back as a client reads it."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.errors import PROBLEMS, ClientError, Code, DBProxyError, UpstreamError
from dbproxy.protocols.postgres import PostgresPrologue
from dbproxy.protocols.wire.postgres import error_response, sqlstate_of
from dbproxy.settings import Mode

SSL_REQUEST = struct.pack("!II", 8, 80877103)
CANCEL_REQUEST = struct.pack("!IIII", 16, 80877102, 1, 2)
CLIENT_HELLO = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"
STARTUP = struct.pack("!II", 14, 3 << 16) + b"user\0\0"

DOWN = UpstreamError(Code.UPSTREAM_UNREACHABLE, "cannot connect to teleport.example.com:443")
HANDSHAKE_FAILURE_ALERT = b"\x15\x03\x03\x00\x02\x02\x28"


def parse(message: bytes) -> dict[str, str]:
    """An ErrorResponse by the rules of the protocol (PostgreSQL protocol, 54.7)."""
    assert message[:1] == b"E"
    assert int.from_bytes(message[1:5], "big") == len(message) - 1
    assert message.endswith(b"\0\0")
    fields = message[5:-2].split(b"\0")
    return {field[:1].decode(): field[1:].decode() for field in fields}


def test_a_refusal_has_severity_code_message_and_hint() -> None:
    prologue = PostgresPrologue(Mode.TUNNEL)
    prologue.receive(STARTUP)
    assert parse(prologue.refusal(DOWN)) == {
        "S": "FATAL",
        "V": "FATAL",
        "C": "08001",
        "M": "dbproxy: cannot connect to teleport.example.com:443 [upstream-unreachable]",
        "H": PROBLEMS[Code.UPSTREAM_UNREACHABLE].client_hint,
    }


text = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.from_regex("[0-9A-Z]{5}", fullmatch=True), text, text)
def test_any_text_makes_a_message_that_can_be_read_back(
    sqlstate: str, message: str, hint: str
) -> None:
    fields = parse(error_response(sqlstate, message, hint))
    assert fields["C"] == sqlstate
    assert fields["M"] == message.replace("\0", " ")
    assert fields["H"] == hint.replace("\0", " ")


@pytest.mark.parametrize("code", Code)
def test_every_problem_has_a_sqlstate_and_its_code_in_the_message(code: Code) -> None:
    prologue = PostgresPrologue(Mode.TUNNEL)
    prologue.receive(STARTUP)
    fields = parse(prologue.refusal(DBProxyError(code, "what happened")))
    assert len(fields["C"]) == 5
    assert fields["M"] == f"dbproxy: what happened [{code}]"


@pytest.mark.parametrize(
    ("code", "sqlstate"),
    [
        (Code.CLIENT_CERTIFICATE_MISSING, "28000"),
        (Code.CERTIFICATE_REJECTED, "28000"),
        (Code.CERTIFICATE_EXPIRED, "57P03"),
        (Code.CERTIFICATE_NOT_YET_VALID, "57P03"),
        (Code.CONNECTION_LIMIT, "53300"),
        (Code.UPSTREAM_LOST, "08006"),
        (Code.UPSTREAM_SILENT, "08006"),
        (Code.CLIENT_NOT_TLS, "28000"),
        (Code.UPSTREAM_UNTRUSTED, "08001"),
        (Code.UPSTREAM_CLOSED_EARLY, "08006"),
        (Code.CLIENT_PROTOCOL_ERROR, "08P01"),
        (Code.INTERNAL_ERROR, "XX000"),
    ],
)
def test_drivers_can_tell_the_kinds_of_failure_apart(code: Code, sqlstate: str) -> None:
    prologue = PostgresPrologue(Mode.TUNNEL)
    prologue.receive(STARTUP)
    assert parse(prologue.refusal(DBProxyError(code, "what happened")))["C"] == sqlstate


@pytest.mark.parametrize("code", [code for code in Code if code.startswith("upstream-")])
def test_no_problem_with_the_upstream_is_taken_for_one_with_the_clients_credentials(
    code: Code,
) -> None:
    assert sqlstate_of(code).startswith("08")


@pytest.mark.parametrize("mode", Mode)
def test_a_client_that_has_sent_nothing_is_sent_nothing(mode: Mode) -> None:
    assert PostgresPrologue(mode).refusal(DOWN) == b""


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("inside_tls", [False, True])
def test_a_cancel_request_is_never_answered(mode: Mode, inside_tls: bool) -> None:
    prologue = PostgresPrologue(mode, inside_tls=inside_tls)
    prologue.receive(CANCEL_REQUEST)
    assert prologue.refusal(DOWN) == b""


def test_a_client_that_speaks_tls_is_sent_an_alert() -> None:
    prologue = PostgresPrologue(Mode.TUNNEL)
    with pytest.raises(ClientError) as caught:
        prologue.receive(CLIENT_HELLO)
    assert prologue.refusal(caught.value) == HANDSHAKE_FAILURE_ALERT


def test_a_client_whose_direct_tls_could_not_be_carried_is_sent_an_alert() -> None:
    prologue = PostgresPrologue(Mode.PASSTHROUGH)
    prologue.receive(CLIENT_HELLO)
    assert prologue.refusal(DOWN) == HANDSHAKE_FAILURE_ALERT


@pytest.mark.parametrize("sent", [SSL_REQUEST, SSL_REQUEST[:5]])
def test_a_client_that_waits_for_an_answer_to_its_ssl_request_is_told(sent: bytes) -> None:
    prologue = PostgresPrologue(Mode.PASSTHROUGH)
    prologue.receive(sent)
    assert parse(prologue.refusal(DOWN))["S"] == "FATAL"


@pytest.mark.parametrize("sent", [b"\x7fELF\2\1\1\0", STARTUP])
def test_a_client_that_cannot_be_served_is_told_in_its_hint_what_to_do(sent: bytes) -> None:
    prologue = PostgresPrologue(Mode.PASSTHROUGH)
    with pytest.raises(ClientError) as caught:
        prologue.receive(sent)
    assert parse(prologue.refusal(caught.value))["H"] == caught.value.problem.client_hint


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"GET / HTTP/1.1\r\n", b"HTTP/1.1 400 "),
        (b"*1\r\n$4\r\nPING\r\n", b"-ERR dbproxy: this port carries PostgreSQL"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", b"dbproxy: this port carries PostgreSQL"),
    ],
)
def test_a_client_of_another_protocol_is_told_in_its_own_words(sent: bytes, answer: bytes) -> None:
    prologue = PostgresPrologue(Mode.TERMINATE)
    with pytest.raises(ClientError) as caught:
        prologue.receive(sent)
    assert prologue.refusal(caught.value).startswith(answer)
