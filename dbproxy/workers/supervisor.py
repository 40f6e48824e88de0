"""The process that opens the port and looks after those that serve it.

It checks everything that can be wrong at start, as a proxy on its own does, and opens the listener,
so that the operator gets one error, from one process. Then it only starts workers, passes on what
it is asked for, and sums up what they report. It keeps the listener open while it may start workers
still: clients that come while a worker is replaced wait in the queue of the port.

What it decides is in `roster`, what it sums up in `totals`, both without I/O.
"""

import socket
from collections.abc import Callable, Sequence
from typing import Final

import trio

from dbproxy.backoff import Backoff
from dbproxy.downstream import remove_name
from dbproxy.errors import DBProxyError
from dbproxy.events import DrainingStarted, Stopped, Subscriber, WorkerFailed, WorkerStarted
from dbproxy.proxy import DatabaseProxy, Prepared, Started, not_running_yet
from dbproxy.settings import Settings
from dbproxy.workers import messages
from dbproxy.workers.launch import WorkerProcess, launch, own_command
from dbproxy.workers.messages import (
    Begin,
    Draining,
    Message,
    Mistaken,
    Ready,
    Reload,
    Shown,
    Stop,
    StopNow,
)
from dbproxy.workers.roster import End, How, Roster, replacement_backoff
from dbproxy.workers.totals import Totals

__all__ = ["Supervisor"]

_PATIENCE: Final = 10.0
"""Seconds beyond the drain timeout that a worker may take to end."""
_NO_PATIENCE: Final = 3.0
"""Seconds that ending at once may take; writing the log has two of them."""


