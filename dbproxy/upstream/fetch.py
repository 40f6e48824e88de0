"""Asking the web server of a Teleport Proxy, with the trust of a database connection."""

from collections.abc import Callable
from typing import Final

import trio

from dbproxy.errors import Code, UpstreamError
from dbproxy.identity import Identity
from dbproxy.layers import LayerError
from dbproxy.upstream.address import ProxyAddress
from dbproxy.upstream.http1 import HTTPError, HTTPRequest, exchange
from dbproxy.upstream.secure import SecureDialer
from dbproxy.upstream.webapi import MAXIMUM_ANSWER, FetchedAnswer

__all__ = ["WebFetcher"]

_ALPN: Final = ("http/1.1",)


class WebFetcher:
    """Fetches pages of a Teleport Proxy; a `Fetch`.

    Args:
        dialer: Makes the TLS connections.
        identity: Returns the identity whose Host CA is trusted, if there is one; its certificate is
            not shown.
    """

    def __init__(self, dialer: SecureDialer, identity: Callable[[], Identity | None]) -> None:
        self._dialer = dialer
        self._identity = identity

    async def __call__(self, address: ProxyAddress, path: str) -> FetchedAnswer:
        """GET `path` at `address`. Cancelled or failed, it leaves no socket behind.

        Raises:
            UpstreamError: There is no connection, no trust or no HTTP response.
        """
        secured = await self._dialer.dial(address, _ALPN, self._identity())
        async with secured.stream:
            request = HTTPRequest("GET", path, str(address), [("Accept", "application/json")])
            try:
                response = await exchange(secured.stream, request, max_body=MAXIMUM_ANSWER)
            except (HTTPError, LayerError) as error:
                raise _no_answer(address, path, str(error)) from error
            except trio.BrokenResourceError as error:
                raise _no_answer(address, path, "it reset the connection") from error
            secured.tls.remember()
        headers = dict(reversed(response.headers))  # of several, the first counts
        return FetchedAnswer(response.status, headers, response.body)


def _no_answer(address: ProxyAddress, path: str, reason: str) -> UpstreamError:
    return UpstreamError(
        Code.UPSTREAM_PROTOCOL_ERROR,
        f"the server at {address} gave no answer to GET {path}: {reason}",
    )
