"""Reading a destination: the directory that tbot writes to.

The problem: tbot rewrites one file after another, in place, and makes a new key at each renewal, so
one read can meet a mixture of old and new, or half a file (lib/tbot/botfs/botfs.go,
lib/tbot/config). Key and certificate tell when they do not belong together, lists of authorities
do not. And the files are not always the same ones.

The choice: the best layout whose certificate and key are there is taken, as strictly as possible:
what is damaged is an error, never a reason to take other files. Besides the key, two things must
agree with the certificate: the User CA, which signed it, and the identity file beside it, which
holds the same certificate and the Host CA's. While the files are new, a contradiction means that
tbot is writing them; once they have been left alone for a while, it means that some of them are
left over from another configuration, and it is let pass. This module makes one attempt; trying
again is the store's business.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from dbproxy.errors import Code, IdentityError
from dbproxy.identity.assemble import assemble, is_issued_by_one_of
from dbproxy.identity.folder import Folder, read_steadily
from dbproxy.identity.identity import Identity, IdentityFiles
from dbproxy.identity.identity_file import IdentityFile, parse_identity_file
from dbproxy.identity.layout import (
    AUTHORITY_LIST,
    DEFAULT_NAMES,
    FileNames,
    Format,
    Layout,
    choose_layout,
    layouts,
)
from dbproxy.identity.pem import load_certificates, load_private_key

__all__ = ["read_destination"]

SETTLED_AFTER: Final = 5.0
"""Seconds after the last write when a contradiction between files is no longer put down to a write
under way: hundreds of times what tbot takes from its first file to its last."""
LEFT_OVER_AFTER: Final = 0.5
"""The same for a file that is older than the certificate by more than `SETTLED_AFTER`. It is left
over, unless tbot is about to rewrite it: up to version 14 it wrote authorities and the identity
file after the certificate (lib/tbot/config). Shorter than the patience of those who read."""
_TITLE: Final = "the destination"


@dataclass(frozen=True, slots=True)
class _Contents:
    """What was found in a destination.

    Attributes:
        directory: The destination.
        layout: The layout of the files.
        host_ca: The name of the file with the Host CA's certificates.
        files: The contents by name, without optional files that are absent.
        identity_file: The identity file's name.
        changed: When each of them was written or put there, in seconds since the epoch.
    """

    directory: Path
    layout: Layout
    host_ca: str
    files: Mapping[str, bytes]
    identity_file: str
    changed: Mapping[str, float]

    def path(self, name: str) -> Path:
        return self.directory / name

    def certificates(self, name: str) -> tuple[x509.Certificate, ...]:
        """The certificates of a file; none when it is absent."""
        if name not in self.files:
            return ()
        return load_certificates(self.files[name], self.path(name))


@dataclass(frozen=True, slots=True)
class _Contradiction:
    """What does not fit together although key and certificate do.

    Attributes:
        name: The file that does not agree.
        text: What is wrong.
    """

    name: str
    text: str

    def is_passed_over(self, contents: _Contents, now: float) -> bool:
        """Whether the file is left over, and not about to be rewritten."""
        quiet = abs(now - max(contents.changed.values()))
        older = contents.changed[contents.layout.certificate] - contents.changed[self.name]
        return quiet >= (LEFT_OVER_AFTER if older > SETTLED_AFTER else SETTLED_AFTER)


def read_destination(
    directory: Path,
    *,
    formats: Sequence[Format] = (),
    names: FileNames = DEFAULT_NAMES,
    clock: Callable[[], float] = time.time,
) -> Identity:
    """Read the identity in `directory`, in one attempt; blocks on the file system.

    Args:
        directory: The destination.
        formats: What the output is configured to write besides the default files.
        names: The names that the configuration gives to files.
        clock: The system's time, in seconds since the epoch, which the file system keeps as well.

    Returns:
        A complete identity of generation 1, whose key belongs to its certificate. Its validity at
        this time has not been checked.

    Raises:
        IdentityError: The text names the file. `IDENTITY_MISSING`: it does not exist;
            `IDENTITY_UNREADABLE`: the system does not let us read it; `IDENTITY_MALFORMED`: it is
            empty, truncated, damaged or no regular file; `KEY_MISMATCH`: key and certificate are
            from different renewals; `IDENTITY_MIXED`: other files are; `CERTIFICATE_WITHOUT_ROUTE`:
            the certificate is not for a database.
    """
    candidates = layouts(formats, names)
    contents = read_steadily(directory, lambda folder: _collect(folder, candidates), _TITLE)
    identity = _assemble(contents)
    contradiction = _contradiction(identity, contents)
    if contradiction is not None and not contradiction.is_passed_over(contents, clock()):
        raise IdentityError(Code.IDENTITY_MIXED, contradiction.text)
    return identity


def _collect(folder: Folder, candidates: Sequence[Layout]) -> _Contents:
    choice = choose_layout(candidates, folder.has)
    if not choice.found:
        raise _nothing_found(folder, candidates)
    layout = choice.layout
    host_ca = layout.host_ca(folder.has)
    needed = dict.fromkeys((layout.certificate, layout.key, host_ca))
    optional = filter(folder.has, (layout.user_ca, layout.database_ca))
    files = {name: folder.read(name) for name in (*needed, *optional)}
    identity_file = next(candidate.certificate for candidate in candidates if candidate.combined)
    if identity_file not in files and folder.has(identity_file):
        files |= _read_for_comparison(folder, identity_file)
    return _Contents(
        directory=folder.directory,
        layout=layout,
        host_ca=host_ca,
        files=files,
        identity_file=identity_file,
        changed={name: folder.changed(name) for name in files},
    )


def _read_for_comparison(folder: Folder, name: str) -> Mapping[str, bytes]:
    """The content of a file that is not needed; nothing when it cannot be read."""
    try:
        return {name: folder.read(name)}
    except IdentityError as error:
        return {name: b""} if error.code is Code.IDENTITY_MALFORMED else {}


def _nothing_found(folder: Folder, candidates: Sequence[Layout]) -> IdentityError:
    certificates = ", ".join(layout.certificate for layout in candidates)
    return IdentityError(
        Code.IDENTITY_MISSING,
        f"{_TITLE} {folder.directory} holds none of the files that tbot writes: it has"
        f" none of {certificates}",
    )


def _assemble(contents: _Contents) -> Identity:
    parts = _leading_parts(contents)
    host_cas, user_cas = parts.host_cas, contents.certificates(contents.layout.user_ca)
    if contents.host_ca == AUTHORITY_LIST:
        host_cas, listed = _tell_apart(host_cas, parts.certificate)
        user_cas = user_cas or listed
    return assemble(
        certificate=parts.certificate,
        private_key=parts.private_key,
        host_cas=host_cas,
        user_cas=user_cas,
        database_cas=contents.certificates(contents.layout.database_ca),
        files=_files(contents),
    )


def _leading_parts(contents: _Contents) -> IdentityFile:
    """Certificate, key and the Host CA's certificates, from whichever files they are in."""
    layout = contents.layout
    if layout.combined:
        return _parse_identity_file(contents, layout.certificate)
    key = contents.path(layout.key)
    return IdentityFile(
        certificate=contents.certificates(layout.certificate)[0],
        private_key=load_private_key(contents.files[layout.key], key),
        host_cas=contents.certificates(contents.host_ca),
    )


