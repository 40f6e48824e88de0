"""TDS: messages in packets, PRELOGIN, LOGIN7, errors."""

import struct
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tds_messages import TDS_7_1, TDS_7_4, login_payload, packet, prelogin_payload

from dbproxy.protocols.wire.tds_packets import (
    LARGEST_MESSAGE,
    Encryption,
    MalformedTDSError,
    Message,
    MessageReader,
    encode_message,
    encryption_of,
    error_text,
    login_error,
    prelogin,
    tds_version,
    user_and_database,
)


def read_all(reader: MessageReader, pieces: Sequence[bytes]) -> list[Message]:
    read: list[Message] = []
    for piece in pieces:
        reader.feed(piece)
        while (message := reader.next_message()) is not None:
            read.append(message)
    return read


class TestMessages:
    @given(
        st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=9000)), max_size=4),
        st.lists(st.integers(0), max_size=8),
    )
    def test_what_was_encoded_is_read_wherever_it_is_cut(
        self, sent: list[tuple[int, bytes]], cuts: list[int]
    ) -> None:
        stream = b"".join(encode_message(kind, payload) for kind, payload in sent)
        edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
        reader = MessageReader()
        read = read_all(reader, [stream[a:b] for a, b in pairwise(edges)])
        assert [(message.kind, message.payload) for message in read] == sent
        assert b"".join(message.raw for message in read) == stream
        assert reader.take_rest() == b""

    def test_an_empty_message_is_one_packet(self) -> None:
        assert encode_message(4, b"") == packet(4, b"")

    @pytest.mark.parametrize(
        "sent",
        [
            struct.pack(">BBH4x", 0x12, 1, 7),
            struct.pack(">BBH4x", 0x12, 1, 0),
            packet(0x12, b"one", last=False) + packet(0x10, b"another"),
        ],
    )
    def test_impossible_packets_are_refused(self, sent: bytes) -> None:
        with pytest.raises(MalformedTDSError):
            read_all(MessageReader(), [sent])

    def test_a_message_without_end_is_refused(self) -> None:
        reader, piece = MessageReader(), packet(0x10, bytes(60_000), last=False)
        with pytest.raises(MalformedTDSError, match="more than"):
            read_all(reader, [piece] * 3)
        assert len(reader.beginning) <= LARGEST_MESSAGE + len(piece)

    @given(st.lists(st.binary(max_size=60), max_size=6))
    def test_any_bytes_are_messages_or_refused(self, pieces: list[bytes]) -> None:
        reader = MessageReader()
        try:
            read = read_all(reader, pieces)
        except MalformedTDSError:
            return
        raw = b"".join(message.raw for message in read)
        assert raw + reader.beginning == b"".join(pieces)


class TestPrelogin:
    @pytest.mark.parametrize("encryption", list(Encryption))
    def test_what_it_says_about_tls(self, encryption: Encryption) -> None:
        assert encryption_of(prelogin(bytes(6), encryption)) is encryption
        assert encryption_of(prelogin_payload(encryption)) is encryption

    def test_a_word_about_client_certificates_is_left_out(self) -> None:
        assert encryption_of(prelogin_payload(0x81)) is Encryption.ON

    def test_without_a_word_there_is_none(self) -> None:
        assert encryption_of(prelogin_payload(None)) is Encryption.NOT_SUPPORTED

    def test_its_layout(self) -> None:
        payload = prelogin(b"\x0f\0\x07\xd0\0\0", Encryption.ON)
        assert payload[:6] == b"\0\0\x1a\0\6\1"
        assert payload[25:] == b"\xff\x0f\0\x07\xd0\0\0\1\0\0\0\0\0\0"

    @pytest.mark.parametrize(
        "payload", [b"", b"\0", b"\0\0\x1a\0\6", b"\1\0\x06\0\1\xff", b"GET / HTTP/1.1\r\n"]
    )
    def test_what_is_none_is_refused(self, payload: bytes) -> None:
        with pytest.raises(MalformedTDSError):
            encryption_of(payload)

    @given(st.binary(max_size=80))
    def test_any_bytes_are_a_prelogin_or_refused(self, payload: bytes) -> None:
        try:
            assert encryption_of(payload) in Encryption
        except MalformedTDSError:
            return


class TestLogin:
    def test_user_and_database_are_found(self) -> None:
        assert user_and_database(login_payload("ann", "grüße")) == ("ann", "grüße")
        assert user_and_database(login_payload("", "")) == (None, None)

    @given(
        st.text(st.characters(codec="utf-16-le"), max_size=60),
        st.text(st.characters(codec="utf-16-le"), max_size=60),
    )
    def test_they_are_read_as_clients_write_them(self, user: str, database: str) -> None:
        payload = login_payload(user, database)
        assert user_and_database(payload) == (user or None, database or None)

    def test_the_version_is_found(self) -> None:
        assert tds_version(login_payload(version=TDS_7_1)) == TDS_7_1
        assert tds_version(b"") == 0

    @given(st.binary(max_size=150))
    def test_any_bytes_name_somebody_or_nobody(self, payload: bytes) -> None:
        user_and_database(payload)
        tds_version(payload)


class TestErrors:
    @pytest.mark.parametrize(("version", "tail"), [(TDS_7_4, 4 + 13), (TDS_7_1, 2 + 9)])
    def test_an_error_and_the_end(self, version: int, tail: int) -> None:
        (message,) = read_all(MessageReader(), [login_error("nö", version)])
        assert message.kind == 4
        assert error_text(message.payload) == "nö"
        token, length, number, state, severity = struct.unpack_from("<BHIBB", message.payload)
        assert (token, number, state, severity) == (0xAA, 18456, 1, 14)
        done = message.payload[3 + length :]
        assert done[:3] == b"\xfd\2\0"
        assert len(message.payload) == 9 + 2 + 4 + 1 + 14 + 1 + tail

    @given(st.text(st.characters(codec="utf-16-le"), max_size=3000), st.integers(0, 2**32 - 1))
    def test_any_text_is_read_again(self, text: str, version: int) -> None:
        (message,) = read_all(MessageReader(), [login_error(text, version)])
        assert error_text(message.payload) == text

    def test_a_long_text_is_several_packets(self) -> None:
        (message,) = read_all(MessageReader(), [login_error("x" * 5000, TDS_7_4)])
        assert error_text(message.payload) == "x" * 5000

    def test_what_is_no_error_has_no_text(self) -> None:
        assert error_text(prelogin_payload(0)) is None
        assert error_text(b"") is None
