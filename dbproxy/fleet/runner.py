"""Keeping one tunnel open, or trying to."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from dbproxy.backoff import Backoff
from dbproxy.errors import Code, DBProxyError
from dbproxy.events import Event, Subscriber, TunnelFailed
from dbproxy.fleet.tunnels import Tunnel, settings_for
from dbproxy.identity import load_tbot_config
from dbproxy.proxy import DatabaseProxy, Prepared, Started
from dbproxy.settings import Settings

__all__ = ["TunnelRunner"]

LISTEN_ELSEWHERE: Final = (
    "Choose another `listen` for this tunnel in tbot.yaml, unless tbot itself opens the tunnel:"
    " then give tbot a copy of the file without its `database-tunnel` services."
)


class _Opening:
    """Publishes the events of all attempts, but none twice: attempts are much alike."""

    def __init__(self, publish: Subscriber) -> None:
        self._publish = publish
        self._seen: set[Event] = set()
        self._is_open = False

    def __call__(self, event: Event) -> None:
        if self._is_open or event not in self._seen:
            self._publish(event)
        if not self._is_open:
            self._seen.add(event)

    def succeeded(self) -> None:
        """From now on every event counts."""
        self._is_open = True
        self._seen.clear()


class TunnelRunner:
    """Opens a tunnel, again and again if it must, and serves it until it is told to stop.

    Args:
        tunnel: The tunnel.
        config: tbot's configuration file; read at each attempt.
        settings: What holds for all tunnels.
        publish: Gets the tunnel's events.
        tell: Called once, when the tunnel is open.
        backoff: The pauses between attempts.
    """

    def __init__(
        self,
        tunnel: Tunnel,
        config: Path,
        settings: Settings,
        publish: Subscriber,
        tell: Callable[[Tunnel, Started], None],
        backoff: Backoff,
    ) -> None:
        self._tunnel = tunnel
        self._config = config
        self._settings = settings
        self._publish = publish
        self._tell = tell
        self._backoff = backoff
        self._opening = trio.CancelScope()
        self._try_now = trio.Event()
        self._proxy: DatabaseProxy | None = None

    async def run(self) -> None:
        """Open the tunnel, serve it, and drain it after `stop`.

        Cancelling it ends every connection at once.
        """
        prepared: Prepared | None = None
        with self._opening:
            prepared = await self._open()
        if prepared is None or self._proxy is None:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._proxy.serve, prepared)
            self._tell(self._tunnel, prepared.started)

    def stop(self) -> None:
        """Try no more, and stop accepting; open connections have the drain timeout to end."""
        self._opening.cancel()
        if self._proxy is not None:
            self._proxy.stop()

    def stop_now(self) -> None:
        """Try no more, stop accepting, and end open connections at once."""
        self._opening.cancel()
        if self._proxy is not None:
            self._proxy.stop_now()

    async def reload(self) -> None:
        """Read the identity again; a tunnel that is not open is tried at once."""
        self._try_now.set()
        if self._proxy is not None:
            await self._proxy.reload()

    async def _open(self) -> Prepared:
        publish = _Opening(self._publish)
        attempt = 0
        while True:
            attempt += 1
            self._try_now = trio.Event()
            try:
                return await self._attempt(publish)
            except DBProxyError as error:
                pause = self._backoff.next()
                self._publish(self._failure(error, attempt, pause))
            with trio.move_on_after(pause):
                await self._try_now.wait()

    async def _attempt(self, publish: "_Opening") -> Prepared:
        """One attempt, from the configuration on: what was wrong there may have been put right."""
        config = load_tbot_config(self._config)
        settings = settings_for(self._tunnel, self._settings, config)
        self._proxy = DatabaseProxy(settings, publish)
        prepared = await self._proxy.prepare()
        publish.succeeded()
        return prepared

    def _failure(self, error: DBProxyError, attempt: int, pause: float) -> TunnelFailed:
        return TunnelFailed(
            service=self._tunnel.service,
            listen=self._tunnel.listen,
            attempt=attempt,
            retry_in=pause,
            code=error.code,
            reason=error.message,
            next_step=LISTEN_ELSEWHERE if error.code is Code.ADDRESS_IN_USE else error.next_step,
        )
