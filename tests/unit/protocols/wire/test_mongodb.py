"""MongoDB: the answer to a driver's first message, of its own kind, as PyMongo reads it."""

import struct
from typing import Any

import beginnings
import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.errors import ClientError, Code, DBProxyError, IdentityError, UpstreamError
from dbproxy.protocols.wire.mongodb import MongoDBWire

WIRE = MongoDBWire()
DOWN = UpstreamError(Code.UPSTREAM_UNREACHABLE, "no connection to teleport.example.com:443")


def reply_to(request: bytes, error: DBProxyError = DOWN) -> tuple[int, int, dict[str, Any]]:
    """responseTo, the operation and the document of the answer."""
    answer = WIRE.refusal(request, error)
    length, _, response_to, operation = struct.unpack_from("<iiii", answer)
    assert length == len(answer)
    if operation == 2013:
        assert answer[16:21] == bytes(5)  # no flags, a section of kind 0
        return response_to, operation, bson.decode(answer[21:])
    flags, cursor, start, count = struct.unpack_from("<iqii", answer, 16)
    assert (flags, cursor, start, count) == (0, 0, 0, 1)
    return response_to, operation, bson.decode(answer[36:])


@pytest.mark.parametrize(
    ("request_bytes", "operation"),
    [
        (beginnings.MONGODB, 2013),
        (beginnings.MONGODB_QUERY, 1),
        (beginnings.mongodb(2012, bytes(40)), 2013),
    ],
    ids=["OP_MSG", "OP_QUERY", "OP_COMPRESSED"],
)
def test_a_request_is_answered_in_its_own_kind(request_bytes: bytes, operation: int) -> None:
    response_to, answered, document = reply_to(request_bytes)
    assert response_to == 0x1234
    assert answered == operation
    assert document["ok"] == 0.0
    assert document["code"] == 6
    assert document["codeName"] == "HostUnreachable"
    assert document["errmsg"].startswith("dbproxy: no connection to teleport.example.com:443 [")
    assert DOWN.problem.client_hint in document["errmsg"]


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (DOWN, "HostUnreachable"),
        (UpstreamError(Code.CERTIFICATE_REJECTED, "x"), "AuthenticationFailed"),
        (IdentityError(Code.CERTIFICATE_EXPIRED, "x"), "HostUnreachable"),
        (ClientError(Code.CLIENT_CERTIFICATE_MISSING, "x"), "AuthenticationFailed"),
        (ClientError(Code.CLIENT_NOT_TLS, "x"), "ProtocolError"),
        (ClientError(Code.CLIENT_STALLED, "x"), "ProtocolError"),
        (DBProxyError(Code.INTERNAL_ERROR, "x"), "InternalError"),
    ],
)
def test_the_name_of_the_error_is_of_its_sort(error: DBProxyError, name: str) -> None:
    assert reply_to(beginnings.MONGODB, error)[2]["codeName"] == name


@given(st.integers(-(2**31), 2**31 - 1))
def test_whatever_the_number_of_the_request_it_is_named(request_id: int) -> None:
    request = beginnings.mongodb(2013, bytes(20), request_id=request_id)
    assert reply_to(request)[0] == request_id


@pytest.mark.parametrize("size", range(16))
def test_half_a_header_cannot_be_answered(size: int) -> None:
    assert WIRE.refusal(beginnings.MONGODB[:size], DOWN) == b""


@pytest.mark.parametrize("length", [-1, 0, 16, 20, 65536, 2**31 - 1])
def test_a_hostile_length_is_no_beginning(length: int) -> None:
    assert WIRE.begins(struct.pack("<iiii", length, 1, 0, 2013)) is False


@given(st.binary(max_size=40))
def test_whatever_is_sent_an_answer_is_whole_or_none(data: bytes) -> None:
    answer = WIRE.refusal(data, DOWN)
    assert bool(answer) == bool(WIRE.begins(data))
