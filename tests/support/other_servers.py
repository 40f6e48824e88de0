"""What may be at an address instead of a Teleport Proxy."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import trio
from loopback import TLSStream, open_server, tls_handler, wait_for_end

SSH_BANNER = b"SSH-2.0-OpenSSH_9.6\r\n"
PAGE = b"<!DOCTYPE html>\n<title>Welcome to nginx!</title>\n"
HTTP_400 = (
    b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nContent-Type: text/html\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(PAGE)
) + PAGE
HTTP_404 = HTTP_400.replace(b"400 Bad Request", b"404 Not Found")


def open_ssh_server() -> AbstractAsyncContextManager[int]:
    """Sends an SSH banner at once, and complains about what is none."""

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(SSH_BANNER)
            await stream.receive_some()
            await stream.send_all(b"Invalid SSH identification string.\r\n")

    return open_server(serve)


def open_plain_web_server() -> AbstractAsyncContextManager[int]:
    """A web server without TLS, which answers a ClientHello with a page and 400."""

    async def serve(stream: trio.SocketStream) -> None:
        received = await stream.receive_some()
        await stream.send_all(HTTP_404 if received.startswith(b"GET ") else HTTP_400)

    return open_server(serve)


def open_web_server(
    context: ssl.SSLContext, answer: bytes = HTTP_404
) -> AbstractAsyncContextManager[int]:
    """A web server with TLS; it selects no ALPN value unless the context does."""

    async def serve(stream: TLSStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.send_eof()
        await wait_for_end(stream)

    return open_server(tls_handler(context, serve))


def open_silent_server() -> AbstractAsyncContextManager[int]:
    """Accepts, and never says anything; ends when the client does."""
    return open_server(wait_for_end)


def open_closing_server() -> AbstractAsyncContextManager[int]:
    """Accepts, and closes at once."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_eof()

    return open_server(serve)


@asynccontextmanager
async def no_server() -> AsyncIterator[int]:
    """A port on which nobody listens."""
    async with open_silent_server() as port:
        pass
    yield port
