"""Which files a destination can hold: every layout of tbot from Teleport 9 on, as a table.

Every database output has the default files, whatever else it was told to write
(lib/tbot/identity/artifact.go, lib/tbot/config/template_tls_cas.go). The combined identity file
stands beside them (api/identityfile/identityfile.go), and further ones for clients that want other
names: the templates of version 1 and the formats of version 2 (lib/client/identityfile). A
directory that somebody copied, or a mounted secret, may hold any part of these.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final

__all__ = [
    "AUTHORITY_LIST",
    "DEFAULT_NAMES",
    "Choice",
    "FileNames",
    "Format",
    "Layout",
    "choose_layout",
    "layouts",
]

AUTHORITY_LIST: Final = "tlscacerts"
"""All authorities of the cluster in one file, in the destinations of Teleport 9.0."""


@unique
class Format(StrEnum):
    """What a database output writes for clients that want files of their own."""

    TLS = "tls"
    MONGO = "mongo"
    COCKROACH = "cockroach"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileNames:
    """The names that tbot's configuration can change (version 1: the options of templates).

    Attributes:
        identity: The combined identity file: `identity.file_name`.
        tls_prefix: Of `tls.crt`, `tls.key` and `tls.cas`: `tls.prefix`.
        mongo_prefix: Of `mongo.crt` and `mongo.cas`: `mongo.prefix`.
        cockroach_directory: Of `node.crt`, `node.key` and `ca.crt`: `cockroach.dir_name`.
        host_ca: The Host CA's certificates: `tls_cas.host_ca_path`.
        user_ca: The User CA's certificates: `tls_cas.user_ca_path`.
        database_ca: The Database CA's certificates: `tls_cas.database_ca_path`.
    """

    identity: str = "identity"
    tls_prefix: str = "tls"
    mongo_prefix: str = "mongo"
    cockroach_directory: str = "cockroach"
    host_ca: str = "teleport-host-ca.crt"
    user_ca: str = "teleport-user-ca.crt"
    database_ca: str = "teleport-database-ca.crt"


DEFAULT_NAMES: Final = FileNames()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One set of files, by their names relative to the destination.

    Attributes:
        title: What people call it.
        certificate: The client certificate.
        key: Its private key; may be the same file.
        host_cas: Where the Host CA's certificates can be, the best first. One of them is needed.
        user_ca: The User CA's certificates, where there are any.
        database_ca: The Database CA's certificates, where there are any.
        combined: Whether the certificate's file is a combined identity file.
    """

    title: str
    certificate: str
    key: str
    host_cas: tuple[str, ...]
    user_ca: str
    database_ca: str
    combined: bool = False

    @property
    def leading(self) -> tuple[str, ...]:
        """The files without which this layout is not there: the certificate and its key."""
        return tuple(dict.fromkeys((self.certificate, self.key)))

    def host_ca(self, has: Callable[[str], bool]) -> str:
        """The file with the Host CA's certificates; the best when none is there."""
        return next(filter(has, self.host_cas), self.host_cas[0])

    def lists(self, has: Callable[[str], bool]) -> tuple[str, ...]:
        """The files of this layout that end with a list of authorities."""
        return (self.host_ca(has), self.user_ca, self.database_ca)

    @property
    def names(self) -> tuple[str, ...]:
        """Every file, each once, the certificate first."""
        every = (self.certificate, self.key, *self.host_cas, self.user_ca, self.database_ca)
        return tuple(dict.fromkeys(every))


@dataclass(frozen=True, slots=True)
class Choice:
    """A layout chosen, and why.

    Attributes:
        layout: The layout.
        reason: Why this one: a clause without a full stop.
        found: Whether any of its leading files is there.
    """

    layout: Layout
    reason: str
    found: bool = True


def choose_layout(candidates: Sequence[Layout], has: Callable[[str], bool]) -> Choice:
    """The first layout whose certificate and key are there, else the first with one of them.

    Args:
        candidates: The layouts, the one to prefer first.
        has: Whether a file of this name is there.
    """
    lacking: list[str] = []
    for layout in candidates:
        missing = [name for name in layout.leading if not has(name)]
        if not missing:
            return Choice(layout, _why(layout, lacking))
        lacking.append(missing[0])
    for layout in candidates:
        present = [name for name in layout.leading if has(name)]
        if present:
            missing = [name for name in layout.leading if name not in present]
            return Choice(layout, f"there is {_listed(present)}, but no {_listed(missing)}")
    return Choice(candidates[0], "none of the files that tbot writes is there", found=False)


def _why(layout: Layout, lacking: Sequence[str]) -> str:
    if not lacking:
        return f"{_listed(layout.leading)} are there, which tbot writes for every database output"
    return f"there is no {' and no '.join(lacking)}, but {_listed(layout.leading)}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)


def layouts(formats: Sequence[Format] = (), names: FileNames = DEFAULT_NAMES) -> tuple[Layout, ...]:
    """Every layout that a destination may have, the one to prefer first.

    The default files come first, because tbot writes them for every output and a reader can rely on
    them; then the identity file, which is whole in itself; then the formats, those that the output
    is configured for first.
    """
    return tuple(_layouts(formats, names))


def _layouts(formats: Sequence[Format], names: FileNames) -> Iterator[Layout]:
    yield _default_files(names)
    yield _identity_file(names)
    for form in dict.fromkeys((*formats, *Format)):
        yield _FORMATS[form](names)


def _default_files(names: FileNames) -> Layout:
    return Layout(
        title="default files",
        certificate="tlscert",
        key="key",
        host_cas=(names.host_ca, AUTHORITY_LIST),
        user_ca=names.user_ca,
        database_ca=names.database_ca,
    )


def _identity_file(names: FileNames) -> Layout:
    return Layout(
        title="identity file",
        certificate=names.identity,
        key=names.identity,
        host_cas=(names.identity,),
        user_ca=names.user_ca,
        database_ca=names.database_ca,
        combined=True,
    )


def _tls(names: FileNames) -> Layout:
    return Layout(
        title="tls format",
        certificate=f"{names.tls_prefix}.crt",
        key=f"{names.tls_prefix}.key",
        host_cas=(f"{names.tls_prefix}.cas",),
        user_ca=names.user_ca,
        database_ca=names.database_ca,
    )


def _mongo(names: FileNames) -> Layout:
    """Certificate and key in one file; its list of authorities is the Database CA's."""
    return Layout(
        title="mongo format",
        certificate=f"{names.mongo_prefix}.crt",
        key=f"{names.mongo_prefix}.crt",
        host_cas=(names.host_ca,),
        user_ca=names.user_ca,
        database_ca=f"{names.mongo_prefix}.cas",
    )


def _cockroach(names: FileNames) -> Layout:
    """Its list of authorities is the Database CA's, except in Teleport 9, which had none yet."""
    directory = names.cockroach_directory
    return Layout(
        title="cockroach format",
        certificate=f"{directory}/node.crt",
        key=f"{directory}/node.key",
        host_cas=(names.host_ca,),
        user_ca=names.user_ca,
        database_ca=f"{directory}/ca.crt",
    )


_FORMATS = {Format.TLS: _tls, Format.MONGO: _mongo, Format.COCKROACH: _cockroach}
