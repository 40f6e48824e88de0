"""The SOCKS5 client against bytes: handshakes split at every byte, refusals, and nonsense."""

import pytest
from cuts import cut_at
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.upstream.socks5 import SOCKS5Client, SOCKS5Error, SOCKS5Failure

HELLO, HELLO_WITH_CREDENTIALS = b"\x05\x01\x00", b"\x05\x02\x00\x02"
REQUEST = b"\x05\x01\x00\x03\x14teleport.example.com\x01\xbb"
CREDENTIALS = b"\x01\x04user\x08p@ssword"
NO_METHOD, ACCEPTED = b"\x05\xff", b"\x01\x00"
BOUND = {
    "IPv4": b"\x05\x00\x00\x01\x0a\x00\x00\x01\x00\x50",
    "IPv6": b"\x05\x00\x00\x04" + bytes(16) + b"\x00\x50",
    "name": b"\x05\x00\x00\x03\x05proxy\x00\x50",
    "empty name": b"\x05\x00\x00\x03\x00\x00\x50",
}
BEHIND = b"\x05\xff first bytes of the connection"


def client(host: str = "teleport.example.com", **credentials: str) -> SOCKS5Client:
    return SOCKS5Client(host, 443, **credentials)


def failure(client: SOCKS5Client, *pieces: bytes) -> SOCKS5Error:
    *good, bad = pieces
    for piece in good:
        client.receive(piece)
    with pytest.raises(SOCKS5Error) as caught:
        client.receive(bad)
    assert not client.connected
    return caught.value


