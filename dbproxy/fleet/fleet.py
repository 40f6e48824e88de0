"""Fleet: all tunnels of a tbot configuration, each on its own, stopped and drained together."""

from collections.abc import Callable
from typing import Final

import trio

from dbproxy.backoff import Backoff
from dbproxy.errors import UsageError
from dbproxy.events import Event, Subscriber
from dbproxy.fleet.runner import TunnelRunner
from dbproxy.fleet.tunnels import Tunnel, tunnels_of
from dbproxy.identity import load_tbot_config
from dbproxy.proxy import Started
from dbproxy.settings import Settings
from dbproxy.wiring import proxy_address

__all__ = ["Fleet"]

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 10.0
"""Seconds; both as in tbot when a tunnel cannot be opened (lib/tbot/internal/tunnel_retry.go)."""


def _patient_backoff() -> Backoff:
    return Backoff(FIRST_PAUSE, LONGEST_PAUSE)


def _ignore(_event: Event) -> None:
    """A subscriber that does nothing."""


class Fleet:
    """Every `database-tunnel` service of a tbot configuration.

    A tunnel that cannot be opened, or that a bug has ended, does not disturb the others; it is
    tried again, with the configuration read anew.

    Args:
        settings: What holds for all tunnels; `config` names the configuration.
        tell: Called for each tunnel, whenever it is open; must not block.
        subscriber_for: Makes the subscriber to the events of a tunnel.
        backoff: Makes the pauses between the attempts of a tunnel.

    Raises:
        UsageError: The settings name no configuration or no Teleport Proxy, the configuration has
            no tunnel, or one listens where other hosts can reach it.
        ConfigError: The configuration cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        tell: Callable[[Tunnel, Started], None],
        subscriber_for: Callable[[Tunnel], Subscriber] = lambda _tunnel: _ignore,
        backoff: Callable[[], Backoff] = _patient_backoff,
    ) -> None:
        if settings.config is None:
            raise UsageError(
                "which tunnels to open is not known",
                next_step="Name tbot's configuration file with --config.",
            )
        config = load_tbot_config(settings.config)
        proxy_address(settings, config)
        self._runners = [
            TunnelRunner(tunnel, settings.config, settings, subscriber_for(tunnel), tell, backoff())
            for tunnel in tunnels_of(config, anywhere=settings.unsafe_listen_anywhere)
        ]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open every tunnel and serve them until `stop`; then drain.

        Reports started at once. Cancelling it ends every connection at once.

        Raises:
            Exception: What `tell` raises; it ends all tunnels.
        """
        async with trio.open_nursery() as nursery:
            for runner in self._runners:
                nursery.start_soon(runner.run)
            task_status.started()

    def stop(self) -> None:
        """Stop accepting; open connections have the drain timeout to end. May be called again."""
        for runner in self._runners:
            runner.stop()

    def stop_now(self) -> None:
        """Stop accepting and end open connections at once."""
        for runner in self._runners:
            runner.stop_now()

    async def reload(self) -> None:
        """Read every identity again, and try at once the tunnels that are not open.

        Failures are events. Cancelled, each tunnel keeps the identity that it has.
        """
        async with trio.open_nursery() as nursery:
            for runner in self._runners:
                nursery.start_soon(runner.reload)
