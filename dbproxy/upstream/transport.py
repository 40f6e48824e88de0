"""The way to the Teleport Proxy: TCP, directly or through an outbound proxy.

What comes out is a connection whose first byte is the Teleport Proxy's, or that of the balancer in
front of it. TLS to it, the connection upgrade and ping framing are put on top by others.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import inf
from socket import AF_INET, AF_INET6, AddressFamily, inet_pton
from typing import Final, TypeAlias

import trio

from dbproxy.errors import Code, Prospect, UpstreamError
from dbproxy.layers import LayerError, TLSLayer, TruncatedError
from dbproxy.relay import LayeredStream, closed_on_failure, connect_now, keep_alive
from dbproxy.upstream.address import ProxyAddress
from dbproxy.upstream.explain import explain_connect_failure
from dbproxy.upstream.http1 import BrokenOffError, HTTPError, HTTPRequest, HTTPResponse, exchange
from dbproxy.upstream.judgement import ServerJudgement
from dbproxy.upstream.outbound_proxy import OutboundProxy, ascii_host, outbound_proxy_for
from dbproxy.upstream.socks5 import SOCKS5Client, SOCKS5Error, SOCKS5Failure

__all__ = ["ProxyTLS", "Transport"]

_PROXY_AUTHENTICATION_REQUIRED: Final = 407
_TARGET_UNREACHABLE: Final = {502, 503, 504}
"""What HTTP proxies answer when they cannot resolve or reach the target (RFC 9110 §15.6)."""
_BASIC: Final = re.compile(r"\bbasic\b", re.IGNORECASE)
_MAX_QUOTED: Final = 100
"""Characters of a header that are quoted in a message."""


ProxyTLS: TypeAlias = Callable[[str], tuple[TLSLayer, ServerJudgement]]
"""Makes the TLS layer for an `https://` outbound proxy with this host name.