class TestHandshake:
    """What goes back and forth when all is well."""

    def test_without_credentials(self) -> None:
        socks = client()
        assert socks.outgoing() == HELLO
        assert socks.outgoing() == b""
        socks.receive(b"\x05\x00")
        assert socks.outgoing() == REQUEST
        socks.receive(BOUND["IPv4"])
        assert socks.connected
        assert socks.outgoing() == socks.trailing == b""

    def test_with_credentials_that_the_proxy_asks_for(self) -> None:
        socks = client(user="user", password="p@ssword")
        assert socks.outgoing() == HELLO_WITH_CREDENTIALS
        socks.receive(b"\x05\x02")
        assert socks.outgoing() == CREDENTIALS
        socks.receive(ACCEPTED)
        assert socks.outgoing() == REQUEST
        socks.receive(BOUND["IPv6"])
        assert socks.connected

    def test_credentials_are_not_sent_to_a_proxy_that_does_not_ask(self) -> None:
        socks = client(user="user", password="p@ssword")
        socks.outgoing()
        socks.receive(b"\x05\x00")
        assert socks.outgoing() == REQUEST

    @pytest.mark.parametrize(
        ("host", "address"),
        [
            ("a", b"\x03\x01a"),
            ("bücher.example", b"\x03\x15xn--bcher-kva.example"),
            ("x" * 255, b"\x03\xff" + b"x" * 255),
            ("192.0.2.1", b"\x01\xc0\x00\x02\x01"),
            ("2001:db8::1", b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01"),
        ],
    )
    def test_names_go_as_names_and_addresses_as_addresses(self, host: str, address: bytes) -> None:
        socks = client(host)
        socks.outgoing()
        socks.receive(b"\x05\x00")
        assert socks.outgoing() == b"\x05\x01\x00" + address + b"\x01\xbb"

    @pytest.mark.parametrize("bound", BOUND.values(), ids=BOUND.keys())
    @pytest.mark.parametrize("credentials", [{}, {"user": "user", "password": "p@ssword"}])
    def test_every_place_to_cut_gives_the_same_and_loses_nothing(
        self, bound: bytes, credentials: dict[str, str]
    ) -> None:
        wire = (b"\x05\x02" + ACCEPTED if credentials else b"\x05\x00") + bound + BEHIND
        sent = HELLO + REQUEST
        if credentials:
            sent = HELLO_WITH_CREDENTIALS + CREDENTIALS + REQUEST
        for cut in range(1, len(wire)):
            socks = client(**credentials)
            made = socks.outgoing()
            behind = b""
            for piece in (wire[:cut], wire[cut:]):
                if socks.connected:
                    behind += piece  # no longer its business
                else:
                    socks.receive(piece)
                    made += socks.outgoing()
            assert made.endswith(REQUEST)
            assert sent.startswith(made[:3])
            assert socks.trailing + behind == BEHIND

    def test_one_byte_after_the_other(self) -> None:
        socks = client(user="user", password="p@ssword")
        made = socks.outgoing()
        for byte in b"\x05\x02" + ACCEPTED + BOUND["name"]:
            assert not socks.connected
            socks.receive(bytes([byte]))
            made += socks.outgoing()
        assert socks.connected
        assert made == HELLO_WITH_CREDENTIALS + CREDENTIALS + REQUEST


class TestRefusals:
    """In which way it failed, and the proxy's reason."""

    @pytest.mark.parametrize(
        ("reply", "kind", "words"),
        [
            (1, SOCKS5Failure.REFUSED, "general failure"),
            (2, SOCKS5Failure.REFUSED, "not allowed by its rules"),
            (3, SOCKS5Failure.TARGET_UNREACHABLE, "network unreachable"),
            (4, SOCKS5Failure.TARGET_UNREACHABLE, "host unreachable"),
            (5, SOCKS5Failure.TARGET_UNREACHABLE, "connection refused"),
            (6, SOCKS5Failure.TARGET_UNREACHABLE, "time to live expired"),
            (7, SOCKS5Failure.REFUSED, "it does not support connections of this kind"),
            (8, SOCKS5Failure.REFUSED, "it does not support addresses of this kind"),
            (9, SOCKS5Failure.REFUSED, "a reply of its own"),
            (255, SOCKS5Failure.REFUSED, "a reply of its own"),
        ],
    )
    @pytest.mark.parametrize("rest", [b"", b"\x00\x01\0\0\0\0\0\0"])
    def test_a_reply_is_explained_also_when_it_is_cut_short(
        self, reply: int, kind: SOCKS5Failure, words: str, rest: bytes
    ) -> None:
        error = failure(client(), b"\x05\x00", b"\x05" + bytes([reply]) + rest)
        assert error.failure is kind
        assert f"reply {reply} ({words})" in error.reason

    def test_credentials_may_be_missing_or_of_no_use_or_wrong(self) -> None:
        credentials = {"user": "user", "password": "p@ssword"}
        missing = failure(client(), NO_METHOD)
        assert (missing.failure, missing.reason) == (
            SOCKS5Failure.CREDENTIALS_WANTED,
            "requires credentials",
        )
        assert failure(client(**credentials), NO_METHOD).failure is SOCKS5Failure.CREDENTIALS_WANTED
        for status in (b"\x01", b"\xff"):
            wrong = failure(client(**credentials), b"\x05\x02", b"\x01" + status)
            assert wrong.failure is SOCKS5Failure.CREDENTIALS_REJECTED
            assert "p@ssword" not in wrong.reason

    def test_a_name_that_is_too_long_is_refused(self) -> None:
        with pytest.raises(SOCKS5Error, match="more than 255 bytes"):
            client("x" * 256)


class TestNoSOCKS:
    """Other servers, broken ones, and nonsense."""

    @pytest.mark.parametrize(
        ("pieces", "words"),
        [
            ([b"HTTP/1.1 400 Bad Request\r\n"], "looks like an HTTP server"),
            ([b"SSH-2.0-x"], "looks like an SSH server"),
            ([b"\x15\x03\x01\0\2\2\x46"], "looks like a TLS server"),
            ([b"\x04"], "does not speak SOCKS5"),
            ([b"\x05\x02"], "was not offered"),
            ([b"\x05\x01"], "was not offered"),
            ([b"\x05\x00", b"\x04"], "does not speak SOCKS5"),
            ([b"\x05\x00", b"\x05\x00\x00\x02\x00"], "unknown type 2"),
        ],
    )
    def test_it_is_named(self, pieces: list[bytes], words: str) -> None:
        error = failure(client(), *pieces)
        assert error.failure is SOCKS5Failure.NOT_SOCKS
        assert words in error.reason

    def test_an_answer_to_credentials_of_another_version_is_not_taken(self) -> None:
        error = failure(client(user="user"), b"\x05\x02", b"\x05\x00")
        assert error.failure is SOCKS5Failure.NOT_SOCKS

    @pytest.mark.parametrize("size", range(len(b"\x05\x00" + BOUND["name"])))
    def test_an_end_before_it_is_connected_is_a_failure(self, size: int) -> None:
        socks = client()
        if beginning := (b"\x05\x00" + BOUND["name"])[:size]:
            socks.receive(beginning)
        error = failure(socks, b"")
        assert "closed the connection in the middle" in error.reason

    @given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6), st.booleans())
    def test_any_bytes_connect_or_are_refused_the_same_in_one_piece_and_in_many(
        self, wire: bytes, cuts: list[int], with_start: bool
    ) -> None:
        wire = (b"\x05\x00\x05\x00\x00" if with_start else b"\x05") + wire
        assert outcome(wire, cuts) == outcome(wire, [])


def outcome(wire: bytes, cuts: list[int]) -> tuple[object, bytes]:
    socks = client(user="user", password="p@ssword")
    behind = b""
    try:
        for piece in cut_at(wire, cuts):
            if socks.connected:
                behind += piece
            else:
                socks.receive(piece)
    except SOCKS5Error as error:
        return error.failure, b""
    return socks.connected, socks.trailing + behind
