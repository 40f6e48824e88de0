"""Writes a destination the way tbot does: in place, one file after another.

Problem: readers of a destination meet half-renewed sets of files, because tbot neither renames nor
locks. A stand-in that wrote atomically would hide every mistake of such a reader.
Choice: open with O_CREAT, O_WRONLY and O_TRUNC, one write, close, as lib/tbot/botfs/botfs.go does,
with an optional pause and an optional callback between files to make torn states last.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

import trio

from dbproxy.lab.destination_files import DestinationFile

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700

BeforeWrite: TypeAlias = Callable[[Path], None]


def write_file(path: Path, content: bytes) -> None:
    """Write one file in place, mode 0600, making its directory with mode 0700 when missing.

    Raises:
        OSError: The directory or the file cannot be written.
    """
    path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


async def write_destination(
    directory: Path,
    files: Iterable[DestinationFile],
    *,
    gap: float = 0.0,
    before_write: BeforeWrite | None = None,
) -> None:
    """Write all files of a destination in the given order.

    Each file is either written whole or not touched when the task is cancelled: the only
    checkpoints lie between files. A cancelled call leaves the directory half renewed, as a killed
    tbot would.

    Args:
        directory: The destination; made with mode 0700 when missing.
        files: What to write.
        gap: Seconds to sleep before each file but the first.
        before_write: Called with the full path before each file is opened.

    Raises:
        OSError: A file cannot be written.
    """
    for index, file in enumerate(files):
        await trio.sleep(gap if index else 0.0)
        path = directory / file.name
        if before_write is not None:
            before_write(path)
        write_file(path, file.content)
