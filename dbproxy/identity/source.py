"""Where an identity comes from: a destination, or files that the operator names one by one."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from pathlib import Path
from typing import Protocol

from dbproxy.identity.destination import read_destination
from dbproxy.identity.identity import Identity
from dbproxy.identity.layout import DEFAULT_NAMES, FileNames, Format, layouts
from dbproxy.identity.stamp import Stamp, stamp_files

__all__ = ["DestinationSource", "Explanation", "IdentitySource", "Role", "UsedFile"]


@unique
class Role(StrEnum):
    """What a file is needed for."""

    CERTIFICATE = "certificate"
    KEY = "private key"
    HOST_CA = "Host CA"
    USER_CA = "User CA"
    DATABASE_CA = "Database CA"


@dataclass(frozen=True, slots=True)
class UsedFile:
    """A file of an identity.

    Attributes:
        role: What it is needed for; one file may have several roles.
        path: Its name, as clients can use it.
        present: Whether it is there, usable or not.
    """

    role: Role
    path: Path
    present: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """Which files an identity is read from, and why these.

    Attributes:
        layout: The name of the layout, such as `default files`.
        reason: One sentence without a full stop.
        files: The files, the certificate first; also those that are needed and absent.
    """

    layout: str
    reason: str
    files: tuple[UsedFile, ...]


class IdentitySource(Protocol):
    """Where an identity comes from."""

    @property
    def directory(self) -> Path:
        """The directory to watch for changes."""

    def read(self) -> Identity:
        """Read the identity, in one attempt; blocks on the file system.

        Returns:
            A complete identity of generation 1, whose key belongs to its certificate. Its validity
            at this time has not been checked.

        Raises:
            IdentityError: The text names the file. `IDENTITY_MISSING`: it does not exist;
                `IDENTITY_UNREADABLE`: the system does not let us read it; `IDENTITY_MALFORMED`: it
                is empty, truncated, damaged or no regular file; `KEY_MISMATCH`: key and certificate
                are from different renewals; `CERTIFICATE_WITHOUT_ROUTE`: the certificate is not for
                a database.
        """

    def stamp(self) -> Stamp:
        """Look at the files without opening them; the result differs once one has changed."""

    def explain(self) -> Explanation:
        """Which files `read` would use now, and why these; never fails."""


class DestinationSource:
    """A directory that tbot writes to.

    Args:
        directory: The destination.
        formats: What the output is configured to write besides the default files.
        names: The names that the configuration gives to files.
    """

    def __init__(
        self,
        directory: Path,
        *,
        formats: Sequence[Format] = (),
        names: FileNames = DEFAULT_NAMES,
    ) -> None:
        self._directory = directory
        self._layouts = layouts(formats, names)
        every = (name for layout in self._layouts for name in layout.names)
        self._paths = tuple(os.fspath(directory / name) for name in dict.fromkeys(every))

    @property
    def directory(self) -> Path:
        """The destination."""
        return self._directory

    def read(self) -> Identity:
        return read_destination(self._directory)

    def stamp(self) -> Stamp:
        return stamp_files(self._paths)

    def explain(self) -> Explanation:
        layout = self._layouts[0]
        named = (
            (Role.CERTIFICATE, layout.certificate),
            (Role.KEY, layout.key),
            (Role.HOST_CA, layout.host_cas[0]),
            (Role.USER_CA, layout.user_ca),
            (Role.DATABASE_CA, layout.database_ca),
        )
        return Explanation(
            layout.title,
            "every database output of tbot has them",
            tuple(self._used(role, name) for role, name in named),
        )

    def _used(self, role: Role, name: str) -> UsedFile:
        path = self._directory / name
        return UsedFile(role, path, os.path.lexists(path))
