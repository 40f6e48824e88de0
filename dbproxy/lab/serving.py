"""Small servers of the lab: what they have in common."""

from __future__ import annotations

import logging
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

import trio

from dbproxy.lab.address import parse_tcp_address
from dbproxy.lab.errors import LabError
from dbproxy.lab.faults import Injector, Step
from dbproxy.lab.faulty_stream import FaultyStream
from dbproxy.lab.keys import KeyPair
from dbproxy.lab.listener import Listener
from dbproxy.lab.streams import LingeringStream

LOOPBACK: Final = "127.0.0.1:0"
HANDSHAKE_TIMEOUT: Final = 15.0
"""Seconds that a client may take for a TLS handshake."""

ENDS: Final = (
    LabError,
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
)
"""How connections end that do not end well."""

log = logging.getLogger(__name__)

ServeTransport: TypeAlias = Callable[[FaultyStream], Awaitable[None]]
"""Serves one connection; need not close it."""


@asynccontextmanager
async def serving(listen: str, injector: Injector, serve: ServeTransport) -> AsyncIterator[str]:
    """Serves an address for the length of the block; its value is ``HOST:PORT``.

    Whatever a client can cause ends with its connection.

    Raises:
        LabError: the address is malformed, or cannot be listened on.
    """

    async def serve_connection(connection: trio.SocketStream) -> None:
        below = LingeringStream(connection)
        async with FaultyStream(below, connection, injector) as transport:
            try:
                await transport.reach(Step.ACCEPT)
                await serve(transport)
            except* ENDS as group:
                log.debug("a connection ended: %r", group)

    listener = Listener(parse_tcp_address(listen), serve_connection)
    await listener.bind()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.run)
        yield str(listener.address)
        nursery.cancel_scope.cancel()


def server_context(pair: KeyPair) -> ssl.SSLContext:
    """Makes the context of a TLS server; the standard library reads key pairs from files only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(pair.key_pem + pair.certificate_pem)
        file.flush()
        context.load_cert_chain(Path(file.name))
    return context
