"""HTTP: a response, as h11 reads it, with the error where each database's clients look for it."""

import json
from typing import Any

import beginnings
import h11
import pytest

from dbproxy.errors import ClientError, Code, DBProxyError, IdentityError, UpstreamError
from dbproxy.protocols import protocol_named
from dbproxy.protocols.wire import Wire
from dbproxy.protocols.wire.http import HTTPWire
from dbproxy.settings import Mode

WIRE = HTTPWire()
DOWN = UpstreamError(Code.UPSTREAM_UNREACHABLE, "no connection to teleport.example.com:443")
TEXT = (
    "dbproxy: no connection to teleport.example.com:443 [upstream-unreachable]. "
    + DOWN.problem.client_hint
)


def read(answer: bytes, *, method: str = "GET") -> tuple[int, dict[str, str], str]:
    """Status, headers and body."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "localhost")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    client.receive_data(b"")
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    headers = {name.decode(): value.decode() for name, value in response.headers}
    assert headers["connection"] == "close"
    return response.status_code, headers, body.decode()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DOWN, 502),
        (UpstreamError(Code.CERTIFICATE_REJECTED, "x"), 403),
        (IdentityError(Code.CERTIFICATE_EXPIRED, "x"), 503),
        (ClientError(Code.CLIENT_CERTIFICATE_WRONG_SERVICE, "x"), 403),
        (ClientError(Code.CLIENT_NOT_TLS, "x"), 400),
        (ClientError(Code.CLIENT_STALLED, "x"), 408),
        (DBProxyError(Code.INTERNAL_ERROR, "x"), 500),
    ],
)
def test_the_status_is_of_the_errors_sort(error: DBProxyError, status: int) -> None:
    assert read(WIRE.refusal(beginnings.HTTP, error))[0] == status


def test_people_get_a_text() -> None:
    status, headers, body = read(WIRE.refusal(beginnings.HTTP, DOWN))
    assert (status, body) == (502, TEXT + "\n")
    assert headers["content-type"] == "text/plain; charset=utf-8"


def test_a_head_request_gets_no_body() -> None:
    answer = WIRE.refusal(b"HEAD / HTTP/1.1\r\n\r\n", DOWN)
    assert answer.endswith(b"\r\n\r\n")
    assert read(answer, method="HEAD")[2] == ""


def answer_of(name: str) -> tuple[int, dict[str, str], str]:
    prologue = protocol_named(name).prologue(Mode.TUNNEL)
    prologue.receive(beginnings.HTTP)
    return read(prologue.refusal(DOWN))


def json_of(name: str) -> Any:
    return json.loads(answer_of(name)[2])


@pytest.mark.parametrize("name", ["elasticsearch", "opensearch"])
def test_search_engines_have_a_reason_and_a_type(name: str) -> None:
    cause = {"type": "upstream-unreachable", "reason": TEXT}
    assert json_of(name) == {"error": {**cause, "root_cause": [cause]}, "status": 502}


def test_aws_has_a_type_and_a_message() -> None:
    assert json_of("dynamodb") == {"__type": "dbproxy#upstream-unreachable", "message": TEXT}


def test_snowflake_has_success_and_a_message() -> None:
    document = json_of("snowflake")
    assert document["success"] is False
    assert document["message"] == TEXT


def test_clickhouse_has_a_number_and_a_text() -> None:
    _, headers, body = answer_of("clickhouse-http")
    assert headers["x-clickhouse-exception-code"] == "210"
    assert body == f"Code: 210. DB::Exception: {TEXT}\n"


@pytest.mark.parametrize(
    "sent", [b"GET", b"GET ", b"", b"PATC", b"OPTIONS ", b"GET h", b"GET HTTPS:/"]
)
def test_a_part_of_a_request_line_does_not_tell_yet(sent: bytes) -> None:
    wire: Wire = WIRE
    assert wire.begins(sent) is None


@pytest.mark.parametrize(
    "sent", [b"GET /", b"OPTIONS *", b"CONNECT x:1", b"PUT http://x/", b"OPTIONS HTTPS://x/"]
)
def test_a_method_and_a_target_are_a_beginning(sent: bytes) -> None:
    assert WIRE.begins(sent) is True


@pytest.mark.parametrize(
    "sent", [b"get /", b"GET  /", b"BREW /", b"G\0", b"GET \r", b" ", b"GET hello", b"GET http\r"]
)
def test_other_lines_are_no_beginning(sent: bytes) -> None:
    wire: Wire = WIRE
    assert wire.begins(sent) is False
