"""What `stat` tells about the files of an identity, for noticing that tbot has written."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

__all__ = ["FileStamp", "Stamp", "stamp_files"]

_NANOSECONDS: Final = 1_000_000_000


class FileStamp(NamedTuple):
    """What `stat` tells about one file; times in nanoseconds since the epoch.

    A tuple, because each connection makes and compares a dozen of them.
    """

    modified: int
    changed: int
    size: int
    inode: int

    @property
    def written(self) -> int:
        """When it was written or put there: a copy may keep the time of its original (`cp -p`)."""
        return max(self.modified, self.changed)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What `stat` tells about all files of an identity: equal as long as tbot has not written.

    Attributes:
        files: One per file that there can be; `None` for a file that is absent or out of reach.
    """

    files: tuple[FileStamp | None, ...]

    def age(self, now: float) -> float:
        """Seconds since the newest file was written.

        Args:
            now: In seconds since the epoch.
        """
        newest = max((file.written for file in self.files if file is not None), default=0)
        return now - newest / _NANOSECONDS

    def was_written_last(self, positions: Iterable[int]) -> bool:
        """Whether one of the files at these positions was written later than all others."""
        chosen = frozenset(positions)
        written = {True: 0, False: 0}
        for position, file in enumerate(self.files):
            if file is not None:
                is_chosen = position in chosen
                written[is_chosen] = max(written[is_chosen], file.written)
        return written[True] > written[False]


def stamp_files(paths: Iterable[str]) -> Stamp:
    """Look at files without opening them; symbolic links are followed.

    The change time is part of it, so that repaired permissions are noticed as well; the inode, so
    that swapped symbolic links are, as in a mounted Kubernetes secret. A file system keeps times
    only to some granularity: two writes in quick succession may leave equal stamps.
    """
    return Stamp(tuple(map(_stamp_file, paths)))


def _stamp_file(path: str) -> FileStamp | None:
    try:
        result = os.stat(path)  # noqa: PTH116 (one call of many per connection)
    except (OSError, ValueError):
        return None
    return FileStamp(result.st_mtime_ns, result.st_ctime_ns, result.st_size, result.st_ino)
