"""Building a connection to the Teleport Proxy that carries the database protocol.

| way | layers, from the wire |
|---|---|
| direct | TCP, TLS with ALPN, ping framing |
| upgraded | TCP, TLS of a balancer, WebSocket or nothing, TLS with ALPN, ping framing |
| without TLS routing | TCP, and TLS inside of the protocol, where the client does not do that |

Each can go through an outbound proxy, which comes before everything else. What was *negotiated*
decides about ping framing, never what was offered: an older Teleport Proxy picks the plain value
(Teleport, rfd/0081-tls-ping.md).

Each step has its own time-out, and a failure of any step is an `UpstreamError` that names it. After
a failure the address and the need of an upgrade are found out anew.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import trio

from dbproxy.errors import Code, UpstreamError
from dbproxy.identity import Identity
from dbproxy.layers import PingLayer
from dbproxy.protocols import DatabaseProtocol
from dbproxy.relay import LayeredStream, PingWatch, closed_on_failure
from dbproxy.upstream.address import ProxyAddress
from dbproxy.upstream.discovery import RouteFinder
from dbproxy.upstream.explain import alpn_not_negotiated
from dbproxy.upstream.route import UpstreamRoute
from dbproxy.upstream.secure import SecureConnection, SecureDialer, too_slow
from dbproxy.upstream.sessions import ResumableConnection
from dbproxy.upstream.starttls import ask_for_tls
from dbproxy.upstream.upgrade import upgrade
from dbproxy.upstream.upgrade_decisions import UpgradeDecisions
from dbproxy.upstream.upgrade_need import UpgradeNeed, needs_upgrade
from dbproxy.upstream.upgrade_override import override_named, upgrade_mode, upgrade_override

__all__ = ["UpstreamConnection", "UpstreamDialer"]

_PING_SUFFIX: Final = "-ping"
_STAYS: Final = frozenset({Code.CERTIFICATE_REJECTED, Code.TLS_ROUTING_OFF})
"""Failures that another address, or an upgrade, would not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConnection:
    """A connection that is ready to carry the database protocol.

    Attributes:
        stream: The database protocol's bytes.
        address: What was dialled.
        alpn: The ALPN protocol that was negotiated; empty without TLS routing.
        tls_version: Such as `TLSv1.3`; empty where the client itself does TLS on bare TCP.
        upgraded: Whether it went through a connection upgrade.
        duration: Seconds that dialling took.
        sessions: The TLS connections whose sessions are worth remembering.
        prewarmed: Whether it was ready before the client came.
    """

    stream: LayeredStream
    address: ProxyAddress
    alpn: str
    tls_version: str
    upgraded: bool = False
    duration: float
    sessions: Sequence[ResumableConnection] = ()
    prewarmed: bool = False

    @property
    def resumed(self) -> bool:
        """Whether the handshake with the Teleport Proxy was shortened by an earlier session."""
        return bool(self.sessions) and self.sessions[-1].resumed

    def remember(self) -> None:
        """Keep the TLS sessions for later connections; call it once the first byte has come."""
        for session in self.sessions:
            session.remember()


_Built: TypeAlias = tuple[LayeredStream, list[SecureConnection]]
"""The stream, and the TLS layers in it, from the wire: two if the connection was upgraded."""


