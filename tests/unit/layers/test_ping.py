"""Ping framing: what is sent, what is received however it is split, and hostile lengths."""

import mmap
import struct
import tracemalloc
from itertools import chain
from pathlib import Path

import pytest
from cuts import cut_at
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.layers import PingError, PingLayer, TruncatedError

PING = bytes(4)
GIGANTIC = struct.pack("!I", 2**32 - 1)
KIB = 1024

payloads = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


def frame(payload: bytes) -> bytes:
    return struct.pack("!I", len(payload)) + payload


def test_what_is_sent_is_a_length_in_network_order_and_the_bytes() -> None:
    layer = PingLayer()
    layer.send(b"SELECT 1")
    assert layer.outgoing() == b"\x00\x00\x00\x08SELECT 1"
    assert layer.outgoing() == b""


def test_header_and_payload_leave_in_one_piece() -> None:
    layer = PingLayer()
    layer.send(b"one")
    layer.send(bytearray(b"two"))
    layer.send(memoryview(b"three"))
    assert layer.outgoing() == frame(b"one") + frame(b"two") + frame(b"three")


def test_sending_nothing_sends_nothing_because_an_empty_frame_would_be_a_ping() -> None:
    layer = PingLayer()
    layer.send(b"")
    assert layer.outgoing() == b""


def test_a_sent_buffer_may_be_reused_at_once() -> None:
    layer = PingLayer()
    buffer = bytearray(b"good")
    layer.send(buffer)
    buffer[:] = b"evil"
    assert layer.outgoing() == frame(b"good")


def test_there_is_no_handshake_and_no_end_mark() -> None:
    layer = PingLayer()
    layer.start()
    layer.send_eof()
    assert layer.outgoing() == b""
    assert not layer.handshaking
    layer.receive_eof()
    assert not layer.ended


@given(payloads)
def test_what_one_layer_sends_another_one_receives(messages: list[bytes]) -> None:
    sender, receiver = PingLayer(), PingLayer()
    for message in messages:
        sender.send(message)
    assert receiver.receive(sender.outgoing()) == b"".join(messages)
    assert receiver.pings_received == 0
    receiver.receive_eof()


@given(payloads, st.lists(st.integers(0, 3)), st.lists(st.integers(0, 400), max_size=6))
def test_pings_anywhere_and_cuts_anywhere_change_nothing(
    messages: list[bytes], pings: list[int], cuts: list[int]
) -> None:
    pings = (pings + [0] * len(messages))[: len(messages)]
    pieces = (
        (PING * count, frame(message)) for count, message in zip(pings, messages, strict=True)
    )
    wire = b"".join(chain.from_iterable(pieces)) + PING
    layer = PingLayer()
    assert b"".join(map(layer.receive, cut_at(wire, cuts))) == b"".join(messages)
    assert layer.pings_received == sum(pings) + 1
    layer.receive_eof()


def test_every_place_to_cut_gives_the_same_bytes() -> None:
    wire = PING + frame(b"SELECT 1") + PING + PING + frame(b"x") + frame(b"\0" * 5)
    for cut in range(len(wire) + 1):
        layer = PingLayer()
        assert layer.receive(wire[:cut]) + layer.receive(wire[cut:]) == b"SELECT 1x" + b"\0" * 5
        assert layer.pings_received == 3


def test_one_byte_after_the_other_gives_the_same_bytes() -> None:
    wire = PING + frame(b"SELECT 1") + PING + frame(b"x")
    layer = PingLayer()
    assert b"".join(layer.receive(bytes([byte])) for byte in wire) == b"SELECT 1x"
    assert layer.pings_received == 2


def test_bytes_of_an_unfinished_frame_are_handed_on_at_once() -> None:
    layer = PingLayer()
    assert layer.receive(GIGANTIC + b"first") == b"first"
    assert layer.receive(b"second") == b"second"


def test_a_gigantic_length_costs_no_memory() -> None:
    layer = PingLayer()
    piece = bytes(64 * KIB)
    tracemalloc.start()
    try:
        layer.receive(GIGANTIC)
        for _ in range(64):
            layer.receive(piece)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(piece)


def test_a_flood_of_pings_leaves_nothing_behind() -> None:
    layer = PingLayer()
    flood = PING * (8 * KIB)
    tracemalloc.start()
    try:
        assert layer.receive(flood) == b""
        left, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < KIB
    assert layer.pings_received == 8 * KIB


@pytest.mark.parametrize("wire", [b"\0", b"\0\0\0", frame(b"abc")[:-1], GIGANTIC, PING + b"\0"])
def test_an_end_inside_a_frame_is_truncation(wire: bytes) -> None:
    layer = PingLayer()
    layer.receive(wire)
    with pytest.raises(TruncatedError, match="in the middle of a ping frame"):
        layer.receive_eof()


@pytest.mark.parametrize("wire", [b"", PING, frame(b"abc"), PING + frame(b"abc") + PING])
def test_an_end_between_frames_is_an_end(wire: bytes) -> None:
    layer = PingLayer()
    layer.receive(wire)
    layer.receive_eof()


@given(st.binary(max_size=200), st.lists(st.integers(0, 400), max_size=6))
def test_any_bytes_at_all_mean_the_same_in_one_piece_and_in_many(
    wire: bytes, cuts: list[int]
) -> None:
    whole, pieces = PingLayer(), PingLayer()
    assert b"".join(map(pieces.receive, cut_at(wire, cuts))) == whole.receive(wire)
    assert pieces.pings_received == whole.pings_received


def test_more_than_a_frame_can_carry_is_refused(tmp_path: Path) -> None:
    layer = PingLayer()
    with (tmp_path / "sparse").open("w+b") as file:
        file.truncate(2**32)
        with (
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as too_much,
            memoryview(too_much) as view,
            pytest.raises(PingError, match="more bytes at once"),
        ):
            layer.send(view)
    assert layer.outgoing() == b""
