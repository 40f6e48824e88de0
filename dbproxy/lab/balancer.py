"""An L7 load balancer in front of the Proxy: TLS ends here, and with it the client's ALPN list.

Behind it, HTTP/1.1 over TLS goes on to the Proxy; after an upgrade that is bytes both ways. What is
not HTTP does not get through. Balancers differ in what they make of ALPN values that they do not
know, and a client's test for an upgrade has to understand all of them.
"""

from __future__ import annotations

import math
import ssl
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final

import h11
import trio

from dbproxy.lab.address import open_address
from dbproxy.lab.alerts import Alert, plaintext_alert
from dbproxy.lab.alpn import HTTP
from dbproxy.lab.cluster import Lab
from dbproxy.lab.errors import LabError
from dbproxy.lab.faults import NO_FAULTS, FaultPlan, Injector, Step
from dbproxy.lab.faulty_stream import FaultyStream
from dbproxy.lab.hello import read_client_hello
from dbproxy.lab.http_server import MAX_HEAD_SIZE, HttpError
from dbproxy.lab.keys import KeyPair
from dbproxy.lab.relay import relay
from dbproxy.lab.serving import HANDSHAKE_TIMEOUT, LOOPBACK, server_context, serving
from dbproxy.lab.streams import READ_SIZE
from dbproxy.lab.tls import TLSClientStream, TLSServerStream

BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
BAD_GATEWAY: Final = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
BACKEND_NAME: Final = "localhost"
MAX_OFFERED: Final = 1000
"""How many clients' ALPN lists are remembered."""


@unique
class UnknownALPN(StrEnum):
    """What happens to a client that offers only ALPN values that the balancer does not know."""

    IGNORE = "ignore"
    """The handshake succeeds, and no value is selected (AWS ALB)."""
    ALERT = "alert"
    """The handshake fails with the alert ``no_application_protocol``."""
    CLOSE = "close"
    """The connection ends without a word."""


@dataclass(frozen=True, kw_only=True)
class BalancerOptions:
    """How the balancer behaves.

    Attributes:
        listen: ``HOST:PORT``; port 0 picks a free one.
        unknown_alpn: what it makes of ALPN values that it does not know.
        idle_timeout: seconds without a byte in either direction after which it closes a
            connection (AWS ALB: 60 by default); ``None`` for never.
        certificate: what it shows; ``None`` for one of the lab's web CA.
        names: names in that one besides those of loopback.
        faults: what goes wrong with connections to it.
    """

    listen: str = LOOPBACK
    unknown_alpn: UnknownALPN = UnknownALPN.IGNORE
    idle_timeout: float | None = None
    certificate: KeyPair | None = None
    names: Sequence[str] = ()
    faults: FaultPlan = NO_FAULTS


class Balancer:
    """A running balancer.

    Attributes:
        address: ``HOST:PORT``.
        offered: ALPN lists of the latest clients, oldest first.
        faults: what goes wrong, and what has.
        connections: how many clients are connected now.
        timeouts: how many connections were closed because they were idle.
    """

    def __init__(self, lab: Lab, options: BalancerOptions) -> None:
        self.address = ""
        self.offered: deque[tuple[str, ...]] = deque(maxlen=MAX_OFFERED)
        self.faults = Injector(options.faults)
        self.connections = 0
        self.timeouts = 0
        self._lab = lab
        self._options = options
        self._context = server_context(
            options.certificate or lab.authority.issue_web_certificate(options.names)
        )
        self._context.set_alpn_protocols([HTTP])
        self._backend_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._backend_context.check_hostname = False
        self._backend_context.verify_mode = ssl.CERT_NONE  # as AWS ALB: anything behind it will do
        self._backend_context.set_alpn_protocols([HTTP])

    async def serve(self, transport: FaultyStream) -> None:
        """Serves one client."""
        self.connections += 1
        try:
            await self._serve(transport)
        finally:
            self.connections -= 1

    async def _serve(self, transport: FaultyStream) -> None:
        with trio.fail_after(HANDSHAKE_TIMEOUT):
            hello, received = await read_client_hello(transport)
        self.offered.append(hello.alpn)
        await transport.reach(Step.CLIENT_HELLO)
        if hello.alpn and HTTP not in hello.alpn:
            await self._meet_unknown_alpn(transport)
        tls = TLSServerStream(transport, self._context, prefix=received)
        transport.cut_next_send(Step.MID_HANDSHAKE)
        with trio.fail_after(HANDSHAKE_TIMEOUT):
            await tls.do_handshake()
        async with tls:
            await transport.reach(Step.HANDSHAKE)
            await self._serve_http(tls, transport)

    async def _meet_unknown_alpn(self, transport: FaultyStream) -> None:
        match self._options.unknown_alpn:
            case UnknownALPN.ALERT:
                await transport.send_all(plaintext_alert(Alert.NO_APPLICATION_PROTOCOL))
                raise LabError("no application protocol in common")
            case UnknownALPN.CLOSE:
                raise LabError("closed because of the ALPN list")

    async def _serve_http(self, client: TLSServerStream, transport: FaultyStream) -> None:
        try:
            request = await _read_request(client)
        except HttpError:
            await client.send_all(BAD_REQUEST)
            raise
        if not request:
            return
        try:
            server = await self._open_backend()
        except (OSError, LabError):
            await transport.answer(client, BAD_GATEWAY)
            return
        async with server:
            await server.send_all(request)
            await transport.answer(client, await server.receive_some(READ_SIZE))
            await self._carry(client, server)

    async def _open_backend(self) -> TLSClientStream:
        connection = await open_address(self._lab.address)
        stream = TLSClientStream(connection, self._backend_context, server_hostname=BACKEND_NAME)
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT):
                await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(connection)
            raise
        return stream

    async def _carry(self, client: TLSServerStream, server: TLSClientStream) -> None:
        idle = math.inf if self._options.idle_timeout is None else self._options.idle_timeout
        with trio.move_on_after(idle) as scope:

            def go_on(size: int) -> None:
                scope.deadline = trio.current_time() + idle

            await relay(client, server, count_from_client=go_on, count_to_client=go_on)
        self.timeouts += scope.cancelled_caught


@asynccontextmanager
async def open_balancer(
    lab: Lab, options: BalancerOptions | None = None
) -> AsyncIterator[Balancer]:
    """Runs a balancer in front of a lab's Proxy for the length of the block.

    Clients trust it by ``lab.web_ca_file``. It asks the Proxy for ``lab.web`` like anything else:
    to be found behind the balancer, the Proxy needs its address as ``WebOptions.public_addr``.

    Args:
        lab: what is behind it.
        options: how it behaves.
    """
    balancer = Balancer(lab, options or BalancerOptions())
    async with serving(
        (options or BalancerOptions()).listen, balancer.faults, balancer.serve
    ) as balancer.address:
        yield balancer


async def _read_request(stream: trio.abc.ReceiveStream) -> bytes:
    """Returns what came up to the end of a request's head or later, nothing for no request.

    Raises:
        HttpError: it is no HTTP request.
    """
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_SIZE)
    received = b""
    while True:
        try:
            event = http.next_event()
        except h11.RemoteProtocolError as error:
            raise HttpError(f"not HTTP/1.1: {error}") from error
        if isinstance(event, h11.Request):
            return received
        if isinstance(event, h11.ConnectionClosed):
            return b""
        data = bytes(await stream.receive_some(READ_SIZE))
        received += data
        http.receive_data(data)
