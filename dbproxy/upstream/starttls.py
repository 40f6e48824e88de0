"""Asking a server that speaks the database protocol to begin with TLS."""

import trio

from dbproxy.errors import Code, UpstreamError
from dbproxy.layers import LayerError
from dbproxy.protocols import UpstreamGreeting
from dbproxy.relay import LayeredStream
from dbproxy.upstream.address import ProxyAddress
from dbproxy.upstream.explain import explain_early_end
from dbproxy.upstream.secure import too_slow

__all__ = ["ask_for_tls"]


async def ask_for_tls(
    stream: LayeredStream, address: ProxyAddress, greeting: UpstreamGreeting, *, limit: float
) -> None:
    """Make the stream one on which the server awaits a ClientHello.

    Cancelled or failed, the stream is good for nothing but being closed, which is the caller's.

    Args:
        stream: Where the database protocol has not begun.
        address: The Teleport Proxy's.
        greeting: How the protocol asks, and what means yes.
        limit: Seconds until the answer must be there.

    Raises:
        UpstreamError: What went wrong, by its code.
    """
    try:
        with trio.fail_after(limit):
            await stream.send_all(greeting.request)
            received = await stream.receive_some(len(greeting.answer))
    except trio.TooSlowError as error:
        raise too_slow("request for TLS", address, limit) from error
    except (LayerError, trio.BrokenResourceError) as error:
        raise explain_early_end(address, error) from error
    if not received:
        raise explain_early_end(address, None)
    if received != greeting.answer:
        raise UpstreamError(
            Code.UPSTREAM_TLS_FAILED,
            f"the server at {address} answered {received!r} when asked for TLS",
        )