It trusts the system's authorities and those that were named, and shows no certificate of ours.
"""


class Transport:
    """Makes connections to a Teleport Proxy, through an outbound proxy where there is one.

    Args:
        environ: The environment variables.
        proxy_tls: Makes the TLS layer for `https://` outbound proxies.
    """

    def __init__(self, environ: Mapping[str, str], proxy_tls: ProxyTLS) -> None:
        self._environ = environ
        self._proxy_tls = proxy_tls

    def outbound_proxy(self, address: ProxyAddress) -> OutboundProxy | None:
        """The outbound proxy on the way to `address`, or None.

        Raises:
            UsageError: A variable that names one cannot be understood.
        """
        return outbound_proxy_for(self._environ, address.host, address.port)

    async def connect(self, address: ProxyAddress, *, limit: float = inf) -> LayeredStream:
        """Connect; all addresses that a name leads to are tried (RFC 8305).

        Cancelled or failed, it leaves no socket behind.

        Args:
            address: Where to.
            limit: Seconds for all of it.

        Raises:
            trio.TooSlowError: It took too long.
            UpstreamError: `upstream-unreachable`, `outbound-proxy-unreachable`,
                `outbound-proxy-refused` or `too-many-files`.
            UsageError: A variable that names an outbound proxy cannot be understood.
        """
        proxy = self.outbound_proxy(address)
        if proxy is None:
            explain = partial(explain_connect_failure, address)
            return await _open(address.host, address.port, explain, limit)
        with trio.fail_after(limit):
            return await self._connect_through(proxy, address)

    async def _connect_through(self, proxy: OutboundProxy, address: ProxyAddress) -> LayeredStream:
        explain = partial(
            explain_connect_failure,
            proxy.in_words,
            peer="outbound proxy",
            code=Code.OUTBOUND_PROXY_UNREACHABLE,
        )
        stream = await _open(proxy.host, proxy.port, explain, inf)
        async with closed_on_failure(stream):
            if proxy.scheme == "https":
                await self._start_tls(stream, proxy)
            with _explained(proxy):
                if proxy.speaks_socks:
                    await _ask_socks5(stream, proxy, address)
                else:
                    await _ask_http(stream, proxy, address)
        return stream

    async def _start_tls(self, stream: LayeredStream, proxy: OutboundProxy) -> None:
        layer, judgement = self._proxy_tls(proxy.host)
        try:
            await stream.add_layer(layer)
        except (LayerError, trio.BrokenResourceError) as error:
            reason = error if isinstance(error, LayerError) else "the connection was reset"
            how = f"the TLS handshake with it failed: {reason}"
            if judgement.complaint is not None:
                how = f"the certificate that it showed {judgement.complaint}"
            raise UpstreamError(
                Code.OUTBOUND_PROXY_UNREACHABLE, f"cannot use {_named(proxy)}: {how}"
            ) from error


async def _open(
    host: str, port: int, explain: Callable[[OSError], UpstreamError], limit: float
) -> LayeredStream:
    try:
        family = _family_of(host)
        if family is None:
            with trio.fail_after(limit):
                stream = await trio.open_tcp_stream(host, port)
        else:
            stream = await connect_now(family, host, port, limit=limit)
    except OSError as error:
        raise explain(error) from error
    keep_alive(stream.socket)
    return LayeredStream(stream)


def _family_of(host: str) -> AddressFamily | None:
    """The family of an IP address; None for a name, which may lead to several addresses."""
    for family in (AF_INET, AF_INET6):
        try:
            inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return family
    return None


async def _ask_http(stream: LayeredStream, proxy: OutboundProxy, address: ProxyAddress) -> None:
    target = str(ProxyAddress(ascii_host(address.host), address.port))
    headers = []
    if proxy.user is not None:
        credentials = b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        headers.append(("Proxy-Authorization", f"Basic {credentials}"))
    request = HTTPRequest("CONNECT", target, target, headers)
    response = await exchange(stream, request)
    if not 200 <= response.status < 300:
        raise _http_refusal(response, proxy, address)
    stream.unread(response.trailing)


async def _ask_socks5(stream: LayeredStream, proxy: OutboundProxy, address: ProxyAddress) -> None:
    try:
        client = SOCKS5Client(address.host, address.port, proxy.user, proxy.password)
        while not client.connected:
            if outgoing := client.outgoing():
                await stream.send_all(outgoing)
            client.receive(await stream.receive_some())
    except SOCKS5Error as error:
        raise _socks_refusal(error, proxy, address) from error
    stream.unread(client.trailing)


@contextmanager
def _explained(proxy: OutboundProxy) -> Iterator[None]:
    """Put what goes wrong while the outbound proxy is asked into words."""
    try:
        yield
    except BrokenOffError as error:
        raise UpstreamError(
            Code.OUTBOUND_PROXY_REFUSED,
            f"{_named(proxy)} cannot be used: {error}",
            prospect=Prospect.ONCE,
        ) from error
    except HTTPError as error:
        raise UpstreamError(
            Code.OUTBOUND_PROXY_REFUSED,
            f"{_named(proxy)} cannot be used: {error}",
            next_step=_check_scheme(proxy),
        ) from error
    except trio.BrokenResourceError as error:
        raise UpstreamError(
            Code.OUTBOUND_PROXY_REFUSED,
            f"{_named(proxy)} reset the connection",
            prospect=Prospect.SOON,
        ) from error
    except LayerError as error:
        raise UpstreamError(
            Code.OUTBOUND_PROXY_REFUSED,
            f"{_named(proxy)} broke off: {error}",
            prospect=Prospect.ONCE if isinstance(error, TruncatedError) else Prospect.NONE,
        ) from error


def _named(proxy: OutboundProxy) -> str:
    return f"the outbound proxy {proxy.in_words}"


def _check_scheme(proxy: OutboundProxy) -> str:
    return (
        f"Check that {proxy.variable} has the right scheme and port: {proxy.scheme}:// is for"
        f" proxies that speak {'SOCKS5' if proxy.speaks_socks else 'HTTP'}."
    )


def _http_refusal(
    response: HTTPResponse, proxy: OutboundProxy, address: ProxyAddress
) -> UpstreamError:
    if response.status in _TARGET_UNREACHABLE:
        return _target_unreachable(proxy, address, f"answered {response}")
    message = f"{_named(proxy)} answered {response} when asked for a connection to {address}"
    if response.status == _PROXY_AUTHENTICATION_REQUIRED:
        return _authentication_failed(response, proxy, message)
    return UpstreamError(Code.OUTBOUND_PROXY_REFUSED, message)


def _authentication_failed(
    response: HTTPResponse, proxy: OutboundProxy, message: str
) -> UpstreamError:
    offered = ", ".join(response.values("proxy-authenticate"))[:_MAX_QUOTED]
    if offered and not _BASIC.search(offered):
        return UpstreamError(
            Code.OUTBOUND_PROXY_REFUSED,
            f"{message}: it offers the authentication {offered!r}, and dbproxy knows Basic only",
            next_step="Let the outbound proxy admit this host without authentication, or run a"
            " local proxy that authenticates to it.",
        )
    why = "requires credentials" if proxy.user is None else "rejected the credentials"
    return _credentials_needed(proxy, f"{message}: it {why}")


def _credentials_needed(proxy: OutboundProxy, message: str) -> UpstreamError:
    """There are none in the variable, or those were rejected."""
    next_step = (
        f"Check user name and password in {proxy.variable}; special characters must be"
        " percent-encoded."
    )
    if proxy.user is None:
        next_step = (
            f"Put user name and password into {proxy.variable}, as"
            f" {proxy.scheme}://USER:PASSWORD@HOST:PORT with special characters percent-encoded."
        )
    return UpstreamError(Code.OUTBOUND_PROXY_REFUSED, message, next_step=next_step)


def _socks_refusal(
    error: SOCKS5Error, proxy: OutboundProxy, address: ProxyAddress
) -> UpstreamError:
    message = f"{_named(proxy)} {error.reason} when asked for a connection to {address}"
    match error.failure:
        case SOCKS5Failure.TARGET_UNREACHABLE:
            return _target_unreachable(proxy, address, error.reason)
        case SOCKS5Failure.BROKEN_OFF:
            return UpstreamError(Code.OUTBOUND_PROXY_REFUSED, message, prospect=Prospect.ONCE)
        case SOCKS5Failure.CREDENTIALS_WANTED if proxy.user is None:
            return _credentials_needed(proxy, message)
        case SOCKS5Failure.CREDENTIALS_REJECTED:
            return _credentials_needed(proxy, message)
        case SOCKS5Failure.NOT_SOCKS:
            return UpstreamError(
                Code.OUTBOUND_PROXY_REFUSED, message, next_step=_check_scheme(proxy)
            )
    return UpstreamError(Code.OUTBOUND_PROXY_REFUSED, message)


def _target_unreachable(proxy: OutboundProxy, address: ProxyAddress, answer: str) -> UpstreamError:
    return UpstreamError(
        Code.UPSTREAM_UNREACHABLE,
        f"{_named(proxy)} cannot reach the Teleport Proxy at {address}: it {answer}",
    )
