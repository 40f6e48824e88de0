"""TCP and TLS to an address, each step within its own time.

Everything that goes to a Teleport Proxy begins so: the database connection itself, the questions to
its web server, the test whether an upgrade is needed, the outer layer of an upgraded connection.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from dbproxy.errors import Code, UpstreamError
from dbproxy.identity import Identity
from dbproxy.layers import LayerError, TLSLayer, TruncatedError
from dbproxy.relay import LayeredStream, closed_on_failure
from dbproxy.upstream.address import ProxyAddress
from dbproxy.upstream.ask import ask_what_it_is
from dbproxy.upstream.explain import explain_handshake_failure, not_teleport
from dbproxy.upstream.judgement import ServerJudgement
from dbproxy.upstream.sessions import ResumableConnection
from dbproxy.upstream.transport import Transport
from dbproxy.upstream.trust import UpstreamTrust

__all__ = ["SecureConnection", "SecureDialer", "too_slow"]

_PATIENCE_FOR_ASKING: Final = 2.0
"""Seconds for finding out what else answers: a client waits for it."""


@dataclass(frozen=True, slots=True)
class SecureConnection:
    """A connection whose TLS handshake is done.

    Attributes:
        stream: What TLS carries.
        tls: Facts about the handshake, and the session to remember.
        alpn: The ALPN protocol that was negotiated; empty for none.
    """

    stream: LayeredStream
    tls: ResumableConnection
    alpn: str


class SecureDialer:
    """Makes TLS connections to Teleport Proxies.

    Args:
        transport: The way there.
        trust: Makes the TLS connections.
        connect_timeout: Seconds for TCP, and for the outbound proxy where there is one.
        handshake_timeout: Seconds for a TLS handshake.
    """

    def __init__(
        self,
        transport: Transport,
        trust: UpstreamTrust,
        *,
        connect_timeout: float,
        handshake_timeout: float,
    ) -> None:
        self.transport = transport
        self.trust = trust
        self._connect_timeout = connect_timeout
        self.handshake_timeout = handshake_timeout

    async def connect(self, address: ProxyAddress) -> LayeredStream:
        """Connect without TLS. Cancelled or failed, it leaves no socket behind.

        Raises:
            UpstreamError: As `Transport.connect`; `upstream-unreachable` when it takes too long.
        """
        limit = self._connect_timeout
        try:
            return await self.transport.connect(address, limit=limit)
        except trio.TooSlowError as error:
            proxy = self.transport.outbound_proxy(address)
            through = f" through the outbound proxy {proxy.in_words}" if proxy else ""
            raise too_slow(f"connection{through}", address, limit) from error

    async def dial(
        self,
        address: ProxyAddress,
        alpn: Sequence[str],
        identity: Identity | None,
        *,
        authenticate: bool = False,
        keep_last_word: bool = False,
    ) -> SecureConnection:
        """Connect and complete the outer handshake. Cancelled or failed, it leaves no socket.

        Args:
            address: Where to.
            alpn: What to offer, the preferred value first; empty for no ALPN at all.
            identity: Whose Host CA is trusted and whose certificate may be presented; without one
                the other authorities alone are.
            authenticate: Whether to present that certificate.
            keep_last_word: As for `LayeredStream.add_layer`.

        Raises:
            UpstreamError: What went wrong, by its code.
        """
        stream = await self.connect(address)
        async with closed_on_failure(stream):
            connection, judgement = self.trust.connection(
                address.host, alpn, identity, authenticate=authenticate
            )
            return await self.shake_hands(
                stream, address, connection, judgement, alpn, keep_last_word=keep_last_word
            )

    async def shake_hands(
        self,
        stream: LayeredStream,
        address: ProxyAddress,
        connection: ResumableConnection,
        judgement: ServerJudgement,
        alpn: Sequence[str],
        *,
        keep_last_word: bool = False,
    ) -> SecureConnection:
        """Complete a handshake on a stream, which stays the caller's to close.

        Args are those of `UpstreamTrust.connection`'s results and of `LayeredStream.add_layer`.

        Raises:
            UpstreamError: What went wrong, by its code.
        """
        tls = TLSLayer(connection)
        try:
            with trio.move_on_after(self.handshake_timeout) as patience:
                await stream.add_layer(tls, keep_last_word=keep_last_word)
        except (LayerError, trio.BrokenResourceError) as error:
            explained = explain_handshake_failure(
                address, error, complaint=judgement.complaint, alpn=alpn, heard=tls.heard
            )
            if isinstance(error, TruncatedError) and not tls.heard:
                explained = await self._recognised(explained, address)
            raise explained from error
        if patience.cancelled_caught:
            raise too_slow("TLS handshake", address, self.handshake_timeout)
        chosen = connection.get_alpn_proto_negotiated().decode("ascii", "replace")
        return SecureConnection(stream, connection, chosen)

    async def _recognised(self, error: UpstreamError, address: ProxyAddress) -> UpstreamError:
        """What a server is that has closed the connection without a word, if that can be told."""
        likeness = await ask_what_it_is(
            lambda: self.transport.connect(address), patience=_PATIENCE_FOR_ASKING
        )
        return error if likeness is None else not_teleport(address, likeness)


def too_slow(step: str, address: ProxyAddress, limit: float) -> UpstreamError:
    """A step of dialling has reached its limit, in seconds."""
    return UpstreamError(
        Code.UPSTREAM_UNREACHABLE,
        f"the {step} to the Teleport Proxy at {address} took longer than {limit:g} s",
    )
