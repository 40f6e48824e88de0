"""Running the proxy as a process, or several: its log, its start message and its signals."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar

import trio

from dbproxy.cli.announce import announce, announce_tunnel
from dbproxy.cli.terminal import ControllingTerminal
from dbproxy.events import Subscriber
from dbproxy.fleet import Fleet
from dbproxy.ops import EventLog, dropped_notice, log_writer, make_logger
from dbproxy.proxy import DatabaseProxy, Started
from dbproxy.relay import own_the_loop
from dbproxy.settings import Settings
from dbproxy.workers.handover import Handover, open_log_lock
from dbproxy.workers.supervisor import Supervisor
from dbproxy.workers.worker import Worker

__all__ = ["run_with_signals", "serve", "serve_tunnels"]

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


S_co = TypeVar("S_co", covariant=True)
S = TypeVar("S")

EventLogs = Callable[..., Subscriber]
"""Makes a subscriber that logs, with the keywords in each line."""


class Runnable(Protocol[S_co]):
    """What is needed of `DatabaseProxy` or `Fleet` here; `S_co` is what it reports when started."""

    async def run(self, *, task_status: trio.TaskStatus[S_co] = ...) -> None: ...
    def stop(self) -> None: ...
    def stop_now(self) -> None: ...
    async def reload(self) -> None: ...


def serve(settings: Settings) -> None:
    """Run the proxy that `settings` describe until a signal ends it; as a worker if we are one.

    Raises:
        DBProxyError: It could not be started; possibly in an exception group.
        click.ClickException: The start message could not be written; likewise.
    """
    if (handover := Handover.taken_from(os.environ)) is not None:
        _work(settings, handover)
    elif settings.workers > 1:
        _supervise(settings)
    else:
        with event_logs(settings) as log:
            _run(DatabaseProxy(settings, log()), settings)


def _work(settings: Settings, handover: Handover) -> None:
    with event_logs(settings, lock=handover.log_lock) as log:
        trio.run(Worker(settings, handover, log(worker=handover.worker)).run)


def _supervise(settings: Settings) -> None:
    lock = None if sys.stderr is None else open_log_lock()
    with event_logs(settings, lock=lock) as log:
        _run(Supervisor(settings, log(), log_lock=lock), settings)


def _run(proxy: Runnable[Started], settings: Settings) -> None:
    trio.run(run_with_signals, proxy, lambda started: announce(started, settings))


def serve_tunnels(settings: Settings) -> None:
    """Run every tunnel of the tbot configuration in `settings` until a signal ends them.

    Raises:
        DBProxyError: They could not be started; possibly in an exception group.
        click.ClickException: A start message could not be written; likewise.
    """
    with event_logs(settings) as log:
        fleet = Fleet(
            settings,
            tell=lambda tunnel, started: announce_tunnel(tunnel.name, started, settings),
            subscriber_for=lambda tunnel: log(tunnel=tunnel.name),
        )
        trio.run(run_with_signals, fleet, lambda _started: None)


@contextmanager
def event_logs(settings: Settings, *, lock: int | None = None) -> Iterator[EventLogs]:
    """Makes subscribers that log to standard error; all is written when the block ends.

    Args:
        settings: How the log looks.
        lock: What several processes with one standard error lock while they write.
    """
    if sys.stderr is None:  # closed by whoever started us: descriptor 2 may be a socket by now
        yield lambda **_context: lambda _event: None
        return
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    notice = dropped_notice(settings.log_format, colors=colors)
    with log_writer(sys.stderr.fileno(), notice, lock=lock) as writer:
        logger = make_logger(settings.log_format, writer.write, colors=colors)
        yield lambda **context: EventLog(logger.bind(**context), debug=settings.debug)


async def run_with_signals(proxy: Runnable[S], tell: Callable[[S], None]) -> None:
    """Run `proxy`, alone in trio's loop, and do what signals ask for.

    SIGINT and SIGTERM stop it, a second one at once. SIGHUP makes it read the identity again; but
    when it comes because the terminal was closed, it stops too.

    Args:
        proxy: Not running yet.
        tell: Called once with what it reports when it has started.
    """
    own_the_loop()
    terminal = ControllingTerminal.at_start()
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            startup = trio.CancelScope()
            nursery.start_soon(_obey, signals, terminal, proxy, startup, nursery)
            await _start_and_run(proxy, startup, tell)
            nursery.cancel_scope.cancel()


async def _start_and_run(
    proxy: Runnable[S], startup: trio.CancelScope, tell: Callable[[S], None]
) -> None:
    async with trio.open_nursery() as nursery:
        with startup:
            started = await nursery.start(proxy.run)
            tell(started)


async def _obey(
    signals: AsyncIterator[int],
    terminal: ControllingTerminal,
    proxy: Runnable[object],
    startup: trio.CancelScope,
    nursery: trio.Nursery,
) -> None:
    stopping = False
    async for number in signals:
        if number == signal.SIGHUP and not terminal.is_gone():
            nursery.start_soon(proxy.reload)
        elif stopping:
            proxy.stop_now()
        else:
            stopping = True
            startup.cancel()
            proxy.stop()
