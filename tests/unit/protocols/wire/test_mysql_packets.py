"""MySQL's packets: framing, greeting, login, error."""

import struct
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mysql_packets import LENENC, SSL, greeting_payload, packet, response_payload, tls_request

from dbproxy.errors import Code, UpstreamError
from dbproxy.protocols.wire.mysql import refusal_packet
from dbproxy.protocols.wire.mysql_packets import (
    LARGEST_LOGIN_PACKET,
    MalformedPacketError,
    Packet,
    PacketReader,
    capabilities_of,
    encode_packet,
    error_packet,
    error_text,
    greeting_offers_tls,
    is_tls_request,
    offering_tls,
    relabelled_error,
    user_and_database,
    without_tls,
)

packets = st.builds(Packet, st.integers(0, 255), st.binary(max_size=300))


def read_all(reader: PacketReader, pieces: Sequence[bytes]) -> list[Packet]:
    """What a reader makes of the pieces."""
    read: list[Packet] = []
    for piece in pieces:
        reader.feed(piece)
        while (found := reader.next_packet()) is not None:
            read.append(found)
    return read


class TestFraming:
    @given(st.lists(packets, max_size=5), st.lists(st.integers(0, 2000), max_size=8))
    def test_what_was_encoded_is_read_wherever_it_is_cut(
        self, sent: list[Packet], cuts: list[int]
    ) -> None:
        stream = b"".join(encode_packet(p.sequence, p.payload) for p in sent)
        edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
        reader = PacketReader()
        assert read_all(reader, [stream[a:b] for a, b in pairwise(edges)]) == sent
        assert reader.take_rest() == b""

    def test_numbers_begin_anew_behind_255(self) -> None:
        assert encode_packet(256, b"x") == packet(0, b"x")

    def test_what_follows_a_packet_stays_with_the_reader(self) -> None:
        reader = PacketReader()
        reader.feed(packet(1, b"one") + b"rest")
        assert reader.next_packet() == Packet(1, b"one")
        assert reader.beginning == b"rest"
        assert reader.take_rest() == b"rest"
        assert reader.take_rest() == b""

    @pytest.mark.parametrize("length", [LARGEST_LOGIN_PACKET + 1, 0xFFFFFF])
    def test_a_hostile_length_is_refused_at_once(self, length: int) -> None:
        reader = PacketReader()
        reader.feed(struct.pack("<I", length))
        with pytest.raises(MalformedPacketError, match=f"a packet of {length} bytes"):
            reader.next_packet()

    def test_the_largest_packet_is_read(self) -> None:
        largest = Packet(1, bytes(LARGEST_LOGIN_PACKET))
        assert read_all(PacketReader(), [encode_packet(1, largest.payload)]) == [largest]


class TestGreeting:
    def test_tls_is_added_and_nothing_else(self) -> None:
        assert not greeting_offers_tls(greeting_payload())
        assert offering_tls(greeting_payload()) == greeting_payload(ssl=True)
        assert greeting_offers_tls(greeting_payload(ssl=True))
        assert offering_tls(greeting_payload(ssl=True)) == greeting_payload(ssl=True)

    def test_an_old_server_says_only_half_of_its_capabilities(self) -> None:
        short = greeting_payload()[: 1 + 7 + 4 + 8 + 1 + 2]
        assert greeting_offers_tls(offering_tls(short))

    @pytest.mark.parametrize(
        "payload", [b"", b"\x09rest", b"\x0a8.0", greeting_payload()[:22], b"HTTP/1.1 400 \0"]
    )
    def test_what_is_no_greeting_is_refused(self, payload: bytes) -> None:
        with pytest.raises(MalformedPacketError):
            greeting_offers_tls(payload)
        with pytest.raises(MalformedPacketError):
            offering_tls(payload)

    @given(st.binary(max_size=100))
    def test_any_bytes_are_a_greeting_or_refused(self, payload: bytes) -> None:
        try:
            changed = offering_tls(payload)
        except MalformedPacketError:
            return
        assert len(changed) == len(payload)
        assert greeting_offers_tls(changed)


