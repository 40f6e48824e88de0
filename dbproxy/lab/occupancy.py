"""Directories that one lab has to itself.

Two labs that write certificates into one directory, or authorities into one state directory,
produce pairs that do not match, and whoever reads them looks for the mistake in the wrong place.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dbproxy.lab.errors import LabError

__all__ = ["occupy"]


@contextmanager
def occupy(directories: Iterable[Path]) -> Iterator[None]:
    """Keeps other labs out of these directories for the length of the block; makes missing ones.

    The lock is on the directory itself, so that nothing has to be left in it, and the system gives
    it back however the process ends.

    Args:
        directories: each may come more than once.

    Raises:
        LabError: another lab is using one of them.
        OSError: one of them cannot be made or opened.
    """
    with ExitStack() as stack:
        for directory in dict.fromkeys(map(_made, directories)):
            stack.enter_context(_lock(directory))
        yield


def _made(directory: Path) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory.resolve()


@contextmanager
def _lock(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError(f"{directory} is in use by another dbproxy lab") from error
        yield
    finally:
        os.close(descriptor)
