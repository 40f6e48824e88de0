"""The Proxy's connection upgrade: a TLS-routing connection inside HTTP, for L7 balancers.

Source: lib/web/conn_upgrade.go of Teleport. The client asks with ``Upgrade`` and, in its legacy
mode, ``X-Teleport-Upgrade``; the server prefers WebSocket. What runs inside is a complete
connection to the Proxy, from its ClientHello on, which shows the host certificate.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, TypeAlias

import h11
import trio

from dbproxy.lab.faults import NO_FAULTS, FaultPlan, Injector
from dbproxy.lab.faulty_stream import FaultyStream
from dbproxy.lab.http_server import HttpConnection, headers_of
from dbproxy.lab.streams import PingStream, PrefixedStream
from dbproxy.lab.upgrade_record import Upgrade
from dbproxy.lab.websocket import accept_value
from dbproxy.lab.websocket_stream import WebSocketStream

UPGRADE_PATH: Final = "/webapi/connectionupgrade"
WEBSOCKET: Final = "websocket"
ALPN: Final = "alpn"
ALPN_PING: Final = "alpn-ping"
PING_INTERVAL: Final = 30.0
"""Seconds between pings inside ``alpn-ping`` upgrades (`ProxyPingInterval`)."""

ServeInside: TypeAlias = Callable[
    [trio.abc.HalfCloseableStream, trio.SocketStream, Upgrade], Awaitable[None]
]
"""Serves the TLS-routing connection inside of another one, and closes the stream. Gets the TCP
connection at the bottom, too."""


@dataclass(frozen=True, kw_only=True)
class UpgradeOptions:
    """Which upgrade endpoint the Proxy has.

    Attributes:
        websocket: whether it knows WebSocket (Teleport 15.1 and later).
        legacy: whether it knows ``alpn`` and ``alpn-ping``; without both it answers 404.
        unmask: whether it unmasks WebSocket frames; servers of 15.1 do not.
        ping_interval: seconds between the pings that it sends by itself.
        ping_always: whether it sends WebSocket pings inside ``alpn`` too, which a real one sends
            inside ``alpn-ping`` only.
        noise: whether it sends WebSocket frames that a client has to drop between the others.
        wrong_accept: whether its ``Sec-WebSocket-Accept`` belongs to another key.
        status: answers every request with this status; ``None`` decides as a real one.
        faults: what goes wrong with its answer, and with the connection inside.
    """

    websocket: bool = True
    legacy: bool = True
    unmask: bool = True
    ping_interval: float = PING_INTERVAL
    ping_always: bool = False
    noise: bool = False
    wrong_accept: bool = False
    status: int | None = None
    faults: FaultPlan = NO_FAULTS


def choose_mode(headers: Mapping[str, str], options: UpgradeOptions) -> str:
    """Returns what the server switches to: its own order decides. Empty for nothing it knows.

    Args:
        headers: the request's headers, names in lower case.
        options: what it knows.
    """
    received = {
        value.strip().lower()
        for name in ("x-teleport-upgrade", "upgrade")
        for value in headers.get(name, "").split(",")
    }
    known = [WEBSOCKET] * options.websocket + [ALPN_PING, ALPN] * options.legacy
    return next((mode for mode in known if mode in received), "")


def choose_protocol(headers: Mapping[str, str], mode: str) -> str:
    """Returns what runs inside: ``alpn-ping``, ``alpn``, or nothing that the server knows."""
    if mode != WEBSOCKET:
        return mode
    offered = [value.strip() for value in headers.get("sec-websocket-protocol", "").split(",")]
    return next((value for value in (ALPN_PING, ALPN) if value in offered), "")


class UpgradeEndpoint:
    """Answers upgrade requests and lets the connections inside be served.

    Args:
        options: how to behave.
        serve_inside: serves what is inside.

    Attributes:
        injector: what goes wrong with answers, and with the connections inside.
    """

    def __init__(self, options: UpgradeOptions, serve_inside: ServeInside) -> None:
        self.injector = Injector(options.faults)
        self._options = options
        self._serve_inside = serve_inside

    @property
    def options(self) -> UpgradeOptions:
        """How it behaves from the next request on; its faults begin to count anew."""
        return self._options

    @options.setter
    def options(self, options: UpgradeOptions) -> None:
        self._options, self.injector.plan = options, options.faults

    async def serve(
        self,
        http: HttpConnection,
        stream: trio.abc.HalfCloseableStream,
        connection: trio.SocketStream,
        record: Upgrade,
    ) -> None:
        """Answers one request, and serves what comes after the answer to its end.

        Args:
            http: the HTTP connection, which has received the request.
            stream: what the HTTP connection runs on.
            connection: the TCP connection at the bottom.
            record: what the request says; the rest is noted down here.

        Raises:
            LabError: the connection inside was refused or broke, or a fault has happened.
        """
        options = self._options
        transport = FaultyStream(stream, connection, self.injector)
        record.mode = choose_mode(record.headers, options)
        record.protocol = choose_protocol(record.headers, record.mode)
        record.status = _status(record, options)
        if record.status != HTTPStatus.SWITCHING_PROTOCOLS:
            refusal = http.answer(record.status, [(b"Connection", b"close")])
            await transport.answer(transport, refusal)
            return
        answer = http.switch(_switching_headers(record, options))
        await transport.answer(transport, answer)
        await self._serve_switched(transport, http.rest(), record, connection)

    async def _serve_switched(
        self,
        stream: trio.abc.HalfCloseableStream,
        rest: bytes,
        record: Upgrade,
        connection: trio.SocketStream,
    ) -> None:
        options = self._options
        async with trio.open_nursery() as nursery:
            inside: trio.abc.HalfCloseableStream
            if record.mode == WEBSOCKET:
                inside = websocket = WebSocketStream(
                    stream, record, prefix=rest, unmask=options.unmask, noise=options.noise
                )
                if record.protocol == ALPN_PING or options.ping_always:
                    nursery.start_soon(websocket.send_pings, options.ping_interval)
            else:
                inside = PrefixedStream(stream, rest)
                if record.mode == ALPN_PING:
                    inside = framed = PingStream(inside)
                    nursery.start_soon(framed.send_pings, options.ping_interval)
            await self._serve_inside(inside, connection, record)
            nursery.cancel_scope.cancel()


def record_of(request: h11.Request, peer: str) -> Upgrade:
    """Begins the record of a request."""
    return Upgrade(peer, headers_of(request))


def _status(record: Upgrade, options: UpgradeOptions) -> int:
    if options.status is not None:
        return options.status
    if not record.mode:
        return HTTPStatus.NOT_FOUND
    if not record.protocol or (
        record.mode == WEBSOCKET and "sec-websocket-key" not in record.headers
    ):
        return HTTPStatus.BAD_REQUEST
    return HTTPStatus.SWITCHING_PROTOCOLS


def _switching_headers(record: Upgrade, options: UpgradeOptions) -> list[tuple[bytes, bytes]]:
    headers = [(b"Upgrade", record.mode.encode()), (b"Connection", b"Upgrade")]
    if record.mode != WEBSOCKET:
        return headers
    key = record.headers["sec-websocket-key"].encode("latin-1")
    return [
        *headers,
        (b"Sec-WebSocket-Accept", accept_value(key[::-1] if options.wrong_accept else key)),
        (b"Sec-WebSocket-Protocol", record.protocol.encode()),
    ]
