"""Where to dial: what the Teleport Proxy says about itself, asked seldom and believed with care.

A Teleport Proxy publishes the address that it wants to be reached at, which is not always the one
that was configured, and whether databases share its web port (TLS routing). So it is asked before
the first connection, and the answer is kept.

The choices:

- **It must never make things worse.** Without an answer the last one holds, or else the configured
  address, and the dial itself tells what is wrong with it. Whoever waits, waits `TIMEOUT` seconds
  for one attempt, and twice that at the very worst.
- **One request for all.** Callers share an attempt through a lock rather than through a task of its
  own: whoever holds the lock asks, and the others find the answer when they get it. Cancelled, it
  lets the lock go, and the next one in the queue asks instead. So no nursery has to outlive a
  connection.
- **An outcome lasts.** A good one for ten minutes: what it says changes when an operator changes
  the configuration of a cluster, and a wrong address is noticed sooner, by dialling. A failed one
  for a minute, so that an upstream that cannot answer delays few connections. `forget` ends both,
  but two attempts are two seconds apart at least, however many connections fail in between.
- **The answer decides whom we connect to**, so it is fetched over TLS with the same trust as a
  database connection (roots, pins, `--server-name`, `--insecure`), and the host that it names has
  to prove its own name when it is dialled. Whoever can forge the answer could as well have taken
  the connection itself. With TLS routing off there is no outer TLS to verify: only the client's own
  TLS, which ends at Teleport, protects what goes there.

Tested in `tests/unit/upstream/test_discovery.py` on a virtual clock.
"""

import math
from typing import Final, Protocol

import trio

from dbproxy.errors import PROBLEMS, Code
from dbproxy.events import DiscoveryFailed, Event, Subscriber, UpstreamDiscovered
from dbproxy.upstream.address import ConfiguredAddress
from dbproxy.upstream.first_answer import Answer, Fetch, NoAnswer, first_answer
from dbproxy.upstream.route import UpstreamRoute, decision_of, has_tls_routing, route_of

__all__ = ["Discovery", "FixedRoute", "RouteFinder"]

TIMEOUT: Final = 5.0
"""Seconds for one attempt: two round trips of TLS and one of HTTP take less than one."""
LIFETIME: Final = 600.0
"""Seconds that an answer counts."""
FAILURE_LIFETIME: Final = 60.0
"""Seconds that the lack of one counts."""
PAUSE: Final = 2.0
"""Seconds between two attempts: a Proxy that restarts is found while clients wait for it."""
_NAME_THE_PROXY: Final = (
    "If that is the Auth Service, name the Teleport Proxy with --proxy, or with proxy_server in"
    " tbot.yaml."
)
_CHECK_THE_PROXY: Final = PROBLEMS[Code.DISCOVERY_FAILED].next_step


class RouteFinder(Protocol):
    """Knows where to dial."""

    @property
    def due(self) -> bool:
        """Whether whoever asks next has to wait for the answer."""

    async def find(self, protocol: str) -> UpstreamRoute:
        """Where to dial for the database protocol of this name.

        Raises:
            UpstreamError: `tls-routing-off`.
        """

    def forget(self) -> None:
        """Dialling has failed: what is known may be out of date."""


class FixedRoute:
    """The address as it was configured: nobody is asked.

    Args:
        configured: The address.
    """

    def __init__(self, configured: ConfiguredAddress) -> None:
        self._route = UpstreamRoute(
            address=configured.preferred,
            tls_routing=True,
            decision=f"as given with {configured.named_by}, without discovery",
        )

    @property
    def due(self) -> bool:
        """Never."""
        return False

    async def find(self, protocol: str) -> UpstreamRoute:
        """The address; waits for nothing."""
        return self._route

    def forget(self) -> None:
        """Nothing: nothing is known but the address."""