class TestLogin:
    def test_a_request_for_tls_is_told_from_a_login(self) -> None:
        assert is_tls_request(tls_request()[4:])
        assert not is_tls_request(response_payload(ssl=True))
        assert not is_tls_request(bytes(32))
        assert not is_tls_request(b"")

    def test_tls_is_taken_out_of_a_login_and_nothing_else(self) -> None:
        assert without_tls(response_payload(ssl=True)) == response_payload()
        assert without_tls(response_payload()) == response_payload()

    def test_a_login_of_an_old_client_has_two_bytes_of_capabilities(self) -> None:
        old = struct.pack("<H", SSL | 0x8) + b"\xff\xff\xff" + b"alice\0"
        assert capabilities_of(old) == SSL | 0x8
        assert without_tls(old) == struct.pack("<H", 0x8) + old[2:]
        assert user_and_database(old) == (None, None)

    @pytest.mark.parametrize("lenenc", [False, True])
    def test_user_and_database_are_found(self, lenenc: bool) -> None:
        assert user_and_database(response_payload(lenenc=lenenc)) == ("alice", "example")

    @given(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=80),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=80),
        st.booleans(),
    )
    def test_user_and_database_are_read_as_clients_write_them(
        self, user: str, database: str, lenenc: bool
    ) -> None:
        login = response_payload(user=user.encode(), database=database.encode(), lenenc=lenenc)
        assert user_and_database(login) == (user or None, database or None)
        assert user_and_database(without_tls(login)) == (user or None, database or None)

    def test_long_proofs_are_skipped(self) -> None:
        capabilities = 0x8 | 0x200 | LENENC
        login = struct.pack("<IIB23x", capabilities, 0, 45) + b"alice\0"
        login += b"\xfc" + struct.pack("<H", 300) + bytes(300) + b"example\0"
        assert user_and_database(login) == ("alice", "example")

    def test_a_proof_without_a_length_ends_with_a_zero(self) -> None:
        login = struct.pack("<IIB23x", 0x8 | 0x200, 0, 45) + b"alice\0proof\0example\0"
        assert user_and_database(login) == ("alice", "example")

    def test_a_login_need_not_name_a_database(self) -> None:
        login = struct.pack("<IIB23x", 0x200 | 0x8000, 0, 45) + b"alice\0\0"
        assert user_and_database(login) == ("alice", None)

    @given(st.binary(max_size=120))
    def test_any_bytes_name_somebody_or_nobody(self, payload: bytes) -> None:
        user_and_database(payload)
        assert not capabilities_of(without_tls(payload)) & SSL
        assert without_tls(payload)[2:] == payload[2:]


class TestErrors:
    def test_with_sqlstate(self) -> None:
        assert error_packet(2, 1045, "28000", "no") == packet(2, b"\xff\x15\x04#28000no")

    def test_without_sqlstate(self) -> None:
        assert error_packet(0, 1045, None, "no") == packet(0, b"\xff\x15\x04no")

    @pytest.mark.parametrize("greeted", [False, True])
    @pytest.mark.parametrize("letter", ["x", "ü", "漢"])
    def test_a_long_message_gives_way_to_its_ending(self, letter: str, greeted: bool) -> None:
        problem = UpstreamError(Code.UPSTREAM_UNREACHABLE, letter * 600)
        text = error_text(refusal_packet(problem, 0, greeted=greeted)[4:])
        ending = f" [upstream-unreachable]. {problem.problem.client_hint}"
        assert text.startswith(f"dbproxy: {letter}")
        assert text.endswith(f"{letter}...{ending}")
        assert 505 <= len(text.encode()) <= 511

    @given(
        st.text(st.characters(codec="utf-8"), max_size=300),
        st.integers(0, 65535),
        st.none() | st.just("28000"),
    )
    def test_any_text_is_found_again(self, text: str, number: int, sqlstate: str | None) -> None:
        sent = error_packet(1, number, sqlstate, text)
        assert int.from_bytes(sent[:3], "little") == len(sent) - 4
        assert int.from_bytes(sent[5:7], "little") == number
        if not (sqlstate is None and text.startswith("#")):
            assert error_text(sent[4:]) == text

    @given(
        st.binary(max_size=600),
        st.booleans(),
        st.lists(st.text(st.characters(codec="utf-8"), max_size=300), max_size=3),
    )
    def test_a_relabelled_error_keeps_its_text_and_clients_do_not_cut_what_is_added(
        self, text: bytes, has_sqlstate: bool, endings: list[str]
    ) -> None:
        state = b"#HY000" if has_sqlstate else b""
        text = text if has_sqlstate else text.lstrip(b"#")
        told = relabelled_error(b"\xff\x51\x04" + state + text, 1045, "28000", endings)
        head = b"\xff\x15\x04" + (b"#28000" if has_sqlstate else b"")
        assert told.startswith(head + text)
        added = told[len(head + text) :]
        assert added in (b"", *(b" " + ending.encode() for ending in endings))
        assert not added or len(told) - len(head) <= 511

    def test_the_text_is_found_again(self) -> None:
        assert error_text(error_packet(0, 1045, None, "why")[4:]) == "why"
        assert error_text(error_packet(0, 1045, "28000", "why")[4:]) == "why"
