"""Reading whole small files without being held up by what is not one."""

import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["MAXIMUM_SIZE", "UnusableFileError", "read_regular_file"]

MAXIMUM_SIZE: Final = 1024 * 1024
"""The most bytes read from one file: hundreds of times what tbot writes, yet harmless."""


class UnusableFileError(Exception):
    """The file exists but is not a regular file of a reasonable size; the text says which."""


def read_regular_file(path: Path, limit: int = MAXIMUM_SIZE) -> bytes:
    """Read the whole of a regular file; symbolic links are followed.

    Never waits for a writer: a FIFO is opened without blocking and then refused.

    Args:
        path: The file.
        limit: The most bytes that it may have.

    Raises:
        OSError: The file could not be opened or read.
        UnusableFileError: It is not a regular file, or has more than `limit` bytes.
    """
    descriptor = _open_without_blocking(path)
    with open(descriptor, "rb", closefd=True) as file:  # noqa: PTH123 (a descriptor has no path)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnusableFileError("is not a regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UnusableFileError(f"has more than {limit} bytes")
    return data


def _open_without_blocking(path: Path) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        return os.open(path, flags)
    except ValueError as error:  # a NUL in the path: possible when it comes from a file
        raise UnusableFileError("is not a valid path") from error