class UpstreamDialer:
    """Dials the Teleport Proxy.

    Args:
        routes: Knows where it is.
        secure: Makes the TLS connections.
        environ: The environment variables, for Teleport's own about connection upgrades.
        connection_upgrade: `auto`, `always` or `never`.
        current_identity: Returns the identity for the test whether an upgrade is needed; the test
            does without one.
        max_handshakes: How many connections may be set up at a time; who comes first is served
            first. Waiting for one's turn is not part of the time-outs.
    """

    def __init__(
        self,
        routes: RouteFinder,
        secure: SecureDialer,
        *,
        environ: Mapping[str, str],
        connection_upgrade: str,
        current_identity: Callable[[], Identity | None],
        max_handshakes: int,
    ) -> None:
        self._routes = routes
        self._secure = secure
        self._environ = environ
        self._connection_upgrade = connection_upgrade
        self._current_identity = current_identity
        self._upgrades = UpgradeDecisions(self._test_upgrade)
        self._turns = trio.CapacityLimiter(max_handshakes)

    @property
    def busy(self) -> bool:
        """Whether the next one to dial has to wait: for discovery, or for its turn."""
        return self._routes.due or not self._has_turns

    @property
    def _has_turns(self) -> bool:
        return self._turns.available_tokens >= 1

    async def dial(
        self,
        protocol: DatabaseProtocol,
        identity: Identity,
        *,
        authenticate: bool,
        keep_last_word: bool = False,
    ) -> UpstreamConnection:
        """Connect and complete the handshakes. Cancelled or failed, it leaves no socket behind.

        Args:
            protocol: What will be carried.
            identity: Trust comes from it, and the client certificate.
            authenticate: Whether to present the client certificate.
            keep_last_word: Whether the end of the handshake may wait for what is sent at once.

        Raises:
            UpstreamError: What went wrong, by its code.
        """
        route = await self._routes.find(protocol.name)
        if self._has_turns:
            self._turns.acquire_nowait()
        else:
            await self._turns.acquire()
        try:
            started = trio.current_time()
            if route.tls_routing:
                stream, layers = await self._dial_routed(
                    route.address, protocol, identity, authenticate, keep_last_word
                )
            else:
                stream, layers = await self._dial_unrouted(
                    route.address, protocol, identity, authenticate
                )
        except UpstreamError as error:
            if error.code not in _STAYS:
                self._routes.forget()
                refused = error.code is Code.ALPN_NOT_SUPPORTED
                self._upgrades.forget(route.address, answered=refused)
            raise _with_discovery_problem(error, route) from error
        finally:
            self._turns.release()
        return UpstreamConnection(
            stream=stream,
            address=route.address,
            alpn=layers[-1].alpn if layers else "",
            tls_version=layers[-1].tls.get_protocol_version_name() if layers else "",
            upgraded=len(layers) > 1,
            duration=trio.current_time() - started,
            sessions=[layer.tls for layer in layers],
        )

    async def _dial_routed(
        self,
        address: ProxyAddress,
        protocol: DatabaseProtocol,
        identity: Identity,
        authenticate: bool,
        keep_last_word: bool,
    ) -> _Built:
        if (await self.upgrade_need(address)).required:
            layers = await self._dial_upgraded(
                address, protocol.alpn, identity, authenticate, keep_last_word
            )
        else:
            layers = [
                await self._secure.dial(
                    address,
                    protocol.alpn,
                    identity,
                    authenticate=authenticate,
                    keep_last_word=keep_last_word,
                )
            ]
        stream = layers[-1].stream
        async with closed_on_failure(stream):
            await self._add_framing(stream, layers[-1].alpn, address, protocol)
        return stream, layers

    async def _add_framing(
        self, stream: LayeredStream, alpn: str, address: ProxyAddress, protocol: DatabaseProtocol
    ) -> None:
        if not alpn:
            raise alpn_not_negotiated(address, protocol.alpn)
        if alpn.endswith(_PING_SUFFIX):
            ping = PingLayer()
            await stream.add_layer(ping)
            stream.patience = PingWatch(ping, trio.current_time)

    async def upgrade_need(self, address: ProxyAddress) -> UpgradeNeed:
        """Whether connections to `address` need an upgrade: by setting, environment, or test."""
        chosen = upgrade_override(self._connection_upgrade, self._environ, address)
        if chosen is not None:
            decider = override_named(self._connection_upgrade)
            return UpgradeNeed(required=chosen, reason=f"is dialled as {decider} says")
        return await self._upgrades.need(address)

    async def _test_upgrade(self, address: ProxyAddress) -> UpgradeNeed:
        async def dial(alpn: Sequence[str]) -> str:
            secured = await self._secure.dial(address, alpn, self._current_identity())
            await secured.stream.abandon()
            return secured.alpn

        return await needs_upgrade(dial)

    async def _dial_upgraded(
        self,
        address: ProxyAddress,
        alpn: Sequence[str],
        identity: Identity,
        authenticate: bool,
        keep_last_word: bool,
    ) -> list[SecureConnection]:
        """The outer layer shows no certificate and offers no ALPN; the inner one does."""
        outer = await self._secure.dial(address, (), identity, keep_last_word=True)
        async with closed_on_failure(outer.stream):
            await self._upgrade(outer.stream, address)
            connection, judgement = self._secure.trust.inner_connection(
                address.host, alpn, identity, authenticate=authenticate
            )
            inner = await self._secure.shake_hands(
                outer.stream, address, connection, judgement, alpn, keep_last_word=keep_last_word
            )
        return [outer, inner]

    async def _upgrade(self, stream: LayeredStream, address: ProxyAddress) -> None:
        limit = self._secure.handshake_timeout
        try:
            with trio.fail_after(limit):
                await upgrade(stream, address, upgrade_mode(self._environ))
        except trio.TooSlowError as error:
            raise too_slow("connection upgrade", address, limit) from error

    async def _dial_unrouted(
        self,
        address: ProxyAddress,
        protocol: DatabaseProtocol,
        identity: Identity,
        authenticate: bool,
    ) -> _Built:
        """The address speaks the database protocol itself; TLS begins inside of that."""
        greeting = protocol.starttls
        if authenticate and greeting is None:
            raise UpstreamError(
                Code.TLS_ROUTING_OFF,
                f"TLS routing is off in the cluster, and {protocol.readable_name} is served at"
                f" {address} in a way that only passthrough can use",
            )
        stream = await self._secure.connect(address)
        if not authenticate or greeting is None:
            return stream, []
        async with closed_on_failure(stream):
            await ask_for_tls(stream, address, greeting, limit=self._secure.handshake_timeout)
            connection, judgement = self._secure.trust.connection(
                address.host, (), identity, authenticate=True
            )
            secured = await self._secure.shake_hands(stream, address, connection, judgement, ())
        return stream, [secured]


def _with_discovery_problem(error: UpstreamError, route: UpstreamRoute) -> UpstreamError:
    """The error, and why the address is only what was configured, if that may be the cause."""
    problem = route.discovery_problem
    if problem in (None, error.message) or error.code in _STAYS:
        return error
    return UpstreamError(
        error.code,
        f"{error.message}; before that, {problem}",
        next_step=error.next_step,
        prospect=error.prospect,
    )
