"""Running the installed `dbproxy` command as its users do: as a process of its own.

The environment variable `DBPROXY_COMMAND` names another command than the one beside this Python.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import trio

COMMAND = os.environ.get("DBPROXY_COMMAND") or str(Path(sys.executable).with_name("dbproxy"))
PATIENCE = 20.0
"""Seconds: far more than anything here takes, even on a busy machine."""

_FOREIGN = re.compile("DBPROXY_|TBOT_CONFIG_PATH$|XDG_|STATE_DIRECTORY$|NO_COLOR$|PG")

_WITHOUT_ROOTS_RIGHTS = """
import ctypes, os, sys
prctl = ctypes.CDLL(None, use_errno=True).prctl
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
for capability in CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH:
    if prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
        sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Root may read everything; without these two capabilities file permissions hold for it too."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The first line of the complaint."""
        return next((line for line in self.err.splitlines() if " error: " in line), "")


class Run(Protocol):
    """`run_dbproxy` with a home directory of the test's own."""

    def __call__(
        self,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        bound_by_permissions: bool = False,
    ) -> Outcome: ...


def clean_environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what dbproxy or libpq look at, and `more`.

    A connection has one attempt unless `more` says otherwise: nobody comes back in these tests.
    """
    kept = {name: value for name, value in os.environ.items() if not _FOREIGN.match(name)}
    own = {"HOME": str(home), "DBPROXY_CONNECT_GRACE": "0"}
    return kept | own | dict(more or {})


def run_dbproxy(
    *arguments: str | Path,
    home: Path,
    env: Mapping[str, str] | None = None,
    bound_by_permissions: bool = False,
) -> Outcome:
    """Run a command that ends by itself.

    Args:
        arguments: Of the command line.
        home: The home directory, where nothing else is configured.
        env: Additional environment variables.
        bound_by_permissions: Let file permissions hold, even for root.
    """
    command = [COMMAND, *map(str, arguments)]
    if bound_by_permissions and os.geteuid() == 0:
        command = [sys.executable, "-c", _WITHOUT_ROOTS_RIGHTS, *command]
    process = subprocess.run(
        command,
        env=clean_environment(home, env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Outcome(process.returncode, process.stdout, process.stderr)


@dataclass
class Lines:
    """The lines of a stream, as they come."""

    received: list[str] = field(default_factory=list)
    ended: bool = False
    _changed: trio.Condition = field(default_factory=trio.Condition)

    async def collect(self, stream: trio.abc.ReceiveStream) -> None:
        """Read the stream to its end."""
        rest = b""
        async for data in stream:
            *lines, rest = (rest + data).split(b"\n")
            await self._extend([line.decode() for line in lines])
        await self._extend([rest.decode()] if rest else [], ended=True)

    async def first(self, pattern: str, *, after: int = 0) -> str:
        """Wait for a line in which `pattern` is found; the first `after` lines do not count.

        Raises:
            AssertionError: The stream ended without it.
        """
        with trio.fail_after(PATIENCE):
            async with self._changed:
                while True:
                    for line in self.received[after:]:
                        if re.search(pattern, line):
                            return line
                    assert not self.ended, f"no {pattern!r} in {self.received}"
                    await self._changed.wait()

    async def _extend(self, lines: Sequence[str], *, ended: bool = False) -> None:
        async with self._changed:
            self.received += lines
            self.ended = ended
            self._changed.notify_all()


@dataclass
class RunningCommand:
    """A `dbproxy` command in the background."""

    process: trio.Process
    out: Lines = field(default_factory=Lines)
    err: Lines = field(default_factory=Lines)

    async def started(self) -> str:
        """Wait for the start message and return the address in it."""
        line = await self.out.first("^Started DB proxy on ")
        return line.removeprefix("Started DB proxy on ")

    async def port(self) -> int:
        """Wait for the start message and return the TCP port in it."""
        return int((await self.started()).rpartition(":")[2])

    async def event(self, name: str, **expected: object) -> dict[str, Any]:
        """Wait for an event in the log, which must be in JSON, with the fields expected."""
        seen = 0
        while True:
            line = await self.err.first(f'"event": "{name}"', after=seen)
            seen = self.err.received.index(line, seen) + 1
            entry: dict[str, Any] = json.loads(line)
            if expected.items() <= entry.items():
                return entry

    async def stop(self, *signals: signal.Signals) -> int:
        """Send the signals (SIGTERM, unless said otherwise) and return the exit status."""
        for number in signals or (signal.SIGTERM,):
            self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for the end and return the exit status."""
        with trio.fail_after(PATIENCE):
            return await self.process.wait()


@asynccontextmanager
async def running_dbproxy(
    *arguments: str | Path,
    home: Path,
    env: Mapping[str, str] | None = None,
    stderr: int = subprocess.PIPE,
    own_group: bool = False,
) -> AsyncIterator[RunningCommand]:
    """Run a command in the background; what still runs at the end of the block is killed.

    Args:
        arguments: Of the command line.
        home: The home directory, where nothing else is configured.
        env: Additional environment variables.
        stderr: A descriptor for the log, which is then not collected.
        own_group: Begin a process group, as shells do for what they run in the foreground.
    """
    process = await trio.lowlevel.open_process(
        [COMMAND, *map(str, arguments)],
        env=clean_environment(home, env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        process_group=0 if own_group else None,
    )
    assert process.stdout is not None
    command = RunningCommand(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(command.out.collect, process.stdout)
            if process.stderr is not None:
                nursery.start_soon(command.err.collect, process.stderr)
            yield command
            if process.returncode is None:
                process.kill()
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + PATIENCE):
            await process.wait()
