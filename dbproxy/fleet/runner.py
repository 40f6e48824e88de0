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

    Nothing that goes wrong in one tunnel reaches the others: a bug ends its tunnel, which is then
    opened again.

    Args:
        tunnel: The tunnel.
        config: tbot's configuration file; read at each attempt.
        settings: What holds for all tunnels.
        publish: Gets the tunnel's events.
        tell: Called whenever the tunnel is open.
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
        self._attempts = 0
        self._stopped = False
        self._opening = trio.CancelScope()
        self._try_now = trio.Event()
        self._proxy: DatabaseProxy | None = None
        self._bugs: list[Exception] = []

    async def run(self) -> None:
        """Open the tunnel, serve it, and drain it after `stop`.

        Cancelling it ends every connection at once.

        Raises:
            Exception: What `tell` raises.
        """
        while not self._stopped:
            prepared: Prepared | None = None
            with self._new_opening():
                prepared = await self._open()
            if prepared is None:
                return
            self._bugs.clear()
            begin = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve, prepared)
                self._tell(self._tunnel, prepared.started)
            self._backoff.worked_for(trio.current_time() - begin)
            if not self._bugs:
                return
            with self._new_opening():
                await self._fail(self._bugs[0])

    def stop(self) -> None:
        """Try no more, and stop accepting; open connections have the drain timeout to end."""
        self._end_opening()
        if self._proxy is not None:
            self._proxy.stop()

    def stop_now(self) -> None:
        """Try no more, stop accepting, and end open connections at once."""
        self._end_opening()
        if self._proxy is not None:
            self._proxy.stop_now()

    def _new_opening(self) -> trio.CancelScope:
        """What `stop` cancels, each time that the tunnel is not open."""
        self._opening = trio.CancelScope()
        if self._stopped:
            self._opening.cancel()
        return self._opening

    def _end_opening(self) -> None:
        self._stopped = True
        self._opening.cancel()

    async def reload(self) -> None:
        """Read the identity again; a tunnel that is not open is tried at once."""
        self._try_now.set()
        proxy = self._proxy
        if proxy is None:
            return
        try:
            await proxy.reload()
        except Exception as bug:  # noqa: BLE001 - it ends this tunnel, and is published by `run`
            self._bugs.append(bug)
            proxy.stop_now()

    async def _open(self) -> Prepared:
        publish = _Opening(self._publish)
        while True:
            self._attempts += 1
            try:
                return await self._attempt(publish)
            except Exception as error:  # noqa: BLE001 - it is published, and the others go on
                await self._fail(error)

    async def _attempt(self, publish: "_Opening") -> Prepared:
        """One attempt, from the configuration on: what was wrong there may have been put right."""
        config = load_tbot_config(self._config)
        settings = settings_for(self._tunnel, self._settings, config)
        self._proxy = DatabaseProxy(settings, publish)
        prepared = await self._proxy.prepare()
        publish.succeeded()
        return prepared

    async def _serve(self, prepared: Prepared) -> None:
        proxy = self._proxy
        if proxy is None:
            raise AssertionError("only a proxy makes something prepared")
        try:
            await proxy.serve(prepared)
        except Exception as bug:  # noqa: BLE001 - it is published by `run`, and the others go on
            self._bugs.append(bug)

    async def _fail(self, error: Exception) -> None:
        """Publish a failure, and wait until the next attempt is due."""
        self._try_now = trio.Event()
        pause = self._backoff.next()
        self._publish(self._failure(error, pause))
        with trio.move_on_after(pause):
            await self._try_now.wait()

    def _failure(self, error: Exception, pause: float) -> TunnelFailed:
        foreseen = error if isinstance(error, DBProxyError) else _unforeseen(error)
        code = foreseen.code
        return TunnelFailed(
            service=self._tunnel.service,
            listen=self._tunnel.listen,
            attempt=self._attempts,
            retry_in=pause,
            code=code,
            reason=foreseen.message,
            next_step=LISTEN_ELSEWHERE if code is Code.ADDRESS_IN_USE else foreseen.next_step,
            error=None if foreseen is error else error,
        )


def _unforeseen(bug: Exception) -> DBProxyError:
    """What to say about a bug: of several, the first one."""
    leaf = bug
    while isinstance(leaf, ExceptionGroup):
        leaf = leaf.exceptions[0]
    return DBProxyError(Code.INTERNAL_ERROR, f"unexpected {type(leaf).__name__}: {leaf}")
