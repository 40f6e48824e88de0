"""Processes that are measured: started, watched with all their children, and stopped."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import psutil

Answer = TypeVar("Answer")

START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0
POLL_INTERVAL = 0.02
SETTLE_STEP = 0.05
SETTLE_TIMEOUT = 3.0
_CPUCLOCK_SCHED: Final = 2  # include/linux/posix-timers.h
SETTLED_SHARE = 0.2
"""A process that uses less than this share of a processor has nothing left to do."""


class BenchError(Exception):
    """Something that the benchmark needs does not work; the text says what."""


@dataclass(frozen=True)
class Running:
    """A process and its children.

    Attributes:
        name: For messages.
        process: The first process.
        output: What it writes to standard output.
        log: What it writes to standard error.
    """

    name: str
    process: psutil.Popen
    output: Path
    log: Path

    def tree(self) -> list[psutil.Process]:
        """The process and its living descendants."""
        if self.process.poll() is not None:
            raise BenchError(f"{self.name} has ended: {self.last_words()}")
        return [self.process, *self.process.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """User and system time of all of them so far, those that have ended included."""
        return sum(self._ask(_cpu_seconds))

    def rss_bytes(self) -> int:
        """Resident memory of all of them; what they share is counted for each."""
        return sum(self._ask(lambda process: int(process.memory_info().rss)))

    def _ask(self, question: Callable[[psutil.Process], Answer]) -> Iterator[Answer]:
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):  # it ended meanwhile
                yield question(process)

    def listens(self, port: int) -> bool:
        """Whether one of them listens on this TCP port."""
        return any(
            connection.laddr.port == port
            for connections in self._ask(lambda process: process.net_connections("tcp"))
            for connection in connections
            if connection.status == psutil.CONN_LISTEN
        )

    def wait_until_listening(self, port: int) -> None:
        """Wait for the port without touching it.

        Raises:
            BenchError: It ended, or took too long.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while not self.listens(port):
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} does not listen on {port}: {self.last_words()}")
            time.sleep(POLL_INTERVAL)

    def wait_for_output(self) -> str:
        """The first line on standard output.

        Raises:
            BenchError: It ended, or took too long.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while "\n" not in (text := self.output.read_text(encoding="utf-8")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{self.name} says nothing: {self.last_words()}")
            time.sleep(POLL_INTERVAL)
        return text.partition("\n")[0]

    def settle(self) -> None:
        """Wait until it has finished with what the last run left behind, for seconds at most."""
        deadline = time.monotonic() + SETTLE_TIMEOUT
        used = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(SETTLE_STEP)
            before, used = used, self.cpu_seconds()
            if used - before <= SETTLED_SHARE * SETTLE_STEP:
                return

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:].strip() or "no log"

    def stop(self) -> None:
        """Ask it to end, then make it, and its children too."""
        if self.process.poll() is not None:
            return
        tree = self.tree()
        self.process.terminate()
        with suppress(psutil.TimeoutExpired, subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT)
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(STOP_TIMEOUT)


def _cpu_seconds(process: psutil.Process) -> float:
    """Its own time, and that of its children that have ended."""
    times = process.cpu_times()
    own = times.user + times.system
    if sys.platform == "linux":
        # The same to the nanosecond: what clock_getcpuclockid(3) makes of a process identifier.
        with suppress(OSError):
            own = time.clock_gettime(~process.pid << 3 | _CPUCLOCK_SCHED)
    return own + times.children_user + times.children_system


def launch(
    name: str,
    command: Sequence[str | Path],
    directory: Path,
    environment: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> Running:
    """Start a process whose output goes to files in the directory.

    Args:
        name: For messages, and the name of the files.
        command: Program and arguments.
        directory: Where the files go, and its working directory.
        environment: Added to ours.
        stdin: As in `subprocess.Popen`.
    """
    output, log = directory / f"{name}.out", directory / f"{name}.log"
    with output.open("wb") as stdout, log.open("wb") as stderr:
        process = psutil.Popen(
            list(map(str, command)),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=directory,
            env=clean_environment() | dict(environment or {}),
        )
    return Running(name, process, output, log)


@contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Run a process for the length of the block."""
    started = launch(name, command, directory, environment)
    try:
        yield started
    finally:
        started.stop()


def clean_environment() -> dict[str, str]:
    """Our environment without what would change the settings of those we start."""
    prefixes = ("DBPROXY_", "TBOT_", "PG", "GODEBUG", "GOMAXPROCS", "GOGC")
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
