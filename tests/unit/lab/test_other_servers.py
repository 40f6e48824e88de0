"""The stand-ins of tests/support for what is no Teleport Proxy."""

from __future__ import annotations

import ssl

import pytest
import trio
from loopback import TLSStream
from other_servers import (
    PAGE,
    SSH_BANNER,
    no_server,
    open_closing_server,
    open_plain_web_server,
    open_silent_server,
    open_ssh_server,
    open_web_server,
)
from upgraded_client import ask

from dbproxy.lab.authority import Authority
from dbproxy.lab.serving import server_context


async def dial(port: int) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", port)


async def test_an_ssh_server_speaks_first() -> None:
    async with open_ssh_server() as port, await dial(port) as stream:
        assert await stream.receive_some() == SSH_BANNER
        await stream.send_all(b"\x16\x03\x01")
        assert b"Invalid SSH" in await stream.receive_some()


async def test_a_web_server_without_tls_answers_a_hello_with_a_page() -> None:
    async with open_plain_web_server() as port, await dial(port) as stream:
        await stream.send_all(b"\x16\x03\x01")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 400")
    async with open_plain_web_server() as port, await dial(port) as stream:
        assert (await ask(stream, "/webapi/find")).status == 404


async def test_a_web_server_with_tls_knows_no_web_api() -> None:
    authority = Authority.create()
    context = server_context(authority.issue_web_certificate())
    trusting = ssl.create_default_context(cadata=authority.web_ca.pem.decode())
    async with open_web_server(context) as port, await dial(port) as tcp:
        stream = TLSStream(tcp, trusting, server_side=False)
        await stream.do_handshake()
        answer = await ask(stream, "/webapi/find")
        assert (answer.status, answer.body) == (404, PAGE)


async def test_silence_an_end_and_nobody() -> None:
    async with open_silent_server() as port, await dial(port) as stream:
        with trio.move_on_after(0.02) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught
    async with open_closing_server() as port, await dial(port) as stream:
        assert await stream.receive_some() == b""
    async with no_server() as port:
        with pytest.raises(OSError, match="connect"):
            await dial(port)
