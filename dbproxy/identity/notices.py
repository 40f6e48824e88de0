"""Being told by the system when something in a directory changes.

The problem: watchfiles watches in a thread that blocks, for as long as nothing happens. trio can
neither interrupt a thread nor count on one of its own being free, when several directories are
watched and each takes one forever.

The choice: threads of our own limit, given up on when the task is cancelled; the thread notices
within a tenth of a second by an event, and takes what it holds of the system with it.

What is watched is a directory, not a path: it may not exist yet, or be replaced by another one of
the same name. So its number in the file system is compared now and then.
"""

import threading
from collections.abc import Awaitable, Callable
from math import inf
from pathlib import Path
from typing import Final, NoReturn

import trio
from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

__all__ = ["NoticesUnavailableError", "watch_directory"]

DEBOUNCE_MS: Final = 200
"""For how long changes are collected at most, from the first one on."""
STEP_MS: Final = 50
"""A pause of this length between two changes ends the collecting; and the thread's own look around,
which costs a thousandth of one processor."""
TIMEOUT_MS: Final = 2000
"""After which a directory that was replaced without a notice is noticed."""
ABSENT_PAUSE: Final = 0.5
"""Seconds between looks whether a directory exists."""

_threads = trio.CapacityLimiter(inf)
"""Not trio's own limit: a watching thread would take one of its places forever."""


class NoticesUnavailableError(Exception):
    """The system cannot watch the directory: its text says why."""


async def watch_directory(directory: Path, changed: Callable[[], Awaitable[object]]) -> NoReturn:
    """Call `changed` soon after each change in `directory`, until cancelled.

    Also called when the directory appears, and when it is replaced. Changes in quick succession
    lead to one call, some tenths of a second later at most. What happens below subdirectories is
    not noticed. Cancelled, it leaves a thread behind for a tenth of a second.

    Raises:
        NoticesUnavailableError: The directory cannot be watched, for example because too many are.
    """
    while True:
        number = _number(directory)
        if number is None:
            await trio.sleep(ABSENT_PAUSE)
            continue
        watcher = await _open(directory)
        if watcher is not None:
            await changed()  # what happened before the watcher was there
            await _follow(watcher, directory, number, changed)


async def _open(directory: Path) -> RustNotify | None:
    """A watcher of the directory; `None` when that does not exist any more."""
    try:
        return await trio.to_thread.run_sync(_new_watcher, directory, abandon_on_cancel=True)
    except FileNotFoundError:
        return None
    except (OSError, WatchfilesRustInternalError) as error:
        raise NoticesUnavailableError(str(error)) from error


def _new_watcher(directory: Path) -> RustNotify:
    return RustNotify(
        [str(directory)],
        debug=False,
        force_polling=False,
        poll_delay_ms=0,
        recursive=False,
        ignore_permission_denied=False,
    )


async def _follow(
    watcher: RustNotify,
    directory: Path,
    number: tuple[int, int],
    changed: Callable[[], Awaitable[object]],
) -> None:
    """Call `changed` after each change, until the directory is gone or another one."""
    while _number(directory) == number:
        if await _wait(watcher):
            await changed()


async def _wait(watcher: RustNotify) -> bool:
    """Wait for changes for a while; whether there were any."""
    stop = threading.Event()

    def wait() -> bool:
        return isinstance(watcher.watch(DEBOUNCE_MS, STEP_MS, TIMEOUT_MS, stop), set)

    try:
        return await trio.to_thread.run_sync(wait, abandon_on_cancel=True, limiter=_threads)
    finally:
        stop.set()


def _number(directory: Path) -> tuple[int, int] | None:
    """What tells this directory from another one of the same name; `None` when there is none."""
    try:
        status = directory.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
