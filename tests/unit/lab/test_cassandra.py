"""The lab's stand-in for Cassandra."""

import struct

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.lab.cassandra import Cassandra
from dbproxy.lab.cassandrawire import (
    ERROR,
    HEADER,
    MAX_BODY,
    OPTIONS,
    QUERY,
    READY,
    REGISTER,
    RESPONSE,
    RESULT,
    STARTUP,
    SUPPORTED,
    CassandraWireError,
    Frame,
    FrameBuffer,
)

NODE = Cassandra({"greetings": ["hello", "grüß Gott"]})


def request(opcode: int, body: bytes = b"", *, version: int = 4, stream: int = 7) -> bytes:
    return HEADER.pack(version, 0, stream, opcode, len(body)) + body


def query(cql: str) -> Frame:
    text = cql.encode()
    return Frame(4, 7, QUERY, struct.pack(">i", len(text)) + text + b"\0\x01\0")


def opcode_of(answer: bytes) -> int:
    version, _, stream, opcode, size = HEADER.unpack_from(answer)
    assert (version, stream, size) == (4 | RESPONSE, 7, len(answer) - HEADER.size)
    return int(opcode)


@given(st.integers(1, 40))
def test_frames_are_read_wherever_they_are_cut(size: int) -> None:
    sent = request(OPTIONS) + request(STARTUP, b"some body") + b"\x04"
    buffer, frames = FrameBuffer(), []
    for start in range(0, len(sent), size):
        buffer.feed(sent[start : start + size])
        while (frame := buffer.pop()) is not None:
            frames.append(frame)
    assert frames == [Frame(4, 7, OPTIONS, b""), Frame(4, 7, STARTUP, b"some body")]


@pytest.mark.parametrize(
    "header", [HEADER.pack(0x84, 0, 0, OPTIONS, 0), HEADER.pack(4, 0, 0, OPTIONS, MAX_BODY + 1)]
)
def test_answers_and_hostile_lengths_are_refused(header: bytes) -> None:
    buffer = FrameBuffer()
    buffer.feed(header)
    with pytest.raises(CassandraWireError):
        buffer.pop()


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_frames_or_refused(data: bytes) -> None:
    buffer = FrameBuffer()
    buffer.feed(data)
    try:
        while (frame := buffer.pop()) is not None:
            if frame.opcode != QUERY:
                NODE.answer(frame)
    except CassandraWireError:
        return


@pytest.mark.parametrize("body", [b"", struct.pack(">i", 10) + b"SELECT"])
def test_a_query_shorter_than_it_says_is_refused(body: bytes) -> None:
    with pytest.raises(CassandraWireError):
        Frame(4, 0, QUERY, body).query()


@pytest.mark.parametrize(
    ("opcode", "expected"),
    [(OPTIONS, SUPPORTED), (STARTUP, READY), (REGISTER, READY), (0x0A, ERROR)],
)
def test_what_drivers_begin_with_is_answered(opcode: int, expected: int) -> None:
    assert opcode_of(NODE.answer(Frame(4, 7, opcode, b""))) == expected


def test_newer_versions_are_told_which_there_are() -> None:
    answer = NODE.answer(Frame(5, 7, OPTIONS, b""))
    assert opcode_of(answer) == ERROR
    assert b"the greatest is 4" in answer


@pytest.mark.parametrize(
    ("cql", "expected", "part"),
    [
        ("SELECT words FROM greetings", RESULT, "grüß Gott"),
        ("SELECT * FROM system.local WHERE key='local'", RESULT, "dbproxy lab"),
        ("SELECT * FROM system.peers", RESULT, "peers"),
        ("SELECT words FROM nothing", ERROR, "unconfigured table nothing"),
        ("DROP TABLE greetings", ERROR, "SELECT … FROM … only"),
    ],
)
def test_queries(cql: str, expected: int, part: str) -> None:
    answer = NODE.answer(query(cql))
    assert opcode_of(answer) == expected
    assert part.encode() in answer


async def test_a_client_is_served_to_its_end() -> None:
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery, far:
        nursery.start_soon(NODE.serve, near)
        await far.send_all(request(STARTUP))
        assert opcode_of(bytes(await far.receive_some())) == READY
        await far.send_all(b"\xff" * HEADER.size)
        assert await far.receive_some() == b""
