"""A directory of certificate files, read so that all of them come from one moment of it.

The problem: who opens one file after another may get the certificate from before a renewal and the
authorities from after it. A mounted Kubernetes secret does better than tbot: it is a directory of
links that lead through the link `..data` to the directory of one version, and a new version arrives
by swapping `..data` (pkg/volume/util/atomic_writer.go). But even that helps only who follows
`..data` just once.

The choice: `..data` is resolved once, to a descriptor, and every file is opened relative to that;
should its directory be removed meanwhile, the whole is read once more. And everything is read
twice: if both times are alike, then all files were so at the moment in between. That is cheaper
than to trust in times of files, of which two writes in quick succession may share one. Names in
errors and to clients are those through the links, since only they last.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from dbproxy.errors import Code, IdentityError
from dbproxy.identity.files import UnusableFileError, read_regular_file

__all__ = ["Folder", "read_steadily"]

T = TypeVar("T")

_DATA: Final = "..data"
_LOOK: Final = (
    "Look at it with `ls -l`, and at the system's log for errors of the file system; if something"
    " else is in the file's place, remove it and restart tbot."
)
_ATTEMPTS: Final = 4
"""Reads in a row that may meet a write or a swap: both are over at once, and are rare."""
# A directory may let a user search it without listing it, which O_PATH respects.
_FLAGS: Final = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


class Folder:
    """An open directory.

    Args:
        path: Its name.
        descriptor: Of the directory whose files are read; belongs to the caller.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.directory = path
        self._descriptor = descriptor

    def path(self, name: str) -> Path:
        """The path of a file, for clients and errors."""
        return self.directory / name

    def has(self, name: str) -> bool:
        """Whether there is an entry of this name, of whatever kind and usable or not."""
        try:
            os.lstat(name, dir_fd=self._descriptor)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False
        except OSError:
            return True  # reading it will tell what is wrong
        return True

    def changed(self, name: str) -> float:
        """When a file was written last, in seconds since the epoch; 0 when it cannot be told.

        A copy may keep the time of its original (`cp -p`); when it was made counts then.
        """
        try:
            result = os.stat(name, dir_fd=self._descriptor)
        except (OSError, ValueError):
            return 0
        return max(result.st_mtime, result.st_ctime)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            IdentityError: `IDENTITY_MISSING`, `IDENTITY_UNREADABLE`, or `IDENTITY_MALFORMED` when
                it is no regular file, or too large. The text names the file.
        """
        path = self.path(name)
        try:
            return read_regular_file(Path(name), directory=self._descriptor)
        except (FileNotFoundError, NotADirectoryError) as error:
            what = "is a link that leads nowhere" if self.has(name) else "does not exist"
            raise IdentityError(Code.IDENTITY_MISSING, f"{path} {what}") from error
        except OSError as error:
            raise _unreadable(path, error) from error
        except UnusableFileError as error:
            raise IdentityError(
                Code.IDENTITY_MALFORMED, f"{path} {error}", next_step=error.next_step
            ) from error

    def is_current(self) -> bool:
        """Whether the directory's name still leads to the directory that is open."""
        try:
            descriptor = _open(self.directory)
        except OSError:
            return False
        try:
            return os.path.samestat(os.fstat(descriptor), os.fstat(self._descriptor))
        finally:
            os.close(descriptor)


def read_steadily(directory: Path, read: Callable[[Folder], T], title: str = "the directory") -> T:
    """What `read` returns, once it has returned the same twice in a row.

    Args:
        directory: The directory.
        read: Reads from it; is called several times. Its results must be comparable.
        title: What to call the directory in errors.

    Raises:
        IdentityError: What `read` raises; `IDENTITY_MISSING` or `IDENTITY_UNREADABLE` for the
            directory itself; `IDENTITY_MIXED` when no two results in a row are alike.
    """
    before = _read_once(directory, read, title)
    for _ in range(_ATTEMPTS):
        after = _read_once(directory, read, title)
        if after == before:
            return after
        before = after
    raise IdentityError(
        Code.IDENTITY_MIXED, f"the files in {directory} change faster than they can be read"
    )


def _read_once(directory: Path, read: Callable[[Folder], T], title: str) -> T:
    """Call `read` with the open directory, again when that was replaced and the call failed."""
    for _ in range(_ATTEMPTS):
        with _open_folder(directory, title) as folder:
            try:
                return read(folder)
            except IdentityError:
                if folder.is_current():
                    raise
    with _open_folder(directory, title) as folder:
        return read(folder)


@contextmanager
def _open_folder(directory: Path, title: str) -> Iterator[Folder]:
    descriptor = _open_or_explain(directory, title)
    try:
        yield Folder(directory, descriptor)
    finally:
        os.close(descriptor)


def _open_or_explain(directory: Path, title: str) -> int:
    try:
        return _open(directory)
    except (FileNotFoundError, ValueError) as error:
        raise _missing(f"{title} {directory} does not exist") from error
    except NotADirectoryError as error:
        raise _missing(f"{title} {directory} is not a directory") from error
    except OSError as error:
        raise _unreadable(directory, error) from error


def _open(directory: Path) -> int:
    """A descriptor of the directory, or of the one that its `..data` leads to."""
    descriptor = os.open(directory, _FLAGS)
    try:
        data = os.open(_DATA, _FLAGS, dir_fd=descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return descriptor
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return data


def _missing(message: str) -> IdentityError:
    return IdentityError(Code.IDENTITY_MISSING, message)


def _unreadable(path: Path, error: OSError) -> IdentityError:
    reason = error.strerror or str(error)
    step = None if isinstance(error, PermissionError) else _LOOK
    return IdentityError(
        Code.IDENTITY_UNREADABLE, f"{path} cannot be read: {reason}", next_step=step
    )
