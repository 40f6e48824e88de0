"""Whether the Teleport Proxy takes our certificate, seen without opening a session.

With TLS 1.3 a server that rejects a client's certificate says so only after the handshake, so one
has to read to hear it. Nothing is sent: a server that is content waits for the first message.
"""

from typing import Final

import trio

from dbproxy.layers import LayerError
from dbproxy.upstream.dial import UpstreamConnection
from dbproxy.upstream.explain import explain_early_end

__all__ = ["REJECTION_TIME", "check_not_rejected"]

REJECTION_TIME: Final = 1.0
"""Seconds that a server has to reject our certificate after the handshake."""


async def check_not_rejected(upstream: UpstreamConnection) -> None:
    """Read for a moment: silence means that the server waits for the first message.

    The connection stays the caller's to close.

    Raises:
        UpstreamError: It has rejected our certificate, or closed the connection.
    """
    with trio.move_on_after(REJECTION_TIME):
        try:
            received = await upstream.stream.receive_some()
        except (trio.BrokenResourceError, LayerError) as error:
            raise explain_early_end(upstream.address, error) from error
        if not received:
            raise explain_early_end(upstream.address, None)
