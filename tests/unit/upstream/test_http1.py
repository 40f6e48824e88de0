"""One HTTP exchange: what is asked, answers split anywhere, and peers that speak something else."""

import tracemalloc

import pytest
import trio
from cuts import cut_at
from hypothesis import given
from hypothesis import strategies as st
from stream_ends import FakeStream, receive_all
from trio.testing import MockClock

from dbproxy.layers import LayerError
from dbproxy.relay import LayeredStream
from dbproxy.upstream.http1 import HTTPError, HTTPRequest, HTTPResponse, exchange, looks_like

KIB = 1024
GET = HTTPRequest("GET", "/webapi/find", "teleport.example.com:443")
CONNECT = HTTPRequest("CONNECT", "example.com:443", "example.com:443")
UPGRADE = HTTPRequest("GET", "/", "example.com", [("Connection", "Upgrade"), ("Upgrade", "alpn")])
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.0 200 OK\r\n\r\n{}"
CONNECTED = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 squid\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: alpn\r\nConnection: Upgrade\r\n\r\n"


async def ask(request: HTTPRequest, *pieces: bytes, max_body: int = KIB) -> HTTPResponse:
    return await exchange(LayeredStream(FakeStream(*pieces, b"")), request, max_body=max_body)


class TestAsking:
    """What the request looks like."""

    async def test_a_request_names_the_host_and_whom_it_comes_from(self) -> None:
        transport = FakeStream(OK)
        await exchange(LayeredStream(transport), GET)
        lines = transport.sent.split(b"\r\n")
        assert lines[:2] == [b"GET /webapi/find HTTP/1.1", b"Host: teleport.example.com:443"]
        assert lines[2].startswith(b"User-Agent: dbproxy/")
        assert transport.sent.endswith(b"\r\n\r\n")

    async def test_headers_are_sent_as_given_also_twice_the_same(self) -> None:
        transport = FakeStream(OK)
        headers = [("Upgrade", "websocket"), ("Upgrade", "alpn")]
        request = HTTPRequest("GET", "/", "example.com", headers)
        await exchange(LayeredStream(transport), request)
        assert b"\r\nUpgrade: websocket\r\nUpgrade: alpn\r\n" in transport.sent

    def test_headers_may_hold_a_password_and_are_not_shown(self) -> None:
        request = HTTPRequest("GET", "/", "a", [("Proxy-Authorization", "Basic c2VjcmV0")])
        assert "c2VjcmV0" not in repr(request)


class TestAnswers:
    """Bodies of each kind, and the bytes behind an answer."""

    @pytest.mark.parametrize("wire", [OK, CHUNKED, UNTIL_CLOSED])
    async def test_the_body_is_whole_wherever_the_answer_is_cut(self, wire: bytes) -> None:
        for place in range(len(wire) + 1):
            response = await ask(GET, *filter(None, (wire[:place], wire[place:])))
            assert (response.status, response.reason, response.body) == (200, "OK", b"{}")

    @pytest.mark.parametrize(("request_", "wire"), [(CONNECT, CONNECTED), (UPGRADE, SWITCHED)])
    async def test_bytes_behind_a_switch_are_not_lost_wherever_the_answer_is_cut(
        self, request_: HTTPRequest, wire: bytes
    ) -> None:
        behind = b"\x16\x03\x01HTTP/1.1 200 OK\r\n\r\n"
        for place in range(1, len(wire + behind) + 1):
            pieces = ((wire + behind)[:place], (wire + behind)[place:])
            stream = LayeredStream(FakeStream(*filter(None, pieces), b""))
            response = await exchange(stream, request_)
            assert response.body == b""
            assert response.trailing + await receive_all(stream) == behind

    async def test_byte_by_byte(self) -> None:
        pieces = [bytes([byte]) for byte in SWITCHED]
        assert (await ask(UPGRADE, *pieces)).status == 101

    async def test_headers_can_be_looked_up_by_name(self) -> None:
        wire = b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nproxy-authenticate: Basic\r\n\r\n"
        response = await ask(CONNECT, wire)
        assert response.values("proxy-authenticate") == ["NTLM", "Basic"]
        assert response.value("proxy-authenticate") == "NTLM"
        assert response.value("server") is None
        assert str(response) == "407 No"

    async def test_a_refused_connect_has_a_body_like_any_answer(self) -> None:
        wire = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope"
        response = await ask(CONNECT, wire)
        assert (response.status, response.body, response.trailing) == (403, b"nope", b"")

    async def test_interim_answers_are_passed_over(self) -> None:
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"
        assert (await ask(GET, interim * 3 + OK)).body == b"{}"

    @pytest.mark.parametrize("reason", [b"", b" ", b" \xe9", b" " + b"x" * 4000])
    async def test_an_odd_reason_does_not_matter_and_is_short(self, reason: bytes) -> None:
        response = await ask(GET, b"HTTP/1.1 204" + reason + b"\r\n\r\n")
        assert response.status == 204
        assert len(str(response)) <= 104

    async def test_the_answer_may_come_before_the_request_has_been_read(self) -> None:
        transport = FakeStream(OK)
        assert (await exchange(LayeredStream(transport), GET)).status == 200


