from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from upgraded_client import frame

from dbproxy.lab.websocket import (
    Control,
    Data,
    FrameEvent,
    FrameReader,
    Opcode,
    accept_value,
    encode_frame,
)

KEYS = st.binary(min_size=4, max_size=4)
FRAMES = st.lists(st.tuples(st.binary(max_size=300), KEYS), max_size=8)


def payload_of(events: list[FrameEvent]) -> bytes:
    return b"".join(event.payload for event in events if isinstance(event, Data))


def test_the_accept_value_is_that_of_the_rfc() -> None:
    assert accept_value(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65535, b"\x82\x7e\xff\xff"),
        (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_a_servers_frame_is_not_masked_and_has_the_shortest_length(size: int, head: bytes) -> None:
    assert encode_frame(Opcode.BINARY, bytes(size)) == head + bytes(size)


@given(frames=FRAMES, data=st.data())
def test_payload_survives_any_split_and_any_key(
    frames: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(frame(2, payload, key=key) for payload, key in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    reader = FrameReader()
    received = b"".join(payload_of(reader.feed(piece)) for piece in pieces)
    assert received == b"".join(payload for payload, _ in frames)
    assert not reader.violations
    assert not reader.inside_frame
    assert reader.binary_frames == len(frames)


def test_a_server_that_does_not_unmask_needs_the_zero_key() -> None:
    reader = FrameReader(unmask=False)
    assert payload_of(reader.feed(frame(2, b"hello"))) == b"hello"
    assert reader.zero_keys_only
    assert payload_of(reader.feed(frame(2, b"hello", key=b"\1\1\1\1"))) == b"idmmn"
    assert not reader.zero_keys_only


@pytest.mark.parametrize(
    ("wire", "violation"),
    [
        (frame(2, b"x", key=None), "opcode 2 is not masked"),
        (frame(2, b"x", fin=False), "opcode 2 is fragmented"),
        (frame(1, b"x"), "opcode 1 is not one that clients send"),
        (frame(0, b"x"), "opcode 0 is not one that clients send"),
        (frame(9, b"x"), "opcode 9 is not one that clients send"),
        (b"\xc2\x80\0\0\0\0", "reserved bits"),
        (b"\x82\xfe\x00\x01\0\0\0\0x", "shortest form"),
        (frame(10, bytes(126)), "126 bytes long"),
    ],
)
def test_what_clients_should_not_do_is_noted(wire: bytes, violation: str) -> None:
    reader = FrameReader()
    reader.feed(wire)
    assert len(reader.violations) == 1
    assert violation in reader.violations[0]
    assert payload_of(reader.feed(frame(2, b"next"))) == b"next"


def test_control_frames_come_whole_and_others_are_dropped() -> None:
    wire = frame(10, b"teleport") + frame(0, b"dropped") + frame(1, b"dropped") + frame(8, b"")
    reader = FrameReader()
    events = [event for i in range(len(wire)) for event in reader.feed(wire[i : i + 1])]
    assert events == [Control(Opcode.PONG, b"teleport"), Control(Opcode.CLOSE, b"")]


def test_a_hostile_length_is_not_waited_for() -> None:
    reader = FrameReader()
    head = b"\x82\xff" + b"\xff" * 8 + bytes(4)
    assert reader.feed(head + b"abc") == [Data(b"abc")]
    assert reader.inside_frame


@given(data=st.binary(max_size=200))
def test_any_bytes_are_some_stream(data: bytes) -> None:
    whole, piecewise = FrameReader(), FrameReader()
    payload = payload_of(whole.feed(data))
    pieces = (payload_of(piecewise.feed(data[i : i + 1])) for i in range(len(data)))
    assert b"".join(pieces) == payload
    assert (whole.violations, whole.inside_frame) == (piecewise.violations, piecewise.inside_frame)
