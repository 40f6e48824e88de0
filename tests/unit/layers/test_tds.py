"""TLS records in TDS packets until the handshake is over."""

import struct
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.layers import LayerError, TDSHandshakeError, TDSHandshakeLayer, TruncatedError

RECORD = b"\x16\x03\x03\x00\x05hello"


def packed(payload: bytes, *, last: bool = True) -> bytes:
    return struct.pack(">BBH4x", 0x12, int(last), 8 + len(payload)) + payload


def received(layer: TDSHandshakeLayer, pieces: Sequence[bytes]) -> bytes:
    return b"".join(layer.receive(piece) for piece in pieces)


def test_what_is_sent_is_packed_until_the_handshake_is_over() -> None:
    layer = TDSHandshakeLayer()
    layer.start()
    layer.send(RECORD)
    out = layer.outgoing()
    assert out[:4] == struct.pack(">BBH", 0x12, 1, 8 + len(RECORD))
    assert out[8:] == RECORD
    layer.finish()
    layer.send(RECORD)
    assert layer.outgoing() == RECORD
    assert layer.outgoing() == b""


@pytest.mark.parametrize("size", [1, 4087, 4088, 4089, 20_000])
def test_a_long_flight_is_several_packets_of_which_the_last_one_says_so(size: int) -> None:
    layer, flight = TDSHandshakeLayer(), bytes(range(256)) * 80
    layer.send(flight[:size])
    out, payload, statuses = layer.outgoing(), b"", []
    while out:
        kind, status, length, number = struct.unpack(">BBHxxBx", out[:8])
        assert kind == 0x12
        assert length <= 4096
        payload += out[8:length]
        statuses.append(status)
        assert number == len(statuses)
        out = out[length:]
    assert payload == flight[:size]
    assert statuses == [0] * (len(statuses) - 1) + [1]


@pytest.mark.parametrize("size", [1, 3, 8, 9, 1000])
def test_what_is_received_is_unpacked_and_then_left_alone(size: int) -> None:
    wire = packed(RECORD, last=False) + packed(b"") + packed(RECORD) + RECORD + b"\x12\0\0\0 data"
    pieces = [wire[i : i + size] for i in range(0, len(wire), size)]
    assert received(TDSHandshakeLayer(), pieces) == RECORD * 3 + b"\x12\0\0\0 data"


@given(st.lists(st.binary(min_size=1, max_size=9000), max_size=4), st.lists(st.integers(0)))
def test_one_end_understands_the_other(flights: list[bytes], cuts: list[int]) -> None:
    one, other = TDSHandshakeLayer(), TDSHandshakeLayer()
    for flight in flights:
        one.send(flight)
    wire = one.outgoing()
    edges = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    assert received(other, [wire[a:b] for a, b in pairwise(edges)]) == b"".join(flights)
    other.receive_eof()


@given(st.lists(st.binary(max_size=50), max_size=6))
def test_any_bytes_are_unpacked_or_refused(pieces: list[bytes]) -> None:
    layer = TDSHandshakeLayer()
    try:
        out = received(layer, pieces)
    except LayerError:
        return
    assert len(out) <= sum(map(len, pieces))


@pytest.mark.parametrize("length", range(8))
def test_an_impossible_length_is_refused(length: int) -> None:
    with pytest.raises(TDSHandshakeError, match=f"of {length} bytes"):
        TDSHandshakeLayer().receive(struct.pack(">BBH4x", 0x12, 1, length))


def test_an_end_inside_of_a_packet_is_one_too_early() -> None:
    layer = TDSHandshakeLayer()
    layer.receive(packed(RECORD)[:-1])
    with pytest.raises(TruncatedError):
        layer.receive_eof()


def test_it_has_no_handshake_and_no_end_of_its_own() -> None:
    layer = TDSHandshakeLayer()
    assert not layer.handshaking
    assert not layer.ended
    assert not layer.announces_end
    layer.send_eof()
    assert layer.outgoing() == b""
