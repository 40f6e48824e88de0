"""Reading whole small files without being held up by what is not one."""

import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["MAXIMUM_SIZE", "UnusableFileError", "read_regular_file"]

MAXIMUM_SIZE: Final = 1024 * 1024
"""The most bytes read from one file: hundreds of times what tbot writes, yet harmless."""

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


_NOT_A_FILE: Final = (
    "Give the path of a file. If tbot should have written one there, remove what is in its place"
    " and restart tbot."
)
_TOO_LARGE: Final = (
    "Give the path of a file that tbot writes: none is that large. If this is one, something else"
    " has written to it: find out what, remove the file, and restart tbot."
)
_IMPOSSIBLE: Final = "Correct the path: it has characters that no file's name can have."
_KINDS: Final = (
    (stat.S_ISDIR, "directory"),
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


class UnusableFileError(Exception):
    """The path leads to no regular file of a reasonable size; the text goes on after its name.

    Args:
        message: The text.
        next_step: What the operator can do, where tbot was to write the file.
    """

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(message)
        self.next_step = next_step


def read_regular_file(
    path: Path, limit: int = MAXIMUM_SIZE, *, directory: int | None = None
) -> bytes:
    """Read the whole of a regular file; symbolic links are followed.

    Never waits for a writer: a FIFO is opened without blocking and then refused.

    Args:
        path: The file.
        limit: The most bytes that it may have.
        directory: A descriptor of the directory that a relative `path` starts from, instead of the
            current one.

    Raises:
        OSError: The file could not be opened or read.
        UnusableFileError: It is not a regular file, or has more than `limit` bytes.
    """
    descriptor = _open(path, directory)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _not_regular(status.st_mode)
        if status.st_size > limit:
            raise _too_large(limit)
        return _read_all(descriptor, limit)
    finally:
        os.close(descriptor)


def _open(path: Path, directory: int | None) -> int:
    try:
        return os.open(path, _FLAGS, dir_fd=directory)
    except ValueError as error:  # a NUL or a lone surrogate in the path
        raise UnusableFileError("is not a valid path", _IMPOSSIBLE) from error


def _read_all(descriptor: int, limit: int) -> bytes:
    data = bytearray()
    while chunk := os.read(descriptor, limit + 1 - len(data)):
        data += chunk
        if len(data) > limit:
            raise _too_large(limit)
    return bytes(data)


def _not_regular(mode: int) -> UnusableFileError:
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "special file")
    return UnusableFileError(f"is a {kind}, not a regular file", _NOT_A_FILE)


def _too_large(limit: int) -> UnusableFileError:
    return UnusableFileError(f"has more than {limit} bytes", _TOO_LARGE)
