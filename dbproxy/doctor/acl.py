"""POSIX access control lists as Linux keeps them, from bytes.

tbot grants readers access by ACL (lib/tbot/botfs/fs_linux.go). The kernel hands a file's list out
as the extended attribute `system.posix_acl_access`: a version, then entries of tag, permissions and
identifier, all little-endian (`include/uapi/linux/posix_acl_xattr.h`). What an entry really grants
is limited by the mask, except for the owner and for others (acl(5), "access check algorithm").
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag, unique
from typing import Final

__all__ = ["ACL_ATTRIBUTE", "AccessList", "Entry", "Permission", "Tag", "parse_acl"]

ACL_ATTRIBUTE: Final = "system.posix_acl_access"
"""The extended attribute that holds the list; files without a list do not have it."""

_VERSION: Final = 2
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")


@unique
class Tag(IntEnum):
    """Whom an entry is about (`include/uapi/linux/posix_acl.h`)."""

    OWNER = 0x01
    USER = 0x02
    GROUP_OF_FILE = 0x04
    GROUP = 0x08
    MASK = 0x10
    OTHERS = 0x20


class Permission(IntFlag):
    """What an entry grants."""

    EXECUTE = 1
    WRITE = 2
    READ = 4


_EVERYTHING: Final = Permission.READ | Permission.WRITE | Permission.EXECUTE
_NAMED: Final = frozenset({Tag.USER, Tag.GROUP})
_NEEDED: Final = frozenset({Tag.OWNER, Tag.GROUP_OF_FILE, Tag.OTHERS})
_UNMASKED: Final = frozenset({Tag.OWNER, Tag.OTHERS})


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a list.

    Attributes:
        tag: Whom it is about.
        permissions: What it grants, before the mask.
        id: The user or group, where `tag` is `USER` or `GROUP`; else `None`.
    """

    tag: Tag
    permissions: Permission
    id: int | None = None


@dataclass(frozen=True, slots=True)
class AccessList:
    """The access control list of one file.

    Attributes:
        entries: In the order of the file system.
    """

    entries: tuple[Entry, ...]

    @property
    def mask(self) -> Permission:
        """What no entry but the owner's and that of others can exceed; everything without one."""
        masks = [entry.permissions for entry in self.entries if entry.tag is Tag.MASK]
        return masks[0] if masks else _EVERYTHING

    @property
    def named(self) -> tuple[Entry, ...]:
        """The users and groups that are named, with what they are really granted."""
        return tuple(
            Entry(entry.tag, self.effective(entry), entry.id)
            for entry in self.entries
            if entry.tag in _NAMED
        )

    def effective(self, entry: Entry) -> Permission:
        """What `entry` really grants."""
        return entry.permissions if entry.tag in _UNMASKED else entry.permissions & self.mask


def parse_acl(data: bytes) -> AccessList:
    """Read the value of the attribute `ACL_ATTRIBUTE`.

    Raises:
        ValueError: It is not a complete and consistent access control list.
    """
    if len(data) < _HEADER.size or (len(data) - _HEADER.size) % _ENTRY.size:
        raise ValueError("the access control list is cut off")
    (version,) = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise ValueError(f"the access control list has the unknown version {version}")
    entries = tuple(_entry(*fields) for fields in _ENTRY.iter_unpack(data[_HEADER.size :]))
    _check(entries)
    return AccessList(entries)


def _entry(tag: int, permissions: int, identifier: int) -> Entry:
    known = Tag(tag)  # a ValueError of its own
    if permissions > _EVERYTHING:
        raise ValueError(f"the access control list has the unknown permissions {permissions:#o}")
    return Entry(known, Permission(permissions), identifier if known in _NAMED else None)


def _check(entries: tuple[Entry, ...]) -> None:
    """Each entry once; owner, group and others always; a mask where somebody is named."""
    whom = [(entry.tag, entry.id) for entry in entries]
    tags = {entry.tag for entry in entries}
    if len(set(whom)) < len(whom):
        raise ValueError("the access control list has an entry twice")
    if not tags >= _NEEDED or (tags & _NAMED and Tag.MASK not in tags):
        raise ValueError("the access control list lacks an entry")
