"""Building a connection to the Teleport Proxy: TCP, TLS with ALPN, ping framing.

What was *negotiated* decides about ping framing, never what was offered: an older Teleport Proxy
picks the plain value (Teleport, rfd/0081-tls-ping.md).

Each step has its own time-out, and a failure of any step is an `UpstreamError` that names it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from dbproxy.errors import Code, UpstreamError
from dbproxy.identity import Identity
from dbproxy.layers import LayerError, PingLayer, TLSLayer
from dbproxy.relay import LayeredStream, PingWatch, keep_alive
from dbproxy.upstream.address import ProxyAddress
from dbproxy.upstream.explain import (
    alpn_not_negotiated,
    explain_connect_failure,
    explain_handshake_failure,
)
from dbproxy.upstream.trust import UpstreamTrust

__all__ = ["UpstreamConnection", "UpstreamDialer"]

_PING_SUFFIX: Final = "-ping"


@dataclass(frozen=True, slots=True)
class UpstreamConnection:
    """A connection that is ready to carry the database protocol.

    Attributes:
        stream: The database protocol's bytes.
        alpn: The ALPN protocol that was negotiated.
        tls_version: Such as `TLSv1.3`.
        duration: Seconds that dialling took.
    """

    stream: LayeredStream
    alpn: str
    tls_version: str
    duration: float


class UpstreamDialer:
    """Dials the Teleport Proxy.

    Args:
        address: Where it is.
        trust: Makes the TLS connections.
        connect_timeout: Seconds for TCP.
        handshake_timeout: Seconds for TLS.
        max_handshakes: How many connections may be set up at a time; who comes first is served
            first. Waiting for one's turn is not part of the time-outs.
    """

    def __init__(
        self,
        address: ProxyAddress,
        trust: UpstreamTrust,
        *,
        connect_timeout: float,
        handshake_timeout: float,
        max_handshakes: int = 64,
    ) -> None:
        self.address = address
        self._trust = trust
        self._connect_timeout = connect_timeout
        self._handshake_timeout = handshake_timeout
        self._turns = trio.CapacityLimiter(max_handshakes)

    async def dial(
        self, alpn: Sequence[str], identity: Identity, *, authenticate: bool
    ) -> UpstreamConnection:
        """Connect and complete the handshake. Cancelled or failed, it leaves no socket behind.

        Args:
            alpn: The values to offer, the preferred one first.
            identity: Trust comes from it, and the client certificate.
            authenticate: Whether to present the client certificate.

        Raises:
            UpstreamError: `upstream-unreachable`, `upstream-untrusted`, `upstream-tls-failed`,
                `alpn-not-supported` or `certificate-rejected`.
        """
        async with self._turns:
            return await self._dial(alpn, identity, authenticate)

    async def _dial(
        self, alpn: Sequence[str], identity: Identity, authenticate: bool
    ) -> UpstreamConnection:
        started = trio.current_time()
        stream = LayeredStream(await self._connect())
        try:
            tls = await self._handshake(stream, alpn, identity, authenticate)
            negotiated = tls.connection.get_alpn_proto_negotiated().decode("ascii", "replace")
            if not negotiated:
                raise alpn_not_negotiated(self.address, alpn)
            if negotiated.endswith(_PING_SUFFIX):
                ping = PingLayer()
                await stream.add_layer(ping)
                stream.patience = PingWatch(ping, trio.current_time)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return UpstreamConnection(
            stream,
            negotiated,
            tls.connection.get_protocol_version_name(),
            trio.current_time() - started,
        )

    async def _connect(self) -> trio.SocketStream:
        host, port = self.address.host, self.address.port
        try:
            with trio.fail_after(self._connect_timeout):
                stream = await trio.open_tcp_stream(host, port)
        except trio.TooSlowError as error:
            raise self._too_slow("TCP connection", self._connect_timeout) from error
        except OSError as error:
            raise explain_connect_failure(self.address, error) from error
        keep_alive(stream)
        return stream

    async def _handshake(
        self, stream: LayeredStream, alpn: Sequence[str], identity: Identity, authenticate: bool
    ) -> TLSLayer:
        connection, judgement = self._trust.connection(
            self.address.host, alpn, identity, authenticate=authenticate
        )
        tls = TLSLayer(connection)
        try:
            with trio.fail_after(self._handshake_timeout):
                await stream.add_layer(tls)
        except trio.TooSlowError as error:
            raise self._too_slow("TLS handshake", self._handshake_timeout) from error
        except (LayerError, trio.BrokenResourceError) as error:
            raise explain_handshake_failure(
                self.address, error, complaint=judgement.complaint, alpn=alpn, heard=tls.heard
            ) from error
        return tls

    def _too_slow(self, step: str, limit: float) -> UpstreamError:
        return UpstreamError(
            Code.UPSTREAM_UNREACHABLE,
            f"the {step} to the Teleport Proxy at {self.address} took longer than {limit:g} s",
        )
