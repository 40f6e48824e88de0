"""`dbproxy db` as users run it: another process, known only by what it prints."""

from __future__ import annotations

import shlex
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from dbproxy.lab.demo.processes import spawn
from dbproxy.lab.demo.workshop import Workshop
from dbproxy.lab.errors import LabError

__all__ = ["Port", "open_port"]

START_PATIENCE: Final = 20.0
"""Seconds until the port must listen; importing everything takes about one."""
STARTED: Final = "Started DB proxy on "
PSQL: Final = "psql "


@dataclass(frozen=True)
class Port:
    """A running `dbproxy db`.

    Attributes:
        mode: `passthrough`, `terminate` or `tunnel`.
        said: The lines on its standard output.
        process: The process.
    """

    mode: str
    said: tuple[str, ...]
    process: trio.Process

    @property
    def number(self) -> str:
        """The TCP port."""
        return self.said[0].removeprefix(STARTED).rpartition(":")[2]

    @property
    def psql(self) -> str:
        """The line to paste."""
        return next(line for line in self.said if line.startswith(PSQL))

    @property
    def parameters(self) -> dict[str, str]:
        """What a client connects with, as the guide says, from the files that dbproxy named."""
        where = {"host": "localhost", "port": self.number}
        if self.mode == "tunnel":
            return {**where, "sslmode": "disable"}
        return {
            **where,
            "sslmode": "verify-full",
            "sslrootcert": self._file("ca_file"),
            "sslcert": self._file("cert_file"),
            "sslkey": self._file("key_file"),
        }

    def _file(self, key: str) -> str:
        for line in self.said:
            name, _, value = line.partition("=")
            if name == key:
                return value
        raise LabError(f"dbproxy did not print {key}=")


@asynccontextmanager
async def open_port(workshop: Workshop, mode: str, arguments: Sequence[str]) -> AsyncIterator[Port]:
    """Run `dbproxy ARGUMENTS` while the block runs; it listens when the block begins.

    Args:
        workshop: Where it runs and logs.
        mode: Which of the three modes the arguments ask for.
        arguments: What follows `dbproxy` on the command line.

    Raises:
        LabError: It ended, or did not say that it listens.
    """
    # -P: whatever lies in the working directory must not shadow the installed package.
    command = [sys.executable, "-P", "-m", "dbproxy", *arguments]
    log = workshop.log(mode)
    async with spawn(command, cwd=workshop.directory, env=workshop.environment, log=log) as process:
        said = None
        with trio.move_on_after(START_PATIENCE):
            said = await _greeting(process)
        if said is None:
            words = await trio.Path(log).read_text(encoding="utf-8", errors="replace")
            raise LabError(f"`dbproxy {shlex.join(arguments)}` did not start: {words.strip()}")
        yield Port(mode, said, process)


async def _greeting(process: trio.Process) -> tuple[str, ...] | None:
    """What it prints up to and including the `psql` line; None when it ends before that."""
    assert process.stdout is not None  # noqa: S101 - for the type checker: PIPE was asked for
    text = b""
    async for chunk in process.stdout:
        text += chunk
        lines = tuple(line.strip() for line in text.decode(errors="replace").splitlines())
        if text.endswith(b"\n") and any(line.startswith(PSQL) for line in lines):
            return lines
    return None
