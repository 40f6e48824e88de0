"""What answers at the address, by its first bytes."""

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from loopback import Handler, open_server, wait_for_end
from trio.testing import MockClock

from dbproxy.errors import Code
from dbproxy.layers import TLSError
from dbproxy.upstream.ask import ask_what_it_is
from dbproxy.upstream.explain import explain_handshake_failure
from dbproxy.upstream.recognise import (
    POSTGRES_QUESTION,
    recognise,
    recognise_answer,
    speaks_tls,
)

POSTGRES_ERROR = b"E\0\0\0\x4cSFATAL\0VFATAL\0C08P01\0Mno\0\0"
MYSQL_GREETING = b"\x4a\0\0\0\x0a8.0.36\0\x08\0\0\0"
MARIADB_GREETING = b"\x5b\0\0\0\x0a5.5.5-10.11.6-MariaDB\0"
MYSQL_ERROR = b"\x45\0\0\0\xff\x6a\x04Host 'x' is not allowed"

GREETINGS = [
    (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "an SSH server"),
    (b"SSH-2.0-Teleport", "an SSH server"),
    (b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n", "a web server without TLS (plain HTTP)"),
    (b"HTTP/1.0 200 OK\r\n", "a web server without TLS (plain HTTP)"),
    (b"<html>\r\n<head><title>400 The plain", "a web server without TLS (plain HTTP)"),
    (b"<!DOCTYPE html>", "a web server without TLS (plain HTTP)"),
    (POSTGRES_ERROR, "a PostgreSQL server"),
    (b"EFATAL:  unsupported frontend protocol 5635.513\n\0", "a PostgreSQL server"),
    (MYSQL_GREETING, "a MySQL or MariaDB server"),
    (MARIADB_GREETING, "a MySQL or MariaDB server"),
    (MYSQL_ERROR, "a MySQL or MariaDB server"),
    (b"220 mail.example.com ESMTP Postfix\r\n", "a mail server (SMTP)"),
    (b"220 (vsFTPd 3.0.5)\r\n", "an FTP server"),
    (b"220 ready\r\n", "a mail or FTP server"),
    (b"+OK Dovecot ready.\r\n", "a mail server (POP3)"),
    (b"* OK [CAPABILITY IMAP4rev1]\r\n", "a mail server (IMAP)"),
    (b"-ERR unknown command\r\n", "a Redis server"),
    (b"RFB 003.008\n", "a VNC server"),
    (b"\0\0\x12\x04\0\0\0\0\0\0\3\0\0\0\x64", "a web server without TLS (plain HTTP/2)"),
]


@pytest.mark.parametrize(
    ("greeting", "likeness"), GREETINGS, ids=[str(g[0][:9]) for g in GREETINGS]
)
def test_a_server_is_recognised_by_its_first_bytes(greeting: bytes, likeness: str) -> None:
    assert recognise(greeting) == likeness
    assert recognise(greeting[:64]) == likeness
    error = TLSError("wrong version number", alert=None, during_handshake=True)
    explained = explain_handshake_failure("x:443", error, complaint=None, alpn=(), heard=greeting)
    assert explained.code is Code.UPSTREAM_NOT_TELEPORT
    assert (
        explained.message
        == f"what answers at x:443 looks like {likeness}, not like a Teleport Proxy"
    )


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"\x15\x03\x01\0\x02\x02\x46",
        b"\x16\x03\x03\0\x7a\x02\0\0\x76",
        b"\x16\x03\x03\0\0\x0a5.",
        bytes(100),
        b"E",
        b"hello",
    ],
)
def test_what_is_like_nothing_known_is_not_guessed(greeting: bytes) -> None:
    assert recognise(greeting) is None


@pytest.mark.parametrize("size", range(1, 8))
def test_a_beginning_of_tls_may_be_tls(size: int) -> None:
    assert speaks_tls(b"\x15\x03\x03\0\x02\x02\x28"[:size])


@given(st.binary(max_size=80))
def test_any_bytes_at_all_are_looked_at_without_an_error(first: bytes) -> None:
    likeness = recognise(first)
    assert likeness is None or not (speaks_tls(first) and len(first) > 2)


def test_the_question_is_postgresqls_sslrequest() -> None:
    assert (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big") == POSTGRES_QUESTION


@pytest.mark.parametrize(
    ("answer", "likeness"),
    [
        (b"N", "a PostgreSQL server"),
        (POSTGRES_ERROR, "a PostgreSQL server"),
        (b"S", None),
        (b"", None),
        (b"HTTP/1.1 400 Bad Request", "a web server without TLS (plain HTTP)"),
    ],
)
def test_only_a_clear_answer_counts(answer: bytes, likeness: str | None) -> None:
    # Teleport's web port answers `S`, too.
    assert recognise_answer(answer) == likeness


class TestAsking:
    """Over a real connection."""

    def connect_to(self, port: int) -> Callable[[], Awaitable[trio.SocketStream]]:
        return partial(trio.open_tcp_stream, "127.0.0.1", port)

    async def ask(self, handler: Handler, patience: float = 10) -> str | None:
        async with open_server(handler) as port:
            return await ask_what_it_is(self.connect_to(port), patience=patience)

    async def test_postgresql_is_recognised(self) -> None:
        async def postgres(stream: trio.SocketStream) -> None:
            assert await stream.receive_some() == POSTGRES_QUESTION
            await stream.send_all(b"N")
            await wait_for_end(stream)

        assert await self.ask(postgres) == "a PostgreSQL server"

    async def test_a_server_that_closes_again_stays_unknown(self) -> None:
        async def close(stream: trio.SocketStream) -> None:
            await stream.aclose()

        assert await self.ask(close) is None

    async def test_a_server_that_says_nothing_is_given_up(self, autojump_clock: MockClock) -> None:
        client, server = trio.testing.memory_stream_pair()

        async def connect() -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            return client

        assert await ask_what_it_is(connect, patience=7) is None
        assert trio.current_time() >= 7
        assert await server.receive_some() == POSTGRES_QUESTION
        assert await server.receive_some() == b"", "it was closed"

    async def test_a_server_that_is_gone_stays_unknown(self) -> None:
        async with open_server(wait_for_end) as port:
            pass
        assert await ask_what_it_is(self.connect_to(port), patience=10) is None

    async def test_cancelled_it_leaves_no_socket(self) -> None:
        async with open_server(wait_for_end) as port, trio.open_nursery() as nursery:
            nursery.start_soon(lambda: ask_what_it_is(self.connect_to(port), patience=10))
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
