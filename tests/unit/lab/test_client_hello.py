from __future__ import annotations

import ssl
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.lab.client_hello import (
    MAX_HANDSHAKE_SIZE,
    ClientHello,
    ClientHelloError,
    ClientHelloReader,
    parse_client_hello,
)


def real_client_hello(
    alpn: tuple[str, ...] = (), server_name: str | None = "teleport.example.com"
) -> bytes:
    """The first flight of Python's own TLS client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


REAL = real_client_hello(("teleport-postgres-ping", "teleport-postgres"))
EXPECTED = ClientHello("teleport.example.com", ("teleport-postgres-ping", "teleport-postgres"))


def body_with(extensions: bytes) -> bytes:
    """A ClientHello body with these extensions and the smallest possible rest."""
    head = bytes(34) + b"\0" + b"\0\2\x13\x01" + b"\1\0"
    return head + struct.pack("!H", len(extensions)) + extensions


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack("!HH", kind, len(data)) + data


def records(message: bytes, size: int) -> bytes:
    """A handshake message cut into records of at most that many bytes."""
    pieces = [message[i : i + size] for i in range(0, len(message), size)]
    return b"".join(b"\x16\3\1" + struct.pack("!H", len(p)) + p for p in pieces)


def read(data: bytes) -> ClientHello | None:
    return ClientHelloReader().feed(data)


def test_a_real_client_hello_is_understood() -> None:
    assert read(REAL) == EXPECTED


def test_without_extensions_name_and_alpn_are_empty() -> None:
    assert read(real_client_hello(server_name=None)) == ClientHello(None, ())
    assert parse_client_hello(body_with(b"")[:-2]) == ClientHello(None, ())


def test_it_may_arrive_split_at_any_byte() -> None:
    for split in range(1, len(REAL)):
        reader = ClientHelloReader()
        assert reader.feed(REAL[:split]) is None
        assert reader.feed(REAL[split:]) == EXPECTED
        assert reader.received == REAL


def test_it_may_arrive_byte_by_byte() -> None:
    reader = ClientHelloReader()
    results = [reader.feed(REAL[i : i + 1]) for i in range(len(REAL))]
    assert results == [None] * (len(REAL) - 1) + [EXPECTED]


@given(size=st.integers(1, 600))
def test_it_may_be_cut_into_several_records(size: int) -> None:
    assert read(records(REAL[5:], size)) == EXPECTED


def test_bytes_after_it_are_kept_for_the_handshake() -> None:
    reader = ClientHelloReader()
    assert reader.feed(REAL + b"early") == EXPECTED
    assert reader.received == REAL + b"early"


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1",
        b"\x16\x02",
        b"\x15\x03\x01\x00\x02",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x01\x02",
        struct.pack("!II", 8, 80877103),
    ],
)
def test_what_cannot_become_one_is_refused_at_once(start: bytes) -> None:
    with pytest.raises(ClientHelloError):
        read(start)


def test_an_announced_size_above_the_limit_is_refused_before_it_arrives() -> None:
    head = b"\1" + MAX_HANDSHAKE_SIZE.to_bytes(3, "big")
    with pytest.raises(ClientHelloError, match="larger than 64 KiB"):
        read(records(head, 100))


MALFORMED = {
    "extension longer than its block": struct.pack("!HH", 16, 50) + b"\0\3\2h2",
    "ALPN list longer than its extension": extension(16, b"\0\x09\2h2"),
    "ALPN value longer than its list": extension(16, b"\0\3\x09h2"),
    "bytes after the ALPN list": extension(16, b"\0\3\2h2!"),
    "empty ALPN list": extension(16, b"\0\0"),
    "empty ALPN value": extension(16, b"\0\1\0"),
    "ALPN extension without content": extension(16, b""),
    "name longer than its list": extension(0, b"\0\4\0\0\x09a"),
    "twice the same extension": extension(16, b"\0\3\2h2") * 2,
    "half an extension header": b"\0\x10\0",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_length_that_does_not_fit_is_refused(case: str) -> None:
    with pytest.raises(ClientHelloError):
        parse_client_hello(body_with(MALFORMED[case]))


def test_bytes_after_the_extensions_are_refused() -> None:
    with pytest.raises(ClientHelloError, match="after the ClientHello"):
        parse_client_hello(body_with(b"") + b"!")


@given(
    names=st.lists(st.binary(min_size=1, max_size=255), min_size=1, max_size=20),
    host=st.binary(min_size=1, max_size=300),
)
def test_every_name_and_every_list_come_back(names: list[bytes], host: bytes) -> None:
    values = b"".join(bytes([len(name)]) + name for name in names)
    alpn = extension(16, struct.pack("!H", len(values)) + values)
    entry = b"\0" + struct.pack("!H", len(host)) + host
    sni = extension(0, struct.pack("!H", len(entry)) + entry)
    hello = parse_client_hello(body_with(extension(13, b"\0\0") + sni + alpn))
    assert hello == ClientHello(
        host.decode("latin-1"), tuple(name.decode("latin-1") for name in names)
    )


@given(data=st.binary(max_size=400))
def test_no_bytes_do_more_than_being_refused(data: bytes) -> None:
    reader = ClientHelloReader()
    try:
        reader.feed(data)
        reader.feed(data)
    except ClientHelloError as error:
        assert str(error)  # noqa: PT017 - any outcome but another exception is right


@given(position=st.integers(0, len(REAL) - 1), value=st.integers(0, 255))
def test_a_damaged_one_does_no_more_than_being_refused(position: int, value: int) -> None:
    damaged = bytearray(REAL)
    damaged[position] = value
    try:
        read(bytes(damaged))
    except ClientHelloError as error:
        assert str(error)  # noqa: PT017 - any outcome but another exception is right
