"""Starting a worker, and seeing it to its end."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from dbproxy._version import __version__
from dbproxy.errors import Code, DBProxyError
from dbproxy.workers.channel import Channel
from dbproxy.workers.handover import Handover, above_standard
from dbproxy.workers.messages import StopNow
from dbproxy.workers.roster import End, How

__all__ = ["WorkerProcess", "launch", "own_command"]

_LAST_WORDS: Final = 10.0
"""Seconds that a worker has to end once it has closed its channel: it writes its log."""


def own_command() -> tuple[str, ...]:
    """The command line that this process was started with, for one more like it."""
    interpreter, *arguments = sys.orig_argv
    return (sys.executable or interpreter, *arguments)


@dataclass(frozen=True, slots=True, eq=False)
class WorkerProcess:
    """A worker that runs.

    Attributes:
        number: Which one.
        process: The process.
        channel: Our end of the channel to it.
    """

    number: int
    process: trio.Process
    channel: Channel

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self.process.pid

    async def ended(self) -> End:
        """Wait for the end of a worker that has closed its channel; in the end it is killed."""
        with trio.move_on_after(_LAST_WORDS):
            await self.process.wait()
        if self.process.returncode is None:
            self.process.kill()
        return self._end(await self.process.wait())

    async def dismiss(self, patience: float) -> bool:
        """End it at once, also when this is cancelled, and close the channel.

        Args:
            patience: Seconds that it may take, before it is killed.

        Returns:
            Whether it had to be killed.
        """
        killed = False
        with trio.CancelScope(shield=True):
            if self.process.returncode is None:
                self.channel.send(StopNow())
                with trio.move_on_after(patience):
                    await self.process.wait()
            if self.process.returncode is None:
                killed = True
                self.process.kill()
                await self.process.wait()
        self.channel.close()
        return killed

    def _end(self, status: int) -> End:
        if status == 0 or status == -signal.SIGTERM:  # the latter before it could handle it
            return End(How.ASKED)
        return End(How.CRASHED, self.lost(_described(status)))

    def lost(self, how: str) -> DBProxyError:
        """The error that says so."""
        message = f"worker {self.number} (process {self.pid}) {how}"
        return DBProxyError(Code.WORKER_LOST, message)


async def launch(
    command: Sequence[str], number: int, listener: socket.socket, log_lock: int | None
) -> WorkerProcess:
    """Start a worker.

    Cancelled, it has started none.

    Args:
        command: The command line.
        number: Which worker it is.
        listener: The socket that it accepts at.
        log_lock: What it locks while it writes its log; None where there is no log.

    Raises:
        DBProxyError: `worker-lost`: the system does not start it.
    """
    ours, theirs = _pair(number)
    try:
        # A copy, because the caller may close its own one before the process has begun.
        with theirs, above_standard(listener.dup()) as inherited:
            handover = Handover(
                version=__version__,
                worker=number,
                listener=inherited.fileno(),
                channel=theirs.fileno(),
                log_lock=log_lock,
            )
            process = await trio.lowlevel.open_process(
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
    except BaseException:
        ours.close()
        raise
    return WorkerProcess(number, process, Channel(ours))


def _pair(number: int) -> tuple[socket.socket, socket.socket]:
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise _not_started(number, error) from error
    return ours, above_standard(theirs)


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
