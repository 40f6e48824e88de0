"""What the file system says about a file: who owns it, who may read it, how old it is.

Nothing here looks into a file.
"""

import grp
import os
import pwd
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dbproxy.doctor.acl import ACL_ATTRIBUTE, AccessList, Permission, Tag, parse_acl

__all__ = ["FileFacts", "Reader", "inspect_file", "user_name"]

_PROBE: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody whom an access control list names.

    Attributes:
        kind: `user` or `group`.
        name: The name, or the number where it has no name.
        permissions: What is really granted, as in `r--`.
    """

    kind: str
    name: str
    permissions: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What the file system says about one file.

    Attributes:
        path: The file, as it was named.
        target: Where symbolic links lead to; `None` when it is no link.
        mode: The permission bits. With an access control list the group's bits are its mask.
        owner: The owner's name.
        group: The name of its group.
        size: In bytes.
        modified: When it was written last, in UTC.
        readers: Whom an access control list names; `None` when there is no list.
        readable: Whether this process may read it.
        exposed: Whether everybody on this host may read it: others have the right, and every
            directory on the way lets them through.
    """

    path: Path
    target: Path | None
    mode: int
    owner: str
    group: str
    size: int
    modified: datetime
    readers: tuple[Reader, ...] | None
    readable: bool
    exposed: bool


def inspect_file(path: Path) -> FileFacts | None:
    """Look at `path` without reading it; `None` when it is absent or out of reach.

    A path that leads to no regular file is looked at as well.
    """
    try:
        return _inspect(path)
    except (OSError, ValueError, RuntimeError):  # RuntimeError: a loop of links, in Python 3.11
        return None


def _inspect(path: Path) -> FileFacts:
    status = path.stat()
    target = path.resolve()
    return FileFacts(
        path=path,
        target=target if path.is_symlink() else None,
        mode=stat.S_IMODE(status.st_mode),
        owner=user_name(status.st_uid),
        group=_group_name(status.st_gid),
        size=status.st_size,
        modified=datetime.fromtimestamp(status.st_mtime, UTC),
        readers=_readers(path),
        readable=_is_readable(path),
        exposed=bool(status.st_mode & stat.S_IROTH) and _is_open_to_others(target),
    )


def user_name(uid: int) -> str:
    """The name of a user, or the number where there is no name, as in a container."""
    return _name(lambda: pwd.getpwuid(uid).pw_name, uid)


def _group_name(gid: int) -> str:
    return _name(lambda: grp.getgrgid(gid).gr_name, gid)


def _name(look_up: Callable[[], str], number: int) -> str:
    try:
        return look_up()
    except KeyError:
        return str(number)


def _readers(path: Path) -> tuple[Reader, ...] | None:
    """Whom the access control list names; one that cannot be understood counts as none."""
    try:
        access_list = parse_acl(os.getxattr(path, ACL_ATTRIBUTE))
    except (OSError, ValueError):
        return None
    return _named_readers(access_list)


def _named_readers(access_list: AccessList) -> tuple[Reader, ...]:
    readers = []
    for entry in access_list.named:
        assert entry.id is not None  # noqa: S101 - named entries have one
        is_user = entry.tag is Tag.USER
        name = user_name(entry.id) if is_user else _group_name(entry.id)
        readers.append(Reader("user" if is_user else "group", name, _letters(entry.permissions)))
    return tuple(readers)


def _letters(permissions: Permission) -> str:
    letters = {Permission.READ: "r", Permission.WRITE: "w", Permission.EXECUTE: "x"}
    return "".join(letter if bit in permissions else "-" for bit, letter in letters.items())


def _is_readable(path: Path) -> bool:
    """Whether it opens: the only answer that counts capabilities and security modules in."""
    try:
        os.close(os.open(path, _PROBE))
    except OSError:
        return False
    return True


def _is_open_to_others(target: Path) -> bool:
    """Whether others may pass every directory above."""
    return all(directory.stat().st_mode & stat.S_IXOTH for directory in target.parents)
