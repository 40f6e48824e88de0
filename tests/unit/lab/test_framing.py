from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.lab.framing import MAX_PAYLOAD_SIZE, PING, FrameDecoder, encode_frame

FRAMES = st.lists(st.binary(max_size=40), max_size=12)


def framed(payloads: list[bytes]) -> bytes:
    return b"".join(struct.pack("!I", len(payload)) + payload for payload in payloads)


def test_a_frame_is_a_big_endian_length_and_the_payload() -> None:
    assert encode_frame(b"hello") == b"\0\0\0\5hello"


def test_an_empty_write_is_no_ping() -> None:
    assert encode_frame(b"") == b""
    assert PING == b"\0\0\0\0"


def test_a_payload_beyond_32_bits_is_refused() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return MAX_PAYLOAD_SIZE + 1

    with pytest.raises(ValueError, match="invalid content size"):
        encode_frame(Huge(b"x"))


@given(payloads=FRAMES, data=st.data())
def test_payload_survives_any_split_and_pings_vanish(
    payloads: list[bytes], data: st.DataObject
) -> None:
    stream = framed(payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    decoder = FrameDecoder()
    assert b"".join(map(decoder.feed, pieces)) == b"".join(payloads)
    assert decoder.pings == payloads.count(b"")
    assert not decoder.inside_frame


def test_payload_is_handed_out_before_its_frame_is_complete() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(b"\xff\xff\xff\xffabc") == b"abc"
    assert decoder.inside_frame
    assert decoder.feed(b"def") == b"def"


@pytest.mark.parametrize("end", range(1, 9))
def test_an_end_inside_a_frame_is_noticed(end: int) -> None:
    decoder = FrameDecoder()
    decoder.feed(framed([b"12345"])[:end])
    assert decoder.inside_frame


@given(data=st.binary(max_size=200))
def test_any_bytes_are_some_stream(data: bytes) -> None:
    whole, piecewise = FrameDecoder(), FrameDecoder()
    payload = whole.feed(data)
    assert b"".join(piecewise.feed(data[i : i + 1]) for i in range(len(data))) == payload
    assert (whole.pings, whole.inside_frame) == (piecewise.pings, piecewise.inside_frame)
