"""Starting a worker, and seeing it to its end.

Problem: Ctrl-C is for every process of the foreground, and an interpreter that is just starting
answers it with a traceback, before any line of ours can run. Choice: a worker begins with SIGINT
and SIGHUP held back, which an exec inherits, and lets them go once it ignores them (in
`dbproxy.__main__`). The mask belongs to a thread, hence `subprocess` in this one rather than trio's
`open_process`, which uses another. It takes two milliseconds, in a process that carries no bytes.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import trio

from dbproxy._version import __version__
from dbproxy.errors import Code, DBProxyError
from dbproxy.workers.beginning import TERMINAL_SIGNALS
from dbproxy.workers.channel import Channel
from dbproxy.workers.handover import Handover, above_standard
from dbproxy.workers.messages import StopNow
from dbproxy.workers.roster import End, How

__all__ = ["WorkerProcess", "launch", "own_command"]

_POLL: Final = 0.05
"""Seconds between looks at a process, where the system has no better way to wait for it."""
_LAST_WORDS: Final = 10.0
"""Seconds that a worker has to end once it has closed its channel: it writes its log."""


def own_command() -> tuple[str, ...]:
    """The command line that this process was started with, for one more like it."""
    interpreter, *arguments = sys.orig_argv
    return (sys.executable or interpreter, *arguments)


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """A worker that runs.

    Attributes:
        number: Which one.
        process: The process.
        channel: Our end of the channel to it.
        is_ready: Whether it has said that it serves.
    """

    number: int
    process: "subprocess.Popen[bytes]"
    channel: Channel
    is_ready: bool = False

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self.process.pid

    async def ended(self) -> End:
        """Wait for the end of a worker that has closed its channel; in the end it is killed."""
        with trio.move_on_after(_LAST_WORDS):
            await self._wait()
        if self.process.poll() is None:
            self.process.kill()
        return self._end(await self._wait())

    async def dismiss(self, patience: float) -> bool:
        """End it at once, also when this is cancelled, and close the channel.

        One that is not ready yet has nothing to lose, and is not waited for.

        Args:
            patience: Seconds that it may take, before it is killed.

        Returns:
            Whether one that was ready had to be killed.
        """
        with trio.CancelScope(shield=True):
            if self.is_ready and self.process.poll() is None:
                self.channel.send(StopNow())
                with trio.move_on_after(patience):
                    await self._wait()
            is_left = self.process.poll() is None
            if is_left:
                self.process.kill()
                await self._wait()
        self.channel.close()
        return is_left and self.is_ready

    async def _wait(self) -> int:
        """Wait for the end of the process, also after a cancelled wait; returns its status."""
        while (status := self.process.poll()) is None:
            try:
                descriptor = os.pidfd_open(self.pid)
            except (AttributeError, OSError):  # not on this system
                await trio.sleep(_POLL)
                continue
            try:
                await trio.lowlevel.wait_readable(descriptor)
            finally:
                os.close(descriptor)
        return status

    def _end(self, status: int) -> End:
        if status == 0 or status == -signal.SIGTERM:  # the latter before it could handle it
            return End(How.ASKED)
        return End(How.CRASHED, self.lost(_described(status)))

    def lost(self, how: str) -> DBProxyError:
        """The error that says so."""
        message = f"worker {self.number} (process {self.pid}) {how}"
        return DBProxyError(Code.WORKER_LOST, message)


def launch(
    command: Sequence[str], number: int, listener: socket.socket, log_lock: int | None
) -> WorkerProcess:
    """Start a worker.

    Args:
        command: The command line.
        number: Which worker it is.
        listener: The socket that it accepts at.
        log_lock: What it locks while it writes its log; None where there is no log.

    Raises:
        DBProxyError: `worker-lost`: the system does not start it.
    """
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise _not_started(number, error) from error
    try:
        with above_standard(theirs) as channel, above_standard(listener.dup()) as inherited:
            handover = Handover(
                version=__version__,
                worker=number,
                listener=inherited.fileno(),
                channel=channel.fileno(),
                log_lock=log_lock,
            )
            with _held_back():
                process = subprocess.Popen(  # noqa: S603 - the command that we run as
                    command,
                    env=os.environ | handover.environment(),
                    pass_fds=handover.descriptors(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,  # the start message is the supervisor's
                    stderr=subprocess.DEVNULL if log_lock is None else None,
                )
    except OSError as error:
        ours.close()
        raise _not_started(number, error) from error
    return WorkerProcess(number, process, Channel(ours))


@contextmanager
def _held_back() -> Iterator[None]:
    """In this thread, and in what it starts, terminal signals wait."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _not_started(number: int, error: OSError) -> DBProxyError:
    message = f"worker {number} cannot be started: {error.strerror or error}"
    return DBProxyError(Code.WORKER_LOST, message)


def _described(status: int) -> str:
    if status > 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
