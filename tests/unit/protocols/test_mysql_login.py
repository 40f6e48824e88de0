"""The login between a client inside TLS and an upstream without: only the numbers change."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mysql_packets import error, ok, packet, response_payload

from dbproxy.errors import ClientError, Code, IdentityError, UpstreamError
from dbproxy.protocols.mysql_login import MySQLLogin
from dbproxy.protocols.wire.mysql_packets import Packet

CLIENT, SERVER = "client", "server"
Exchange = Sequence[tuple[str, int, bytes]]
"""Who sends, the packet's number as the server counts, and the payload."""

NATIVE: Exchange = [(SERVER, 2, b"\0\0\0\2\0\0\0")]
REFUSED: Exchange = [(SERVER, 2, b"\xff\x15\x04#28000Access denied")]
SWITCH: Exchange = [
    (SERVER, 2, b"\xfemysql_native_password\0" + bytes(range(1, 21)) + b"\0"),
    (CLIENT, 3, bytes(range(20))),
    (SERVER, 4, b"\0\0\0\2\0\0\0"),
]
SWITCH_WITHOUT_PASSWORD: Exchange = [
    (SERVER, 2, b"\xfemysql_native_password\0" + bytes(range(1, 21)) + b"\0"),
    (CLIENT, 3, b""),
    (SERVER, 4, b"\0\0\0\2\0\0\0"),
]
OLD_SWITCH: Exchange = [(SERVER, 2, b"\xfe"), (CLIENT, 3, b"oldproof\0"), (SERVER, 4, b"\0\0\0")]
CACHING_FAST: Exchange = [(SERVER, 2, b"\1\3"), (SERVER, 3, b"\0\0\0\2\0\0\0")]
CACHING_FULL: Exchange = [
    (SERVER, 2, b"\1\4"),
    (CLIENT, 3, b"secret\0"),
    (SERVER, 4, b"\0\0\0\2\0\0\0"),
]
CACHING_WITH_PUBLIC_KEY: Exchange = [
    (SERVER, 2, b"\xfecaching_sha2_password\0" + bytes(range(1, 21)) + b"\0"),
    (CLIENT, 3, bytes(range(32))),
    (SERVER, 4, b"\1\4"),
    (CLIENT, 5, b"\2"),
    (SERVER, 6, b"\1-----BEGIN PUBLIC KEY-----\n..."),
    (CLIENT, 7, bytes(256)),
    (SERVER, 8, b"\xff\x15\x04#28000Access denied"),
]
LONG: Exchange = [
    *((CLIENT if number % 2 else SERVER, number, b"\2more") for number in range(2, 600)),
    (SERVER, 600, b"\0\0\0"),
]
LOGINS = {
    "native": NATIVE,
    "refused": REFUSED,
    "switch": SWITCH,
    "switch-empty": SWITCH_WITHOUT_PASSWORD,
    "old-switch": OLD_SWITCH,
    "caching-fast": CACHING_FAST,
    "caching-full": CACHING_FULL,
    "caching-public-key": CACHING_WITH_PUBLIC_KEY,
    "numbers-begin-anew": LONG,
}
logins = pytest.mark.parametrize("exchange", LOGINS.values(), ids=LOGINS.keys())


def begun(rest: bytes = b"") -> MySQLLogin:
    """A login that has sent the client's first packet on."""
    login = MySQLLogin(Packet(2, response_payload(ssl=True)), rest)
    assert login.begin().to_upstream.startswith(packet(1, response_payload()))
    return login


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@logins
@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_each_side_sees_the_numbers_that_it_expects(exchange: Exchange, size: int) -> None:
    login = begun()
    for who, number, payload in exchange:
        assert not login.over
        at_server, at_client = packet(number % 256, payload), packet((number + 1) % 256, payload)
        if who is SERVER:
            said = [login.from_upstream(piece) for piece in pieces_of(at_server, size)]
            assert b"".join(one.to_client for one in said) == at_client
            assert not any(one.to_upstream for one in said)
        else:
            said = [login.from_client(piece) for piece in pieces_of(at_client, size)]
            assert b"".join(one.to_upstream for one in said) == at_server
            assert not any(one.to_client for one in said)
    assert login.over


