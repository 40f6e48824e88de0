"""What dbproxy itself says to a server that speaks the database protocol, to begin with TLS."""

import trio

from dbproxy.errors import Code, UpstreamError
from dbproxy.layers import LayerError
from dbproxy.protocols import UpstreamGreeting
from dbproxy.relay import LayeredStream
from dbproxy.upstream.address import ProxyAddress
from dbproxy.upstream.explain import explain_early_end
from dbproxy.upstream.secure import too_slow

__all__ = ["ask_for_tls", "greet"]


async def greet(
    stream: LayeredStream, address: ProxyAddress, greeting: UpstreamGreeting, *, limit: float
) -> bytes:
    """Say the greeting, and return as many bytes as its answer has; the caller compares them.

    Cancelled or failed, the stream is good for nothing but being closed, which is the caller's.

    Args:
        stream: Where the database protocol has not begun.
        address: The Teleport Proxy's.
        greeting: What to say, and how long an answer to read.
        limit: Seconds until the answer must be there.

    Raises:
        UpstreamError: There is no whole answer; why, by its code.
    """
    answer, missing = b"", len(greeting.answer)
    try:
        with trio.fail_after(limit):
            await stream.send_all(greeting.request)
            while missing and (received := await stream.receive_some(missing)):
                answer += received
                missing -= len(received)
    except trio.TooSlowError as error:
        raise too_slow("request for TLS", address, limit) from error
    except (LayerError, trio.BrokenResourceError) as error:
        raise explain_early_end(address, error) from error
    if missing:
        raise explain_early_end(address, None)
    return answer


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
    answer = await greet(stream, address, greeting, limit=limit)
    if answer != greeting.answer:
        raise UpstreamError(
            Code.UPSTREAM_TLS_FAILED,
            f"the server at {address} answered {answer!r} when asked for TLS",
        )