def _parse_identity_file(contents: _Contents, name: str) -> IdentityFile:
    return parse_identity_file(contents.files[name], contents.path(name))


def _tell_apart(
    authorities: tuple[x509.Certificate, ...], certificate: x509.Certificate
) -> tuple[tuple[x509.Certificate, ...], tuple[x509.Certificate, ...]]:
    """The Host CA's and the User CA's certificates, of a list that does not say which are which.

    The User CA is the one that signed the client certificate. It must not vouch for the upstream:
    whoever holds a user certificate could pose as it.
    """
    user_cas = tuple(
        authority for authority in authorities if is_issued_by_one_of(certificate, [authority])
    )
    return tuple(ca for ca in authorities if ca not in user_cas), user_cas


def _files(contents: _Contents) -> IdentityFiles:
    layout = contents.layout
    user_ca, database_ca = (
        contents.path(name) if name in contents.files else None
        for name in (layout.user_ca, layout.database_ca)
    )
    return IdentityFiles(
        directory=contents.directory,
        certificate=contents.path(layout.certificate),
        key=contents.path(layout.key),
        host_ca=contents.path(contents.host_ca),
        user_ca=user_ca,
        database_ca=database_ca,
    )


def _contradiction(identity: Identity, contents: _Contents) -> _Contradiction | None:
    """The first file that does not agree with the certificate; `None` when all do."""
    files, layout, name = identity.files, contents.layout, contents.identity_file
    if identity.user_cas and not is_issued_by_one_of(identity.certificate, identity.user_cas):
        text = f"no certificate in {files.user_ca} belongs to the issuer of {files.certificate}"
        return _Contradiction(layout.user_ca, text)
    if layout.combined or name not in contents.files:
        return None
    try:
        whole = _parse_identity_file(contents, name)
    except IdentityError as error:
        return _Contradiction(name, error.message)
    path = contents.path(name)
    if whole.certificate != identity.certificate:
        return _Contradiction(name, f"{path} holds another certificate than {files.certificate}")
    if set(whole.host_cas) != set(identity.host_cas):
        text = f"{path} holds other certificates of the Host CA than {files.host_ca}"
        return _Contradiction(contents.host_ca, text)
    return None