class Supervisor:
    """Several processes for one local listener and one Teleport database service.

    Used as a `DatabaseProxy` is.

    Args:
        settings: What to carry, from where to where, and how, and with how many workers.
        publish: Gets the events of the supervisor; those of the workers go to their own log.
        log_lock: The descriptor that the workers lock while they write their log to standard
            error; None if there is no log.
        command: The command line of a worker.
        make_backoff: Makes the pauses before the workers that take one place.
    """

    def __init__(
        self,
        settings: Settings,
        publish: Subscriber,
        *,
        log_lock: int | None,
        command: Sequence[str] | None = None,
        make_backoff: Callable[[], Backoff] = replacement_backoff,
    ) -> None:
        self._settings = settings
        self._publish = publish
        self._log_lock = log_lock
        self._command = own_command() if command is None else command
        self._roster = Roster(settings.workers, make_backoff)
        self._totals = Totals()
        self._workers: dict[int, WorkerProcess] = {}
        self._opened = trio.Event()
        self._stopping = trio.Event()
        self._patience = trio.CancelScope()
        self._port: _Port | None = None
        self._told_draining = False

    async def run(
        self, *, task_status: trio.TaskStatus[Started] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Open the listener and have workers serve it until `stop`; then wait for their end.

        Reports a `Started` once a first worker accepts connections. Cancelling it ends every
        connection at once, and every worker.

        Raises:
            DBProxyError: As `DatabaseProxy.run` does; or no worker can begin. Possibly in an
                exception group.
        """
        port, started = await self._open()
        self._port = port
        try:
            with self._patience:
                async with trio.open_nursery() as nursery:
                    for place in range(self._settings.workers):
                        nursery.start_soon(self._fill, place, port)
                    await self._opened.wait()
                    task_status.started(started)
        finally:
            port.close()
            if self._stopping.is_set():  # also when starting was cancelled for it
                self._publish(Stopped(ended_early=self._totals.ended_early))

    def stop(self) -> None:
        """Stop accepting; open connections have the drain timeout to end. May be called again."""
        self._begin_to_stop()
        self._end_within(self._settings.drain_timeout + _PATIENCE)
        self._tell_all(Stop())

    def stop_now(self) -> None:
        """Stop accepting and end open connections at once."""
        self._begin_to_stop()
        self._end_within(_NO_PATIENCE)
        self._tell_all(StopNow())

    async def reload(self) -> None:
        """Have every worker read the identity again; each tells what came of it."""
        await trio.lowlevel.checkpoint()
        self._tell_all(Reload())

    async def _open(self) -> tuple["_Port", Started]:
        """Check everything and open the listener; what was read of the identity is let go."""
        with not_running_yet():
            prepared = await DatabaseProxy(self._settings, self._publish).prepare()
        return _Port(prepared), prepared.started

    async def _fill(self, place: int, port: "_Port") -> None:
        """Keep a worker in this place, until all are to end."""
        while (number := self._roster.begins(place, trio.current_time())) is not None:
            end = await self._employ(place, number, port)
            verdict = self._roster.ended(place, end, trio.current_time())
            if verdict.fatal is not None:
                raise verdict.fatal
            if verdict.told is not None:
                self._tell_failure(number, verdict.told, verdict.pause)
            if verdict.pause is not None:
                with trio.move_on_after(verdict.pause):
                    await self._stopping.wait()

    async def _employ(self, place: int, number: int, port: "_Port") -> End:
        """Start a worker, and stay with it until its end."""
        try:
            worker = launch(self._command, number, port.listener, self._log_lock)
        except DBProxyError as error:
            return End(How.CRASHED, error)
        self._workers[number] = worker
        try:
            worker.channel.send(port.first_message)
            return await self._attend(place, worker)
        finally:
            if await worker.dismiss(0 if self._patience.cancel_called else _NO_PATIENCE):
                self._tell_failure(number, worker.lost("did not end in time and was killed"), None)
            del self._workers[number]
            self._totals.gone(number)
            self._tell_draining()

    async def _attend(self, place: int, worker: WorkerProcess) -> End:
        """Take note of what a worker says, until it has ended."""
        mistake: DBProxyError | None = None
        try:
            while received := await worker.channel.receive():
                for message in received:
                    if isinstance(message, Mistaken):
                        mistake = message.error()
                    else:
                        self._note(message, place, worker)
        except ValueError as error:
            return End(How.CRASHED, worker.lost(f"says what no worker says: {error}"))
        end = await worker.ended()
        return end if mistake is None else End(How.MISTAKEN, mistake)

    def _note(self, message: Message, place: int, worker: WorkerProcess) -> None:
        match message:
            case Ready():
                worker.is_ready = True
                self._roster.ready(place)
                self._publish(WorkerStarted(worker=worker.number, pid=worker.pid))
                self._opened.set()
            case Draining():
                self._totals.draining(worker.number, message.open_connections)
                self._tell_draining()
            case messages.Stopped():
                self._totals.stopped(message.ended_early)

    def _begin_to_stop(self) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._roster.stop()
        self._totals.drain(set(self._workers))
        if self._port is not None:
            self._port.close()  # so that clients are refused as soon as the workers have done so
        self._tell_draining()

    def _end_within(self, seconds: float) -> None:
        self._patience.deadline = min(self._patience.deadline, trio.current_time() + seconds)

    def _tell_all(self, message: Message) -> None:
        for worker in self._workers.values():
            worker.channel.send(message)

    def _tell_draining(self) -> None:
        """Publish how many connections are open, once every worker has said so."""
        open_connections = self._totals.open_connections
        if open_connections is None or self._told_draining:
            return
        self._told_draining = True
        grace = self._settings.drain_timeout
        self._publish(DrainingStarted(open_connections=open_connections, grace=grace))

    def _tell_failure(self, number: int, error: DBProxyError, pause: float | None) -> None:
        self._publish(
            WorkerFailed(
                worker=number,
                code=error.code,
                reason=error.message,
                next_step=error.next_step,
                retry_in=pause,
            )
        )


class _Port:
    """The listener, and what goes with it to each worker.

    Args:
        prepared: A proxy whose listener this takes over.

    Attributes:
        listener: The listening socket.
        address: Where it listens.
        first_message: The first one to each worker.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.listener = socket.socket(fileno=prepared.listener.socket.detach())
        self.address = prepared.address
        shown = prepared.certificate
        self.first_message: Message = Begin() if shown is None else Shown.of(shown)

    def close(self) -> None:
        """Do not listen any more; may be called again.

        The name goes first: as soon as nobody listens, another process may take it over.
        """
        if self.listener.fileno() >= 0:
            remove_name(self.address)
        self.listener.close()
