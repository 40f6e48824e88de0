"""The connection upgrade: an HTTP request after which the connection carries TLS routing.

A balancer of layer 7 ends our TLS and passes on HTTP only. So the request asks the Teleport Proxy
behind it to take the rest of the connection as if it had come directly: a ClientHello with SNI and
ALPN, the client certificate inside, and so on.

There are two kinds. WebSocket (15.1 and later) puts the bytes into frames, which every balancer
understands; the legacy kind (10 to 18) leaves them as they are. One request offers both, as
Teleport's own tools did from 15.1 to 17.3.0, because so it reaches all of these versions without a
second attempt: a server that knows WebSocket prefers it, and one that does not takes the other.
The two are separate header lines, for servers compare whole values, and WebSocket is the first, for
that is the one that balancers look for. `X-Teleport-Upgrade` repeats the legacy kind, because some
balancers rewrite `Upgrade`.

Source: Teleport, `api/client/alpn_conn_upgrade.go` and `lib/web/conn_upgrade.go`; RFC 6455 §4.1.
"""

import hashlib
import os
from base64 import b64encode
from typing import Final

import trio

from dbproxy.errors import Code, Prospect, UpstreamError
from dbproxy.layers import LayerError, TruncatedError, WebSocketLayer
from dbproxy.relay import LayeredStream
from dbproxy.upstream.address import ProxyAddress
from dbproxy.upstream.http1 import BrokenOffError, HTTPError, HTTPRequest, HTTPResponse, exchange
from dbproxy.upstream.outbound_proxy import ascii_host
from dbproxy.upstream.upgrade_override import UpgradeMode

__all__ = ["upgrade"]

_PATH: Final = "/webapi/connectionupgrade"
_PROTOCOL: Final = "alpn"
"""Not `alpn-ping`: database connections have the pings of their own ALPN protocol, inside."""
_WEBSOCKET: Final = "websocket"
_ACCEPT_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 §1.3."""
_SWITCHING_PROTOCOLS: Final = 101
_NOT_FOUND: Final = 404
_MEANINGS: Final = {
    _NOT_FOUND: "it is a web server, but no Teleport Proxy, or one too old for connection upgrades",
    400: "something on the way does not pass the upgrade on",
    403: "something on the way forbids the upgrade",
    426: "something on the way wants another protocol",
    502: "the load balancer does not reach the Teleport Proxy",
    503: "the load balancer does not reach the Teleport Proxy",
    504: "the load balancer does not reach the Teleport Proxy",
}
_NOT_REACHED: Final = frozenset({502, 503, 504})
"""What balancers answer while the Teleport Proxies behind them are restarted."""
_REDIRECTS: Final = range(300, 400)


async def upgrade(
    stream: LayeredStream, address: ProxyAddress, mode: UpgradeMode = UpgradeMode.BOTH
) -> None:
    """Make the stream one that carries TLS routing; the next byte to send is the inner TLS's.

    Cancelled or failed, the stream is good for nothing but being closed, which is the caller's to
    do. There is no time-out here.

    Args:
        stream: After the outer TLS handshake, which offers no ALPN and shows no certificate.
        address: The Teleport Proxy's.
        mode: Which kinds of upgrade to offer.

    Raises:
        UpstreamError: `upgrade-failed`.
    """
    key = b64encode(os.urandom(16)).decode()
    request = _request(address, mode, key)
    try:
        response = await exchange(stream, request)
        _check(response, address)
        if _is_websocket(response):
            _check_websocket(response, address, key)
            await stream.add_layer(WebSocketLayer(), response.trailing)
        else:
            stream.unread(response.trailing)
    except (BrokenOffError, TruncatedError) as error:
        raise _failed(address, str(error), Prospect.ONCE) from error
    except (HTTPError, LayerError) as error:
        raise _failed(address, str(error)) from error
    except trio.BrokenResourceError as error:
        raise _failed(address, "it reset the connection", Prospect.SOON) from error


def _request(address: ProxyAddress, mode: UpgradeMode, key: str) -> HTTPRequest:
    headers = [("Connection", "Upgrade")]
    if mode is not UpgradeMode.LEGACY:
        headers += [
            ("Upgrade", _WEBSOCKET),
            ("Sec-WebSocket-Protocol", _PROTOCOL),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", key),
        ]
    if mode is not UpgradeMode.WEBSOCKET:
        headers += [("Upgrade", _PROTOCOL), ("X-Teleport-Upgrade", _PROTOCOL)]
    host = str(ProxyAddress(ascii_host(address.host), address.port))
    return HTTPRequest("GET", _PATH, host, headers)


def _check(response: HTTPResponse, address: ProxyAddress) -> None:
    if response.status == _SWITCHING_PROTOCOLS:
        return
    meaning = _MEANINGS.get(response.status)
    if response.status in _REDIRECTS:
        meaning = "it sends us to another address"
    explanation = f": {meaning}" if meaning else ""
    prospect = Prospect.SOON if response.status in _NOT_REACHED else Prospect.NONE
    raise _failed(address, f"it answered {response}{explanation}", prospect)


def _is_websocket(response: HTTPResponse) -> bool:
    return (response.value("upgrade") or "").lower() == _WEBSOCKET


def _check_websocket(response: HTTPResponse, address: ProxyAddress, key: str) -> None:
    """RFC 6455 §4.1: what proves that the server has understood."""
    if response.value("sec-websocket-accept") != _accept(key):
        raise _failed(address, "its answer does not fit the key of our request")
    if response.value("sec-websocket-protocol") != _PROTOCOL:
        raise _failed(address, f"it did not agree to the WebSocket protocol {_PROTOCOL!r}")


def _accept(key: str) -> str:
    digest = hashlib.sha1(key.encode() + _ACCEPT_GUID, usedforsecurity=False).digest()
    return b64encode(digest).decode()


def _failed(address: ProxyAddress, why: str, prospect: Prospect = Prospect.NONE) -> UpstreamError:
    return UpstreamError(
        Code.UPGRADE_FAILED,
        f"the connection upgrade at the Teleport Proxy {address} failed: {why}",
        prospect=prospect,
    )
