"""HTTP/2: each request is answered, as the h2 library reads it, however the frames are cut."""

import beginnings
import h2.connection
import h2.events
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.errors import Code, UpstreamError
from dbproxy.protocols.wire.http2 import HTTP2Wire

WIRE = HTTP2Wire()
DOWN = UpstreamError(Code.UPSTREAM_UNREACHABLE, "no connection: 100 % of “them” refused")
REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/google.spanner.v1.Spanner/CreateSession"),
    (":authority", "localhost"),
]


def ask(*, requests: int = 1) -> tuple[h2.connection.H2Connection, bytes]:
    """A client, and what it sends until its last request has ended."""
    client = h2.connection.H2Connection()
    client.initiate_connection()
    for stream in range(1, 2 * requests, 2):
        client.send_headers(stream, REQUEST)
        client.send_data(stream, b"\0\0\0\0\5hello", end_stream=True)
    return client, client.data_to_send()


def converse(sent: bytes, *cuts: int) -> bytes:
    """What a client gets that sends `sent` in pieces; the first piece has the preface."""
    first = max(cuts[0] if cuts else len(sent), len(beginnings.HTTP2_PREFACE))
    answer = WIRE.refusal(sent[:first], DOWN)
    answering = WIRE.further(sent[:first], DOWN)
    for start, end in zip((first, *cuts[1:]), (*cuts[1:], len(sent)), strict=True):
        answer += answering(sent[start:end])
    return answer


def headers_in(client: h2.connection.H2Connection, answer: bytes) -> dict[int, dict[str, str]]:
    """The headers of each stream's response."""
    found: dict[int, dict[str, str]] = {}
    for event in client.receive_data(answer):
        if isinstance(event, h2.events.ResponseReceived):
            assert event.stream_ended is not None
            pairs = ((_text(name), _text(value)) for name, value in event.headers)
            found[event.stream_id] = dict(pairs)
    return found


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize("cut", range(24, 130))
def test_a_request_is_answered_however_it_is_cut(cut: int) -> None:
    client, sent = ask()
    headers = headers_in(client, converse(sent, min(cut, len(sent))))[1]
    assert headers[":status"] == "502"
    assert headers["grpc-status"] == "14"
    message = headers["grpc-message"]
    assert message.startswith("dbproxy: no connection: 100 %25 of %E2%80%9Cthem%E2%80%9D refused [")
    assert message.endswith(f"[upstream-unreachable]. {DOWN.problem.client_hint}")


def test_byte_by_byte_it_is_answered_too() -> None:
    client, sent = ask()
    assert list(headers_in(client, converse(sent, *range(24, len(sent))))) == [1]


def test_each_of_many_requests_is_answered() -> None:
    _, sent = ask(requests=3)
    answer = WIRE.refusal(sent, DOWN)
    assert answer.count(b"grpc-message") == 3


def test_who_has_not_asked_yet_is_only_greeted() -> None:
    answer = WIRE.refusal(beginnings.HTTP2, DOWN)
    assert answer == b"\0\0\0\4\0\0\0\0\0" + b"\0\0\0\4\1\0\0\0\0"


@given(st.binary(max_size=200), st.integers(0, 200))
def test_hostile_frames_are_passed_over_without_being_kept(data: bytes, cut: int) -> None:
    whole = WIRE.refusal(beginnings.HTTP2_PREFACE + data, DOWN)
    pieces = WIRE.refusal(beginnings.HTTP2_PREFACE + data[:cut], DOWN)
    pieces += WIRE.further(beginnings.HTTP2_PREFACE + data[:cut], DOWN)(data[cut:])
    assert pieces == whole
