"""Which relay is used: the one on the reactor where the system has epoll, else the plain one."""

import select
from collections.abc import Callable
from typing import Final, TypeAlias

import trio

from dbproxy.protocols import VerdictReader
from dbproxy.relay.fast import FastRelay
from dbproxy.relay.first_flight import FirstFlight
from dbproxy.relay.pump import Relay
from dbproxy.relay.reactor import Reactor
from dbproxy.relay.stream import LayeredStream

__all__ = ["AnyRelay", "RelayEngine"]

HAS_EPOLL: Final = hasattr(select, "epoll")

AnyRelay: TypeAlias = Relay | FastRelay


class RelayEngine:
    """Makes the relays of one proxy, and drives them.

    Args:
        fast: Whether to use the reactor; by default where the system can.
    """

    def __init__(self, *, fast: bool | None = None) -> None:
        wanted = HAS_EPOLL if fast is None else fast
        self._reactor = Reactor() if wanted else None

    def relay(
        self,
        client: LayeredStream,
        upstream: LayeredStream,
        first_flight: FirstFlight,
        answered: Callable[[], None],
        verdict: VerdictReader | None = None,
    ) -> AnyRelay:
        """A relay between two streams whose handshakes are over; the arguments are `Relay`'s."""
        if (
            self._reactor is not None
            and isinstance(client.transport, trio.SocketStream)
            and isinstance(upstream.transport, trio.SocketStream)
        ):
            return FastRelay(self._reactor, client, upstream, first_flight, answered, verdict)
        return Relay(client, upstream, first_flight, answered, verdict)

    def linger_when_alone(self, count_connections: Callable[[], int]) -> None:
        """Save time while all connections are being relayed.

        Args:
            count_connections: Returns how many connections there are, relayed or not.
        """
        reactor = self._reactor
        if reactor is not None:
            reactor.is_alone = lambda: reactor.watched == 2 * count_connections()

    def look_out_for_clients(self, listener: trio.socket.SocketType) -> None:
        """Let nobody who arrives at `listener` wait while time is saved."""
        if self._reactor is not None:
            self._reactor.look_out_for_clients(listener)

    async def run(self) -> None:
        """Drive the relays, until cancelled."""
        if self._reactor is None:
            await trio.sleep_forever()
        else:
            await self._reactor.run()
