"""The lab's MySQL packets."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mysql_packets import packet, response_payload, tls_request

from dbproxy.lab.errors import LabError
from dbproxy.lab.mysql_handler import version_in
from dbproxy.lab.mysqlwire import (
    LARGEST_PACKET,
    OFFERED,
    SSL,
    Login,
    Packet,
    PacketBuffer,
    error,
    greeting,
    is_ssl_request,
    ok,
    parse_login,
)

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=50)), max_size=4), st.integers(1))
def test_packets_are_read_wherever_they_are_cut(sent: list[tuple[int, bytes]], size: int) -> None:
    packets = [Packet(number, payload) for number, payload in sent]
    stream = b"".join(one.encode() for one in packets)
    assert stream == b"".join(packet(number, payload) for number, payload in sent)
    buffer, read = PacketBuffer(), []
    for start in range(0, len(stream), size):
        buffer.feed(stream[start : start + size])
        while (one := buffer.pop()) is not None:
            read.append(one)
    assert read == packets
    assert buffer.pop_rest() == b""


def test_a_packet_that_is_too_large_is_refused() -> None:
    buffer = PacketBuffer()
    buffer.feed((LARGEST_PACKET + 1).to_bytes(3, "little") + b"\1")
    with pytest.raises(LabError, match="during the login"):
        buffer.pop()


@given(names.filter(bool), names)
def test_a_login_is_read_as_it_was_written(user: str, database: str) -> None:
    login = parse_login(Login(OFFERED, 45, user, database).encode())
    assert (login.user, login.database, login.charset) == (user, database, 45)
    assert not login.capabilities & SSL


@pytest.mark.parametrize("lenenc", [False, True])
def test_a_login_with_a_proof(lenenc: bool) -> None:
    login = parse_login(response_payload(lenenc=lenenc))
    assert (login.user, login.database) == ("alice", "example")
    assert login.completed(user="bob", database="other").user == "alice"
    assert Login(0, 45, "", "").completed(user="bob", database="other") == Login(
        0, 45, "bob", "other"
    )


@given(st.binary(max_size=100))
def test_any_bytes_are_a_login_or_refused(payload: bytes) -> None:
    try:
        parse_login(payload)
    except (LabError, UnicodeDecodeError):
        return


def test_the_greeting_offers_tls_where_it_should() -> None:
    plain, secure = (greeting("8.0", bytes(range(1, 21)), ssl=ssl).payload for ssl in (False, True))
    assert plain.startswith(b"\x0a8.0\0")
    assert b"mysql_native_password" in plain
    (at,) = (i for i, (a, b) in enumerate(zip(plain, secure, strict=True)) if a != b)
    assert secure[at] - plain[at] == SSL >> 8


def test_a_request_for_tls_is_told_from_a_login() -> None:
    assert is_ssl_request(tls_request()[4:])
    assert not is_ssl_request(response_payload())


def test_last_words() -> None:
    assert ok(2).payload[0] == 0
    assert error(2, 1105, "no").payload == b"\xff\x51\x04#HY000no"


@pytest.mark.parametrize(
    ("offered", "version"),
    [
        (["teleport-mysql-ping", "teleport-mysql"], None),
        (["teleport-mysql", "teleport-mysql-" + base64.b64encode(b"8.0.36").decode()], "8.0.36"),
        (["teleport-mysql-!", "teleport-mysql-OC4w"], "8.0"),
        (["teleport-mysql-//8="], None),
        ([], None),
    ],
)
def test_the_version_in_the_alpn_list(offered: list[str], version: str | None) -> None:
    assert version_in(offered) == version
