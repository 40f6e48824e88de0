"""Child processes that never outlive the block that started them."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Final

import trio

__all__ = ["end", "spawn"]

STOP_PATIENCE: Final = 8.0
"""Seconds that a child gets to end in good order before it is killed."""


@asynccontextmanager
async def spawn(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path
) -> AsyncIterator[trio.Process]:
    """Run a child while the block runs.

    It gets a session of its own, so that a terminal's Ctrl-C reaches this process only. Leaving the
    block, also by cancellation, asks it to end (SIGINT) and waits until it has.

    Args:
        command: The program and its arguments.
        cwd: Its working directory.
        env: Its environment.
        log: The file that its standard error is appended to; its standard output is a pipe.
    """
    with log.open("ab") as messages:
        process = await trio.lowlevel.open_process(
            command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=messages,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            await end(process)


async def end(process: trio.Process) -> None:
    """Ask a child to end, wait for it, and kill it when it takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    with trio.move_on_after(STOP_PATIENCE) as patience:
        await process.wait()
    if patience.cancelled_caught:
        process.kill()
        await process.wait()
    if process.stdout is not None:
        await process.stdout.aclose()
