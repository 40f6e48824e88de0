"""Child processes that never outlive the demo."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import IO, Final, TypeAlias

import trio

__all__ = ["Command", "Launch", "end", "output_of", "spawn"]

Command: TypeAlias = Sequence[str | Path]
"""A program and its arguments."""

STOP_PATIENCE: Final = 8.0
"""Seconds that a child gets to end in good order before it is killed."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How children are started.

    Attributes:
        cwd: Their working directory.
        env: Their environment; None for this process's.
        account: The numeric user and group to run as; None for this process's.
    """

    cwd: Path
    env: dict[str, str] | None = field(default=None, repr=False)
    account: tuple[int, int] | None = None

    async def open(
        self, command: Command, *, stdin: int, stdout: int | IO[bytes], stderr: int
    ) -> trio.Process:
        """Start a child in a session of its own: a terminal's Ctrl-C reaches only this process."""
        user, group = self.account or (None, None)
        return await trio.lowlevel.open_process(
            [str(word) for word in command],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=self.cwd,
            env=self.env,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=[] if self.account else None,
        )


@asynccontextmanager
async def spawn(
    launch: Launch, command: Command, *, log: Path, stdout: int | None = None
) -> AsyncIterator[trio.Process]:
    """Run a child while the block runs; its messages go to the file `log`.

    Leaving the block, also by cancellation, asks it to end (SIGINT) and waits until it has.

    Args:
        launch: How to start it.
        command: The program and its arguments.
        log: Gets its standard error, and its standard output unless `stdout` says otherwise.
        stdout: `subprocess.PIPE` to read its standard output.
    """
    with log.open("ab") as messages:
        process = await launch.open(
            command,
            stdin=DEVNULL,
            stdout=messages if stdout is None else stdout,
            stderr=STDOUT if stdout is None else messages.fileno(),
        )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            await end(process)
            if process.stdout is not None:
                await process.stdout.aclose()


async def end(process: trio.Process) -> None:
    """Ask a child to end, wait for it, and kill it when it takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    with trio.move_on_after(STOP_PATIENCE):
        await process.wait()
        return
    process.kill()
    await process.wait()


async def output_of(launch: Launch, command: Command, stdin: bytes = b"") -> tuple[int, str]:
    """Run a child to its end: the exit status, and what it wrote on both outputs.

    Cancelled, it kills the child.
    """
    process = await launch.open(command, stdin=PIPE, stdout=PIPE, stderr=STDOUT)
    assert process.stdin is not None  # noqa: S101 - for the type checker: PIPE was asked for
    assert process.stdout is not None  # noqa: S101 - the same
    text = bytearray()
    try:
        async with process.stdin, process.stdout, trio.open_nursery() as nursery:
            nursery.start_soon(_feed, process.stdin, stdin)
            async for chunk in process.stdout:
                text += chunk
        return await process.wait(), text.decode(errors="replace")
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def _feed(stream: trio.abc.SendStream, data: bytes) -> None:
    try:
        await stream.send_all(data)
        await stream.aclose()
    except trio.BrokenResourceError:
        return  # the child ended without reading; its exit status tells the rest
