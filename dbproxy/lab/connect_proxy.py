"""An HTTP CONNECT proxy (RFC 9110 §9.3.6), with or without TLS towards the client."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

import h11
import trio

from dbproxy.lab.errors import LabError
from dbproxy.lab.faulty_stream import FaultyStream
from dbproxy.lab.http_server import HttpConnection, header
from dbproxy.lab.keys import KeyPair
from dbproxy.lab.outbound import Credentials, OutboundOptions, OutboundProxy
from dbproxy.lab.serving import HANDSHAKE_TIMEOUT, server_context, serving
from dbproxy.lab.streams import PrefixedStream
from dbproxy.lab.tls import TLSServerStream

CHALLENGE: Final = (b"Proxy-Authenticate", b'Basic realm="lab"')
CLOSE: Final = (b"Connection", b"close")


@asynccontextmanager
async def open_connect_proxy(
    options: OutboundOptions | None = None, *, certificate: KeyPair | None = None
) -> AsyncIterator[OutboundProxy]:
    """Runs an HTTP CONNECT proxy for the length of the block.

    ``planned`` takes HTTP statuses: 403, 407, 502, or anything else but 2xx. By itself it answers
    200, 407 for missing or wrong credentials, 405 for other methods, and 502 when it cannot reach
    the target.

    Args:
        options: how it behaves.
        certificate: what it shows to clients; its URL is ``https://`` then. ``None`` for no TLS.
    """
    proxy = _ConnectProxy(options or OutboundOptions(), certificate)
    async with serving(proxy.options.listen, proxy.faults, proxy.serve) as proxy.address:
        yield proxy


class _ConnectProxy(OutboundProxy):
    def __init__(self, options: OutboundOptions, certificate: KeyPair | None) -> None:
        super().__init__("http" if certificate is None else "https", options)
        self._context = server_context(certificate) if certificate is not None else None

    async def serve(self, transport: FaultyStream) -> None:
        """Serves one client."""
        if self._context is None:
            await self._serve_http(transport, transport)
            return
        tls = TLSServerStream(transport, self._context)
        with trio.fail_after(HANDSHAKE_TIMEOUT):
            await tls.do_handshake()
        async with tls:
            await self._serve_http(tls, transport)

    async def _serve_http(
        self, stream: trio.abc.HalfCloseableStream, transport: FaultyStream
    ) -> None:
        http = HttpConnection(stream)
        while (request := await http.receive()) is not None:
            status = self._judge(request)
            if status == HTTPStatus.OK:
                await self._serve_tunnel(stream, transport, http, request)
                return
            self._note(request, status)
            headers = [CHALLENGE] if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED else []
            await transport.answer(stream, http.answer(status, headers))

    async def _serve_tunnel(
        self,
        stream: trio.abc.HalfCloseableStream,
        transport: FaultyStream,
        http: HttpConnection,
        request: h11.Request,
    ) -> None:
        try:
            server = await self.open_target(request.target.decode("latin-1"))
        except (OSError, LabError):
            self._note(request, HTTPStatus.BAD_GATEWAY)
            await transport.answer(stream, http.answer(HTTPStatus.BAD_GATEWAY, [CLOSE]))
            return
        async with server:
            self._note(request, HTTPStatus.OK)
            await transport.answer(stream, http.head(HTTPStatus.OK) + self.options.extra)
            await self.carry(PrefixedStream(stream, http.rest()), server)

    def _judge(self, request: h11.Request) -> int:
        if self.planned:
            return self.planned.popleft()
        if request.method != b"CONNECT":
            return HTTPStatus.METHOD_NOT_ALLOWED
        wanted = self.options.credentials
        if wanted is not None and _credentials(request) != wanted:
            return HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
        return HTTPStatus.OK

    def _note(self, request: h11.Request, status: int) -> None:
        self.note(request.target.decode("latin-1"), _credentials(request), status)


def _credentials(request: h11.Request) -> Credentials | None:
    """Reads Basic credentials (RFC 7617)."""
    scheme, _, encoded = header(request, "Proxy-Authorization").partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    user, _, password = text.partition(":")
    return Credentials(user, password)
