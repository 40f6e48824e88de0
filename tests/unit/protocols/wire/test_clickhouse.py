"""ClickHouse: the Exception that answers a Hello, as clickhouse-driver reads it."""

import socket
from typing import Any

import beginnings
import pytest
from clickhouse_driver.bufferedreader import BufferedSocketReader
from clickhouse_driver.readhelpers import read_exception
from clickhouse_driver.varint import read_varint
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.errors import ClientError, Code, DBProxyError, UpstreamError
from dbproxy.protocols.wire.clickhouse import ClickHouseWire

WIRE = ClickHouseWire()
DOWN = UpstreamError(Code.UPSTREAM_UNREACHABLE, "no connection to teleport.example.com:443")


def read(answer: bytes) -> Any:
    """The exception that the driver raises."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(answer)
        ours.shutdown(socket.SHUT_WR)
        reader = BufferedSocketReader(theirs, 65536)
        assert read_varint(reader) == 2
        exception = read_exception(reader)
        assert theirs.recv(1) == b""
    return exception


@pytest.mark.parametrize("length", [1, 50, 127, 128, 300, 3_900])
def test_the_driver_reads_code_and_text(length: int) -> None:
    exception = read(WIRE.refusal(beginnings.CLICKHOUSE, UpstreamError(DOWN.code, "x" * length)))
    assert exception.code == 210
    assert exception.nested is None
    expected = f"dbproxy: {'x' * length} [upstream-unreachable]. {DOWN.problem.client_hint}"
    assert exception.message.startswith(expected)


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (DOWN, 210),
        (ClientError(Code.CLIENT_CERTIFICATE_MISSING, "x"), 516),
        (ClientError(Code.CLIENT_NOT_TLS, "x"), 101),
        (ClientError(Code.CLIENT_STALLED, "x"), 209),
        (DBProxyError(Code.INTERNAL_ERROR, "x"), 1001),
    ],
)
def test_the_number_is_of_the_errors_sort(error: DBProxyError, number: int) -> None:
    assert read(WIRE.refusal(beginnings.CLICKHOUSE, error)).code == number


@pytest.mark.parametrize(
    "sent", [b"\1\5hello", b"\0\0", b"\0\x80\1", b"\0\5he\x01lo", b"\0\1\0", b"\2"]
)
def test_other_packets_are_no_beginning(sent: bytes) -> None:
    assert WIRE.begins(sent) is False


@given(st.binary(max_size=8))
def test_a_few_bytes_decide(data: bytes) -> None:
    assert len(data) < 5 or WIRE.begins(data) is not None
