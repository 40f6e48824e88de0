"""Where an identity comes from: a destination, or files that the operator names one by one."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from pathlib import Path
from typing import Protocol

from dbproxy.identity.destination import read_destination
from dbproxy.identity.identity import Identity
from dbproxy.identity.layout import DEFAULT_NAMES, FileNames, Format, choose_layout, layouts
from dbproxy.identity.named_files import read_identity_file, read_named_files
from dbproxy.identity.stamp import Stamp, stamp_files

__all__ = [
    "DestinationSource",
    "Explanation",
    "IdentityFileSource",
    "IdentitySource",
    "NamedFilesSource",
    "Role",
    "UsedFile",
]


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
                are from different renewals; `IDENTITY_MIXED`: other files are;
                `CERTIFICATE_WITHOUT_ROUTE`: the certificate is not for a database.
        """

    def stamp(self) -> Stamp:
        """Look at the files without opening them; the result differs once one has changed."""

    def ends_with_a_list(self, stamp: Stamp) -> bool:
        """Whether the file that was written last ends with a list of authorities.

        Only such a file can be cut without anybody noticing. Files that others confirm, or that
        `read` would not use, do not count; `False` also when others may be the last.
        """

    def explain(self) -> Explanation:
        """Which files `read` would use now, and why these; never fails."""


class DestinationSource:
    """A directory that tbot writes to; which of its files to use is decided at each read.

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
        self._formats = tuple(formats)
        self._names = names
        self._layouts = layouts(formats, names)
        every = (name for layout in self._layouts for name in layout.names)
        self._file_names = tuple(dict.fromkeys(every))
        self._paths = _texts(directory / name for name in self._file_names)

    @property
    def directory(self) -> Path:
        """The destination."""
        return self._directory

    def read(self) -> Identity:
        return read_destination(self._directory, formats=self._formats, names=self._names)

    def stamp(self) -> Stamp:
        return stamp_files(self._paths)

    def ends_with_a_list(self, stamp: Stamp) -> bool:
        files = zip(self._file_names, stamp.files, strict=True)
        present = {name for name, file in files if file is not None}
        layout = choose_layout(self._layouts, present.__contains__).layout
        lists = layout.lists(present.__contains__)
        return stamp.was_written_last(map(self._file_names.index, lists))

    def explain(self) -> Explanation:
        choice = choose_layout(self._layouts, self._has)
        layout = choice.layout
        files = [
            self._used(Role.CERTIFICATE, layout.certificate),
            self._used(Role.KEY, layout.key),
            self._used(Role.HOST_CA, layout.host_ca(self._has)),
            *(self._used(Role.USER_CA, name) for name in (layout.user_ca,) if self._has(name)),
            *(
                self._used(Role.DATABASE_CA, name)
                for name in (layout.database_ca,)
                if self._has(name)
            ),
        ]
        return Explanation(layout.title, choice.reason, tuple(files))

    def _has(self, name: str) -> bool:
        return _exists(self._directory / name)

    def _used(self, role: Role, name: str) -> UsedFile:
        return UsedFile(role, self._directory / name, self._has(name))


class IdentityFileSource:
    """A combined identity file that the operator named.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def directory(self) -> Path:
        """The directory that the file is in."""
        return self._path.parent

    def read(self) -> Identity:
        return read_identity_file(self._path)

    def stamp(self) -> Stamp:
        return stamp_files(_texts([self._path]))

    def ends_with_a_list(self, stamp: Stamp) -> bool:
        return True

    def explain(self) -> Explanation:
        roles = (Role.CERTIFICATE, Role.KEY, Role.HOST_CA)
        return _named("identity file", dict.fromkeys(roles, self._path))


class NamedFilesSource:
    """Files that the operator named one by one.

    Args:
        certificate: The client certificate.
        key: Its private key; may be the same file.
        authorities: The Host CA's certificates.
    """

    def __init__(self, certificate: Path, key: Path, authorities: Path) -> None:
        self._files = {
            Role.CERTIFICATE: certificate,
            Role.KEY: key,
            Role.HOST_CA: authorities,
        }
        self._paths = _texts(self._files.values())

    @property
    def directory(self) -> Path:
        """The directory that the certificate is in."""
        return self._files[Role.CERTIFICATE].parent

    def read(self) -> Identity:
        return read_named_files(
            self._files[Role.CERTIFICATE], self._files[Role.KEY], self._files[Role.HOST_CA]
        )

    def stamp(self) -> Stamp:
        return stamp_files(self._paths)

    def ends_with_a_list(self, stamp: Stamp) -> bool:
        return stamp.was_written_last([self._paths.index(os.fspath(self._files[Role.HOST_CA]))])

    def explain(self) -> Explanation:
        return _named("named files", self._files)


def _named(layout: str, files: Mapping[Role, Path]) -> Explanation:
    used = tuple(UsedFile(role, path, _exists(path)) for role, path in files.items())
    return Explanation(layout, "named by the operator", used)


def _texts(paths: Iterable[Path]) -> tuple[str, ...]:
    """The paths, each once, as the system takes them."""
    return tuple(dict.fromkeys(map(os.fspath, paths)))


def _exists(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:
        return False
