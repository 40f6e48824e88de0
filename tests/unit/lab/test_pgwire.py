from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.lab.pgwire import (
    CancelRequest,
    FirstMessage,
    FirstMessageReader,
    GSSENCRequest,
    PgWireError,
    SSLRequest,
    StartupMessage,
    error_response,
)

SSL = struct.pack("!II", 8, 80877103)
GSSENC = struct.pack("!II", 8, 80877104)
CANCEL = struct.pack("!IIII", 16, 80877102, 4711, 815)
PARAMETERS = b"user\0alice\0database\0example\0application_name\0\0\0"
STARTUP = struct.pack("!II", 8 + len(PARAMETERS), 3 << 16) + PARAMETERS
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def messages(*pieces: bytes) -> list[FirstMessage]:
    reader = FirstMessageReader()
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (message := reader.next_message()) is not None:
            found.append(message)
    return found


def test_the_requests_are_told_apart() -> None:
    assert messages(SSL, GSSENC, CANCEL) == [SSLRequest(), GSSENCRequest(), CancelRequest(CANCEL)]


def test_a_startup_message_has_user_and_database() -> None:
    (message,) = messages(STARTUP)
    assert isinstance(message, StartupMessage)
    assert (message.user, message.database) == ("alice", "example")
    assert message.parameters["application_name"] == ""
    assert message.encode() == STARTUP


def test_a_startup_message_without_names_has_empty_ones() -> None:
    (message,) = messages(struct.pack("!II", 9, 3 << 16) + b"\0")
    assert isinstance(message, StartupMessage)
    assert (message.user, message.database) == ("", "")


@pytest.mark.parametrize("packet", [SSL, GSSENC, CANCEL, STARTUP])
def test_a_message_may_arrive_split_at_any_byte(packet: bytes) -> None:
    for split in range(1, len(packet)):
        assert messages(packet[:split]) == []
        assert len(messages(packet[:split], packet[split:])) == 1


def test_what_follows_a_message_stays_with_the_caller() -> None:
    reader = FirstMessageReader()
    reader.feed(SSL + b"\x16\x03\x01")
    assert reader.next_message() == SSLRequest()
    assert reader.pop_rest() == b"\x16\x03\x01"
    assert reader.pop_rest() == b""


@pytest.mark.parametrize("size", [0, 4, 7, 10_001, 0x16030100, 0xFFFFFFFF])
def test_an_impossible_length_is_refused_before_anything_else_arrives(size: int) -> None:
    with pytest.raises(PgWireError, match=f"invalid length of startup packet: {size}"):
        messages(struct.pack("!I", size))


@pytest.mark.parametrize(
    "packet",
    [
        struct.pack("!II", 8, 2 << 16),
        struct.pack("!IIB", 9, 80877103, 0),
        struct.pack("!II", 8, 3 << 16),
        struct.pack("!II", 13, 3 << 16) + b"user\0",
        struct.pack("!II", 14, 3 << 16) + b"user\0\0",
        struct.pack("!II", 13, 3 << 16) + b"a\0\xff\0\0",
    ],
)
def test_a_malformed_packet_is_refused(packet: bytes) -> None:
    with pytest.raises(PgWireError):
        messages(packet)


@given(parameters=st.dictionaries(TEXT.filter(bool), TEXT, max_size=8))
def test_startup_messages_come_back(parameters: dict[str, str]) -> None:
    message = StartupMessage(3 << 16, parameters)
    assert messages(message.encode()) == [message]


@given(data=st.binary(max_size=200))
def test_no_bytes_do_more_than_being_refused(data: bytes) -> None:
    try:
        messages(data)
        messages(struct.pack("!II", len(data) + 8, 3 << 16) + data)
    except PgWireError as error:
        assert str(error)  # noqa: PT017 - any outcome but another exception is right


def test_a_cancel_key_is_not_shown() -> None:
    assert "815" not in repr(CancelRequest(CANCEL))
    assert repr(CANCEL[12:])[2:-1] not in repr(CancelRequest(CANCEL))


def test_a_denial_has_the_message_field_only() -> None:
    assert error_response("no") == b"E\0\0\0\x09Mno\0\0"


def test_all_fields_come_in_their_order() -> None:
    fields = error_response("no", severity="FATAL", code="28000")[5:]
    assert fields == b"SFATAL\0VFATAL\0C28000\0Mno\0\0"