def test_what_follows_the_login_is_left_alone() -> None:
    login = begun()
    query = packet(0, b"\3SELECT 1")
    assert login.from_client(query[:3]).to_upstream == b""
    said = login.from_upstream(ok(2) + b"anything")
    assert said.to_client == ok(3) + b"anything"
    assert said.to_upstream == query[:3]
    assert login.from_client(query[3:]).to_upstream == query[3:]
    assert login.from_upstream(b"\xff\xff\xffhuge").to_client == b"\xff\xff\xffhuge"


def test_what_came_with_the_first_packet_is_not_lost() -> None:
    login = MySQLLogin(Packet(2, response_payload()), packet(3, b"more"))
    assert login.begin().to_upstream == packet(1, response_payload()) + packet(2, b"more")


def test_commands_of_a_client_that_does_not_wait_for_the_ok_keep_their_numbers() -> None:
    commands = packet(0, b"\3SELECT 1") + packet(0, b"\3SELECT 2")
    login = MySQLLogin(Packet(2, response_payload()), commands[:20])
    assert login.begin().to_upstream == packet(1, response_payload()) + commands[:13]
    assert login.from_client(commands[20:]).to_upstream == commands[13:]
    assert login.from_upstream(ok(2)).to_client == ok(3)
    assert login.over


@pytest.mark.parametrize(
    ("who", "code"),
    [(CLIENT, Code.CLIENT_PROTOCOL_ERROR), (SERVER, Code.UPSTREAM_PROTOCOL_ERROR)],
)
def test_a_hostile_length_is_refused_at_once(who: str, code: Code) -> None:
    login = begun()
    with pytest.raises((ClientError, UpstreamError)) as caught:
        (login.from_client if who is CLIENT else login.from_upstream)(b"\xff\xff\xff\3")
    assert caught.value.code is code


def test_a_refusal_has_the_next_number() -> None:
    login = begun()
    problem = IdentityError(Code.CERTIFICATE_EXPIRED, "it has expired")
    assert login.refusal(problem)[3] == 3
    login.from_upstream(packet(2, b"\1\4"))
    assert login.refusal(problem)[3] == 4
    login.from_client(packet(4, b"secret\0"))
    assert login.refusal(problem)[3:13] == b"\5\xff\x95\x05#HY000"


@given(
    st.lists(st.tuples(st.sampled_from([CLIENT, SERVER]), st.binary(min_size=1, max_size=40))),
    st.lists(st.integers(1, 50), max_size=3),
)
def test_payloads_come_out_as_they_went_in(
    exchange: list[tuple[str, bytes]], cuts: list[int]
) -> None:
    login = begun()
    for number, (who, payload) in enumerate(exchange, start=2):
        at_server, at_client = packet(number, payload), packet(number + 1, payload)
        given_bytes = at_server if who is SERVER else at_client
        edges = sorted({0, len(given_bytes), *(cut % len(given_bytes) for cut in cuts)})
        out = b""
        was_over = login.over
        for a, b in pairwise(edges):
            piece = given_bytes[a:b]
            if who is SERVER:
                out += login.from_upstream(piece).to_client
            else:
                out += login.from_client(piece).to_upstream
        expected = at_client if who is SERVER else at_server
        assert out == (given_bytes if was_over else expected)


@given(st.lists(st.tuples(st.sampled_from([CLIENT, SERVER]), st.binary(max_size=200))))
def test_any_bytes_are_translated_or_refused(pieces: list[tuple[str, bytes]]) -> None:
    login = begun()
    up = down = 0
    with suppress(ClientError, UpstreamError):
        for who, piece in pieces:
            said = login.from_client(piece) if who is CLIENT else login.from_upstream(piece)
            up += len(said.to_upstream)
            down += len(said.to_client)
    assert up <= sum(len(piece) for who, piece in pieces if who is CLIENT)
    assert down <= sum(len(piece) for who, piece in pieces if who is SERVER)


def test_an_error_is_the_end_too() -> None:
    login = begun()
    assert login.from_upstream(error(2)).to_client == error(3)
    assert login.over
