"""Oracle: the REFUSE packet, field by field, as python-oracledb was seen to read it."""

import struct

import beginnings
import pytest

from dbproxy.errors import Code, UpstreamError
from dbproxy.protocols.wire.oracle import OracleWire

WIRE = OracleWire()


def test_a_refuse_packet_has_its_lengths_and_a_number_that_clients_print() -> None:
    error = UpstreamError(Code.UPSTREAM_UNREACHABLE, 'no "way" (to=there)')
    packet = WIRE.refusal(beginnings.ORACLE, error)
    length, checksum, kind, flags, header_checksum = struct.unpack_from(">HHBBH", packet)
    assert (length, checksum, kind, flags, header_checksum) == (len(packet), 0, 4, 0, 0)
    user_reason, system_reason, size = struct.unpack_from(">BBH", packet, 8)
    text = packet[12:].decode()
    assert (user_reason, system_reason, size) == (0, 0, len(text))
    assert "(ERR=12564)" in text
    assert "upstream-unreachable" in text


def test_the_parentheses_of_the_text_are_balanced_whatever_the_error_says() -> None:
    error = UpstreamError(Code.UPSTREAM_UNREACHABLE, "((( =)")
    text = WIRE.refusal(beginnings.ORACLE, error)[12:].decode()
    assert text.count("(") == text.count(")")
    assert text.startswith("(DESCRIPTION=(TMP=dbproxy: ")


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\x21\0\0\1\0\0\0",  # too short
        b"\1\0\1\0\1\0\0\0",  # a checksum
        b"\1\0\0\0\6\0\0\0",  # a DATA packet
        b"\1\0\0\0\1\0\0\1",  # a header checksum
    ],
)
def test_other_packets_are_no_beginning(sent: bytes) -> None:
    assert WIRE.begins(sent) is False