class Discovery:
    """Asks the Teleport Proxy where it wants to be reached, and remembers.

    Args:
        configured: What the operator gave.
        fetch: Asks it.
        publish: Gets `UpstreamDiscovered` and `DiscoveryFailed`.
        timeout: Seconds for one attempt.
    """

    def __init__(
        self,
        configured: ConfiguredAddress,
        fetch: Fetch,
        *,
        publish: Subscriber,
        timeout: float = TIMEOUT,
    ) -> None:
        self._configured = configured
        self._fetch = fetch
        self._publish = publish
        self._timeout = timeout
        self._lock = trio.Lock()
        self._answer: Answer | None = None
        self._failure: NoAnswer | None = None
        self._due = -math.inf
        self._earliest = -math.inf
        self._told: Event | None = None

    @property
    def due(self) -> bool:
        """Whether the last outcome is out of date, or the Teleport Proxy is being asked now."""
        return trio.current_time() >= max(self._due, self._earliest)

    async def find(self, protocol: str) -> UpstreamRoute:
        """Where to dial for the database protocol of this name.

        Asks when the last outcome is out of date, and otherwise waits for nothing. May be cancelled
        at any time; others who wait for the same answer get it all the same.

        Raises:
            UpstreamError: `tls-routing-off`: the cluster does not serve the protocol to us.
        """
        if self.due:
            await self._refresh()
        if self._answer is not None:
            return route_of(self._answer, self._configured, protocol)
        return self._configured_route()

    def forget(self) -> None:
        """Dialling has failed: ask again for the next connection, if the last time is not just now.

        What was answered stays in use if there is no other answer then.
        """
        self._due = -math.inf

    async def _refresh(self) -> None:
        """Make an attempt, or wait for the one that somebody else makes."""
        with trio.move_on_after(2 * self._timeout):  # those before us may be cancelled, one by one
            async with self._lock:
                if self.due:
                    self._settle(await self._ask())

    async def _ask(self) -> Answer | NoAnswer:
        with trio.move_on_after(self._timeout):
            return await first_answer(self._configured.candidates, self._fetch)
        return NoAnswer(f"there was no answer from {self._configured} within {self._timeout:g} s")

    def _settle(self, outcome: Answer | NoAnswer) -> None:
        now = trio.current_time()
        self._earliest = now + PAUSE
        if isinstance(outcome, Answer):
            self._answer, self._failure = outcome, None
            self._due = now + LIFETIME
            self._tell_answer(outcome)
        else:
            self._failure = outcome
            self._due = now + FAILURE_LIFETIME
            self._tell_failure()

    def _configured_route(self) -> UpstreamRoute:
        return UpstreamRoute(
            address=self._configured.preferred,
            tls_routing=True,
            decision=f"as given with {self._configured.named_by}, because discovery failed",
            discovery_problem=self._problem,
        )

    @property
    def _problem(self) -> str:
        reason = self._failure.reason if self._failure else "there was no answer in time"
        if not self._configured.may_be_auth_service:
            return reason
        named_by = self._configured.named_by
        return f"{named_by} ({self._configured}) does not answer as a Teleport Proxy: {reason}"

    def _tell_answer(self, answer: Answer) -> None:
        event = UpstreamDiscovered(
            address=str(answer.web),
            decision=decision_of(answer, self._configured),
            cluster=answer.facts.cluster_name,
            server_version=answer.facts.server_version,
            tls_routing=has_tls_routing(answer.facts),
        )
        if event != self._told:
            self._told = event
            self._publish(event)

    def _tell_failure(self) -> None:
        if isinstance(self._told, DiscoveryFailed):
            return
        in_use = self._answer.web if self._answer is not None else self._configured.preferred
        self._told = DiscoveryFailed(
            address=str(in_use),
            code=Code.DISCOVERY_FAILED,
            reason=self._problem,
            next_step=_NAME_THE_PROXY if self._configured.may_be_auth_service else _CHECK_THE_PROXY,
        )
        self._publish(self._told)
