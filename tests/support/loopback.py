"""Servers and clients on loopback, and a look at the descriptors that they leave."""

import gc
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import psutil
import trio

Handler = Callable[[trio.SocketStream], Awaitable[None]]
TLSHandler = Callable[["trio.SSLStream[trio.SocketStream]"], Awaitable[None]]


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Fails when more descriptors are open at the end than at the beginning."""
    process = psutil.Process()
    before = process.num_fds()
    yield
    if process.num_fds() > before:
        gc.collect()  # costs too much to do it each time
    assert process.num_fds() <= before


@asynccontextmanager
async def open_server(handler: Handler) -> AsyncIterator[int]:
    """Serve TCP on a free port of 127.0.0.1, the number of which is the value."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, handler, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def tls_handler(context: ssl.SSLContext, handler: TLSHandler) -> Handler:
    """Do TLS as a server, then go on with `handler`; a handshake that fails just ends."""

    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            await tls.do_handshake()
            await handler(tls)
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(tls)

    return serve


async def wait_for_end(stream: trio.abc.ReceiveStream) -> None:
    """Read until the peer ends or breaks the connection."""
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        return