class TestNoHTTP:
    """Noticed by the first bytes, without waiting for more."""

    @pytest.mark.parametrize(
        ("beginning", "kind"),
        [
            (b"SSH-2.0-OpenSSH_9.6\r\n", "an SSH server"),
            (b"\x15\x03\x01\0\2\2\x46", "a TLS server"),
            (b"220 mail.example.com ESMTP\r\n", "a mail or FTP server"),
            (b"<html>", "a web page without HTTP"),
            (b"\x05\x00", "a SOCKS5 proxy"),
        ],
    )
    async def test_it_is_named_for_what_it_looks_like(self, beginning: bytes, kind: str) -> None:
        stream = LayeredStream(FakeStream(beginning))  # and then it is silent for ever
        with trio.fail_after(1), pytest.raises(HTTPError, match=f"does not speak HTTP.*{kind}"):
            await exchange(stream, GET)

    @pytest.mark.parametrize("beginning", [b"J\0\0\0\n8.0.36\0", b"\0", b"HTTQ", b"http/1.1 200"])
    async def test_anything_else_is_just_not_http(self, beginning: bytes) -> None:
        with pytest.raises(HTTPError, match=r"does not speak HTTP$"):
            await exchange(LayeredStream(FakeStream(beginning)), GET)

    @pytest.mark.parametrize(
        "wire",
        [
            b"HTTP/x.y 200 OK\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        ],
    )
    async def test_an_answer_against_the_grammar_is_refused(self, wire: bytes) -> None:
        with pytest.raises(HTTPError, match=r"not valid HTTP/1\.1"):
            await ask(GET, wire)

    @pytest.mark.parametrize("place", range(len(OK)))
    async def test_an_answer_that_is_broken_off_is_refused_wherever_it_ends(
        self, place: int
    ) -> None:
        with pytest.raises(HTTPError, match=r"closed the connection|not valid"):
            await ask(GET, *filter(None, [OK[:place]]))

    async def test_what_the_transport_raises_goes_through(self) -> None:
        stream = LayeredStream(FakeStream(trio.BrokenResourceError()))
        with pytest.raises(trio.BrokenResourceError):
            await exchange(stream, GET)

    def test_an_unknown_beginning_looks_like_nothing(self) -> None:
        assert looks_like(b"HTTP/1.1") is None
        assert looks_like(b"") is None


class TestHostileAnswers:
    """Bounded memory and time, and no error but the module's own."""

    @pytest.mark.parametrize(
        "wire",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 1025\r\n\r\n" + b"x" * 1025,
            b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1025,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n401\r\n" + b"x" * 1025,
        ],
    )
    async def test_a_body_that_is_too_long_is_refused(self, wire: bytes) -> None:
        with pytest.raises(HTTPError, match="longer than 1024 bytes"):
            await ask(GET, wire, max_body=KIB)

    async def test_a_body_of_just_the_allowed_size_is_taken(self) -> None:
        wire = b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + b"x" * 1024
        assert len((await ask(GET, wire, max_body=KIB)).body) == 1024

    @pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 "])
    async def test_headers_without_end_are_refused_and_take_no_memory(self, start: bytes) -> None:
        tracemalloc.start()
        try:
            with pytest.raises(HTTPError, match=r"not valid HTTP/1\.1"):
                await ask(GET, start, *[b"X-Header: example\r\n" * 50] * 5000)
            _now, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 500 * KIB

    async def test_a_huge_announced_length_takes_no_memory(self) -> None:
        wire = b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999\r\n\r\n"
        with pytest.raises(HTTPError):
            await ask(GET, wire, b"x" * 10)

    async def test_interim_answers_without_end_are_refused(self) -> None:
        with pytest.raises(HTTPError, match="one interim answer after the other"):
            await ask(GET, b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=30),
                st.sampled_from(
                    [
                        b"HTTP/1.1 ",
                        b"200 OK",
                        b"101 X",
                        b"\r\n",
                        b"\r\n\r\n",
                        b"Content-Length: 3",
                        b"Transfer-Encoding: chunked",
                        b"Upgrade: alpn",
                        b"3\r\nabc\r\n",
                        b"0\r\n\r\n",
                    ]
                ),
            ),
            max_size=10,
        ),
        st.sampled_from([GET, CONNECT, UPGRADE]),
    )
    def test_any_bytes_are_an_answer_or_refused(
        self, words: list[bytes], request_: HTTPRequest
    ) -> None:
        async def run() -> None:
            try:
                await ask(request_, b"HTTP/1.1 200 OK\r\n", *filter(None, words))
            except HTTPError:
                return

        trio.run(run)

    @given(st.sampled_from([OK, CHUNKED, UNTIL_CLOSED]), st.lists(st.integers(0, 300), max_size=8))
    def test_cuts_anywhere_change_nothing(self, wire: bytes, cuts: list[int]) -> None:
        response = trio.run(ask, GET, *cut_at(wire, cuts))
        assert (response.status, response.body) == (200, b"{}")


@pytest.mark.parametrize("place", [0, 3, len(OK) - 1])
async def test_waiting_for_an_answer_can_be_cancelled(
    place: int, autojump_clock: MockClock
) -> None:
    stream = LayeredStream(FakeStream(*filter(None, [OK[:place]])))
    with trio.move_on_after(5) as scope:
        await exchange(stream, GET)
    assert scope.cancelled_caught


def test_a_failure_of_http_is_no_failure_of_a_layer() -> None:
    assert not issubclass(HTTPError, LayerError)
