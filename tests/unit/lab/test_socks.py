from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.lab.socks import (
    AddressType,
    Request,
    SocksError,
    encode_reply,
    parse_greeting,
    parse_password,
    parse_request,
)

NAME = b"db.example.com"
MESSAGES: list[tuple[Callable[[bytes], tuple[object, int] | None], bytes, object]] = [
    (parse_greeting, b"\5\2\0\2", b"\0\2"),
    (parse_password, b"\1\5alice\6secret", ("alice", "secret")),
    (parse_password, b"\1\5alice\0", ("alice", "")),
    (parse_request, b"\5\1\0\1\x7f\0\0\1\1\xbb", Request(1, AddressType.IPV4, "127.0.0.1", 443)),
    (
        parse_request,
        b"\5\1\0\3\x0e" + NAME + b"\0\x50",
        Request(1, AddressType.DOMAIN, NAME.decode(), 80),
    ),
    (
        parse_request,
        b"\5\1\0\4" + ipaddress.ip_address("::1").packed + b"\1\xbb",
        Request(1, AddressType.IPV6, "::1", 443),
    ),
]


@pytest.mark.parametrize(("parse", "wire", "message"), MESSAGES)
def test_a_message_is_parsed_once_it_is_complete(
    parse: Callable[[bytes], tuple[object, int] | None], wire: bytes, message: object
) -> None:
    assert all(parse(wire[:end]) is None for end in range(len(wire)))
    assert parse(wire + b"rest") == (message, len(wire))


@pytest.mark.parametrize(
    ("parse", "wire"),
    [
        (parse_greeting, b"\4\1"),
        (parse_greeting, b"\5\0"),
        (parse_password, b"\5\1"),
        (parse_password, b"\1\0\0"),
        (parse_password, b"\1\1\xff\1x"),
        (parse_request, b"\4\1\0\1\0"),
        (parse_request, b"\5\1\0\2\0"),
        (parse_request, b"\5\1\0\3\1\xff\0\1"),
    ],
)
def test_what_is_not_socks_is_refused(
    parse: Callable[[bytes], tuple[object, int] | None], wire: bytes
) -> None:
    with pytest.raises(SocksError):
        parse(wire)


def test_targets_read_like_addresses() -> None:
    assert Request(1, AddressType.IPV6, "::1", 443).target == "[::1]:443"
    assert Request(1, AddressType.DOMAIN, "example.com", 443).target == "example.com:443"


def test_a_reply_has_the_form_of_its_address() -> None:
    assert encode_reply(0, "127.0.0.1", 80) == b"\5\0\0\1\x7f\0\0\1\0\x50"
    assert encode_reply(5) == b"\5\5\0\1\0\0\0\0\0\0"
    assert encode_reply(0, "::1", 80)[:4] == b"\5\0\0\4"


@given(data=st.binary(max_size=80))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for parse in (parse_greeting, parse_password, parse_request):
        try:
            parsed = parse(data)
        except SocksError:
            continue
        assert parsed is None or parsed[1] <= len(data)
