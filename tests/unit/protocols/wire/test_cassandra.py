"""Cassandra: the ERROR frame in the client's version, as the DataStax driver reads it."""

import struct
from typing import Any

import beginnings
import pytest
from cassandra.protocol import ErrorMessage
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.errors import ClientError, Code, DBProxyError, UpstreamError
from dbproxy.protocols.wire.cassandra import CassandraWire

WIRE = CassandraWire()
DOWN = UpstreamError(Code.UPSTREAM_UNREACHABLE, "no connection to teleport.example.com:443")
WRONG = ClientError(Code.CLIENT_CERTIFICATE_MISSING, "no certificate")


def options(version: int, stream: int) -> bytes:
    """An OPTIONS request."""
    shape = ">BBbBi" if version < 3 else ">BBhBi"
    return struct.pack(shape, version, 0, stream, 5, 0)


def read(answer: bytes) -> tuple[int, int, int, str]:
    """Version, stream, code and message of an ERROR frame."""
    version = answer[0] & 0x7F
    shape = ">BBbBi" if version < 3 else ">BBhBi"
    first, flags, stream, opcode, length = struct.unpack_from(shape, answer)
    body = answer[struct.calcsize(shape) :]
    assert (first & 0x80, flags, opcode, length) == (0x80, 0, 0, len(body))
    message: Any = ErrorMessage.recv_body(_Reader(body), version, None, None, None)
    return version, stream, message.code, message.message


class _Reader:
    """A file of bytes, as the driver wants it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int) -> bytes:
        taken, self._data = self._data[:size], self._data[size:]
        return taken


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6, 0x41, 0x42])
@pytest.mark.parametrize("stream", [0, 1, 127, -1])
def test_the_answer_is_in_the_clients_version_and_on_its_stream(version: int, stream: int) -> None:
    answered, on, code, message = read(WIRE.refusal(options(version, stream), DOWN))
    assert (answered, on, code) == (version, stream, 0)
    assert message.startswith("dbproxy: no connection to teleport.example.com:443 [upstream-unr")
    assert message.endswith(DOWN.problem.client_hint)


@pytest.mark.parametrize(
    ("error", "code"),
    [(DOWN, 0), (WRONG, 0x100), (ClientError(Code.CLIENT_NOT_TLS, "no TLS"), 0)],
)
def test_credentials_are_told_from_the_rest(error: DBProxyError, code: int) -> None:
    assert read(WIRE.refusal(beginnings.CASSANDRA_STARTUP, error))[2] == code


def test_a_long_text_is_cut() -> None:
    endless = UpstreamError(Code.UPSTREAM_UNREACHABLE, "é" * 70_000)
    frame = WIRE.refusal(beginnings.CASSANDRA, endless)
    text = frame[9 + 4 + 2 :].decode()
    assert len(text.encode()) == int.from_bytes(frame[13:15], "big") <= 4096
    assert text.startswith("dbproxy: éé")
    assert text.endswith(f"é... [upstream-unreachable]. {endless.problem.client_hint}")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\0\0\0\5\0\0\0\0",  # no version
        b"\x84\0\0\0\5\0\0\0\0",  # an answer
        b"\x04\x20\0\0\5\0\0\0\0",  # a flag that nobody has
        b"\x04\0\0\0\7\0\0\0\5",  # a QUERY
        b"\x04\0\0\0\5\0\0\0\1",  # OPTIONS with a body
        b"\x04\0\0\0\1\x7f\xff\xff\xff",  # a gigantic STARTUP
        b"\x04\0\0\0\1\0\0\0\0",  # an empty one
    ],
)
def test_other_frames_are_no_beginning(sent: bytes) -> None:
    assert WIRE.begins(sent) is False
    assert WIRE.refusal(sent, DOWN) == b""


@given(st.binary(max_size=16))
def test_whatever_is_sent_an_answer_is_whole_or_none(data: bytes) -> None:
    answer = WIRE.refusal(data, DOWN)
    assert bool(answer) == bool(WIRE.begins(data))
