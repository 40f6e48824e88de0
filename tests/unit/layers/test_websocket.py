"""WebSocket frames: what is sent, what is received however it is split, and hostile frames."""

import struct
import tracemalloc

import pytest
from cuts import cut_at
from hypothesis import given
from hypothesis import strategies as st
from websocket_frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

from dbproxy.layers import TruncatedError, WebSocketError, WebSocketLayer

KIB = 1024
GIGANTIC = b"\x82\x7f" + struct.pack("!Q", 2**63 - 1)
KEY = b"\x01\x80\xff\x37"
DROPPED = [CONTINUATION, TEXT, 0x3, 0x7, PONG, 0xB, 0xF]

opcodes = st.sampled_from([BINARY, BINARY, PING, *DROPPED])
keys = st.one_of(st.none(), st.binary(min_size=4, max_size=4))
frames = st.lists(st.tuples(opcodes, st.binary(max_size=125), keys), max_size=8)


def sent_by(layer: WebSocketLayer, data: bytes) -> bytes:
    layer.send(data)
    return layer.outgoing()


class TestSending:
    """One unfragmented, masked, binary frame each, whose masking key changes nothing."""

    def test_a_frame_as_a_server_that_does_not_unmask_can_read_it(self) -> None:
        layer = WebSocketLayer()
        assert sent_by(layer, b"SELECT 1") == b"\x82\x88\0\0\0\0SELECT 1"
        assert layer.outgoing() == b""

    @pytest.mark.parametrize(
        ("size", "length"),
        [
            (1, b"\x81"),
            (125, b"\xfd"),
            (126, b"\xfe\x00\x7e"),
            (65535, b"\xfe\xff\xff"),
            (65536, b"\xff" + struct.pack("!Q", 65536)),
        ],
    )
    def test_each_of_the_three_forms_of_a_length(self, size: int, length: bytes) -> None:
        assert sent_by(WebSocketLayer(), b"x" * size) == b"\x82" + length + bytes(4) + b"x" * size

    def test_each_send_is_a_frame_whatever_the_kind_of_its_buffer(self) -> None:
        layer = WebSocketLayer()
        layer.send(b"one")
        layer.send(bytearray(b"two"))
        layer.send(memoryview(b"three"))
        expected = (frame(BINARY, data, key=bytes(4)) for data in (b"one", b"two", b"three"))
        assert layer.outgoing() == b"".join(expected)

    def test_a_sent_buffer_may_be_reused_at_once(self) -> None:
        layer = WebSocketLayer()
        buffer = bytearray(b"good")
        layer.send(buffer)
        buffer[:] = b"evil"
        assert layer.outgoing().endswith(b"good")

    def test_sending_nothing_sends_nothing(self) -> None:
        assert sent_by(WebSocketLayer(), b"") == b""

    def test_there_is_no_handshake_and_no_end_mark_of_ours(self) -> None:
        layer = WebSocketLayer()
        layer.start()
        layer.send_eof()
        assert not layer.announces_end
        assert layer.outgoing() == b""
        assert not layer.handshaking
        assert not layer.ended


class TestReceiving:
    """Binary frames are data; they may be cut anywhere."""

    @pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 300_000])
    @pytest.mark.parametrize("key", [None, bytes(4), KEY])
    def test_a_frame_of_any_length_masked_or_not(self, size: int, key: bytes | None) -> None:
        data = bytes(range(256)) * (size // 256 + 1)
        layer = WebSocketLayer()
        assert layer.receive(frame(BINARY, data[:size], key=key)) == data[:size]
        assert layer.receive(frame(BINARY, b"next")) == b"next"

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_kind_of_buffer_can_be_received(self, kind: type) -> None:
        layer = WebSocketLayer()
        assert layer.receive(kind(frame(BINARY, b"abcdef")[:5])) == b"abc"
        assert layer.receive(kind(b"def")) == b"def"

    @pytest.mark.parametrize("length", [b"\x05", b"\x7e\x00\x05", b"\x7f" + bytes(7) + b"\x05"])
    def test_a_length_in_a_longer_form_than_needed_is_understood(self, length: bytes) -> None:
        assert WebSocketLayer().receive(b"\x82" + length + b"hello") == b"hello"

    @given(frames, st.lists(st.integers(0, 2000), max_size=8))
    def test_cuts_anywhere_change_nothing(
        self, messages: list[tuple[int, bytes, bytes | None]], cuts: list[int]
    ) -> None:
        wire = b"".join(frame(opcode, data, key=key) for opcode, data, key in messages)
        layer = WebSocketLayer()
        expected = b"".join(data for opcode, data, _key in messages if opcode == BINARY)
        assert b"".join(map(layer.receive, cut_at(wire, cuts))) == expected
        pings = [data for opcode, data, _key in messages if opcode == PING]
        answers = [frame(PONG, data, key=bytes(4)) for data in pings]
        assert layer.outgoing() == b"".join(answers[-1:])
        layer.receive_eof()

    def test_every_place_to_cut_gives_the_same_bytes_and_the_same_answer(self) -> None:
        wire = b"".join(
            (
                frame(BINARY, b"SELECT 1", key=KEY),
                frame(TEXT, b"\x82\x01!"),
                frame(PING, b"teleport"),
                frame(BINARY, b"x" * 126),
            )
        )
        for cut in range(len(wire) + 1):
            layer = WebSocketLayer()
            received = layer.receive(wire[:cut]) + layer.receive(wire[cut:])
            assert received == b"SELECT 1" + b"x" * 126
            assert layer.outgoing() == frame(PONG, b"teleport", key=bytes(4))

    def test_one_byte_after_the_other_gives_the_same_bytes(self) -> None:
        wire = frame(BINARY, b"SELECT 1", key=KEY) + frame(PING, b"") + frame(BINARY, b"x" * 70_000)
        layer = WebSocketLayer()
        received = b"".join(layer.receive(bytes([byte])) for byte in wire)
        assert received == b"SELECT 1" + b"x" * 70_000

    def test_bytes_of_an_unfinished_frame_are_handed_on_at_once(self) -> None:
        layer = WebSocketLayer()
        assert layer.receive(GIGANTIC + b"first") == b"first"
        assert layer.receive(b"second") == b"second"

    @pytest.mark.parametrize("opcode", DROPPED)
    @pytest.mark.parametrize("size", [0, 1, 125])
    def test_frames_of_other_kinds_are_skipped_with_their_payload(
        self, opcode: int, size: int
    ) -> None:
        layer = WebSocketLayer()
        wire = frame(BINARY, b"a") + frame(opcode, b"\x82" * size) + frame(BINARY, b"b")
        assert layer.receive(wire) == b"ab"
        assert layer.outgoing() == b""

    def test_a_long_text_is_skipped_to_its_end(self) -> None:
        layer = WebSocketLayer()
        wire = frame(TEXT, bytes(70_000)) + frame(BINARY, b"b")
        assert layer.receive(wire[:50_000]) == b""
        assert layer.receive(wire[50_000:]) == b"b"


class TestPings:
    """A ping is answered; that takes no memory, however many come."""

    @pytest.mark.parametrize("payload", [b"", b"teleport", b"x" * 125])
    @pytest.mark.parametrize("key", [None, KEY])
    def test_the_answer_has_the_same_payload(self, payload: bytes, key: bytes | None) -> None:
        layer = WebSocketLayer()
        assert layer.receive(frame(PING, payload, key=key)) == b""
        assert layer.outgoing() == frame(PONG, payload, key=bytes(4))
        assert layer.outgoing() == b""

    def test_each_ping_that_can_be_answered_in_time_is_answered(self) -> None:
        layer = WebSocketLayer()
        for number in range(3):
            layer.receive(frame(PING, bytes([number])))
            assert layer.outgoing() == frame(PONG, bytes([number]), key=bytes(4))

    def test_an_answer_does_not_come_into_the_middle_of_a_frame(self) -> None:
        layer = WebSocketLayer()
        layer.send(b"data")
        layer.receive(frame(PING, b"1"))
        layer.send(b"more")
        expected = [(BINARY, b"data"), (BINARY, b"more"), (PONG, b"1")]
        assert layer.outgoing() == b"".join(
            frame(opcode, data, key=bytes(4)) for opcode, data in expected
        )

    def test_a_flood_of_pings_while_no_answer_can_leave_takes_no_memory(self) -> None:
        layer = WebSocketLayer()
        flood = frame(PING, b"x" * 125) * KIB
        tracemalloc.start()
        try:
            for _ in range(8):
                assert layer.receive(flood) == b""
            left, _peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert left < 4 * KIB
        assert layer.outgoing() == frame(PONG, b"x" * 125, key=bytes(4))


class TestEnds:
    """A close frame is an end, and so is an end of the wire between frames."""

    @pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe8goodbye"])
    def test_a_close_frame_is_the_end_and_is_not_answered(self, payload: bytes) -> None:
        layer = WebSocketLayer()
        wire = frame(BINARY, b"last") + frame(CLOSE, payload) + frame(BINARY, b"never")
        assert layer.receive(wire) == b"last"
        assert layer.ended
        assert layer.receive(b"anything") == b""
        assert layer.outgoing() == b""
        layer.receive_eof()

    @pytest.mark.parametrize(
        "wire",
        [
            b"\x82",
            frame(BINARY, b"abc")[:-1],
            frame(PING, b"abc")[:-1],
            frame(TEXT, b"abc")[:-1],
            frame(BINARY, b"x" * 126)[:3],
            frame(BINARY, b"abc", key=KEY)[:4],
            GIGANTIC,
        ],
    )
    def test_an_end_inside_a_frame_is_truncation(self, wire: bytes) -> None:
        layer = WebSocketLayer()
        layer.receive(wire)
        with pytest.raises(TruncatedError, match="in the middle of a WebSocket frame"):
            layer.receive_eof()

    @pytest.mark.parametrize("wire", [b"", frame(PING, b""), frame(BINARY, b"abc")])
    def test_an_end_between_frames_is_an_end(self, wire: bytes) -> None:
        layer = WebSocketLayer()
        layer.receive(wire)
        layer.receive_eof()


class TestHostileFrames:
    """No error but the module's own, no memory for what is announced."""

    BAD = (
        b"\xc2\x00",
        b"\xa2\x00",
        b"\x92\x00",
        b"\x82\x7f\x80" + bytes(7),
        b"\x82\xff" + b"\xff" * 8 + KEY,
        b"\x89\x7e\x00\x7e",
        b"\x88\x7e\x00\x7e",
        b"\x8a\x7f" + bytes(6) + b"\xff\xff",
    )

    @pytest.mark.parametrize("wire", BAD)
    def test_what_no_frame_may_be_is_an_error_each_time_one_asks(self, wire: bytes) -> None:
        layer = WebSocketLayer()
        for data in (wire, b"x", b""):
            with pytest.raises(WebSocketError):
                layer.receive(data)
        assert layer.ended
        with pytest.raises(WebSocketError):
            layer.receive_eof()

    @pytest.mark.parametrize("wire", BAD)
    def test_good_bytes_before_an_error_are_not_lost(self, wire: bytes) -> None:
        layer = WebSocketLayer()
        assert layer.receive(frame(BINARY, b"good") + wire) == b"good"
        assert layer.ended
        with pytest.raises(WebSocketError):
            layer.receive(b"")

    @pytest.mark.parametrize("first", [b"\x82", b"\x81"])
    def test_a_gigantic_length_costs_no_memory(self, first: bytes) -> None:
        layer = WebSocketLayer()
        piece = bytes(64 * KIB)
        tracemalloc.start()
        try:
            layer.receive(first + GIGANTIC[1:])
            for _ in range(64):
                layer.receive(piece)
            _now, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * len(piece)

    @given(st.binary(max_size=300), st.lists(st.integers(0, 600), max_size=6))
    def test_any_bytes_at_all_mean_the_same_in_one_piece_and_in_many(
        self, wire: bytes, cuts: list[int]
    ) -> None:
        whole, pieces = WebSocketLayer(), WebSocketLayer()
        assert outcome(pieces, wire, cuts) == outcome(whole, wire, [])
        assert pieces.outgoing() == whole.outgoing()


def outcome(layer: WebSocketLayer, wire: bytes, cuts: list[int]) -> tuple[bytes, bool, bool]:
    """What comes out, whether it failed, and whether it ended."""
    received = b""
    try:
        for piece in cut_at(wire, cuts):
            received += layer.receive(piece)
        layer.receive(b"")
    except WebSocketError:
        return received, True, layer.ended
    return received, False, layer.ended
