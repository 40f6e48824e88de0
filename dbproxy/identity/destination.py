"""Reading a destination: the directory that tbot writes to.

tbot rewrites one file after another, in place, and makes a new key at each renewal, so one read
can meet a mixture of old and new, or half a file (lib/tbot/botfs/botfs.go, lib/tbot/config). This
module makes one attempt, as complete and strict as possible; trying again is the store's business.
"""

from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import Final

from cryptography import x509

from dbproxy.errors import Code, IdentityError
from dbproxy.identity.certificate import parse_subject
from dbproxy.identity.files import UnusableFileError, read_regular_file
from dbproxy.identity.identity import Identity, IdentityFiles
from dbproxy.identity.pem import PrivateKey, is_key_of, load_certificates, load_private_key

__all__ = ["read_destination"]


@dataclass(frozen=True, slots=True)
class _Layout:
    """The names of the files in a destination."""

    certificate: str
    key: str
    host_ca: str
    user_ca: str
    database_ca: str


_DEFAULT_LAYOUT: Final = _Layout(
    certificate="tlscert",
    key="key",
    host_ca="teleport-host-ca.crt",
    user_ca="teleport-user-ca.crt",
    database_ca="teleport-database-ca.crt",
)
"""What every database output holds, whatever its format (lib/tbot/identity/artifact.go,
lib/tbot/config/template_tls_cas.go)."""


def read_destination(directory: Path) -> Identity:
    """Read the identity in `directory`, in one attempt; blocks on the file system.

    Returns:
        A complete identity of generation 1, whose key belongs to its certificate. Its validity at
        this time has not been checked.

    Raises:
        IdentityError: The text names the file. `IDENTITY_MISSING`: it does not exist;
            `IDENTITY_UNREADABLE`: the system does not let us read it; `IDENTITY_MALFORMED`: it is
            empty, truncated, damaged or no regular file; `KEY_MISMATCH`: key and certificate are
            from different renewals; `CERTIFICATE_WITHOUT_ROUTE`: the certificate is not for a
            database.
    """
    _check_directory(directory)
    layout = _DEFAULT_LAYOUT
    certificate = _read_certificates(directory / layout.certificate)[0]
    private_key = load_private_key(_read(directory / layout.key), directory / layout.key)
    host_cas = _read_certificates(directory / layout.host_ca)
    user_cas = _read_optional_certificates(directory / layout.user_ca)
    database_cas = _read_optional_certificates(directory / layout.database_ca)
    files = IdentityFiles(
        directory=directory,
        certificate=directory / layout.certificate,
        key=directory / layout.key,
        host_ca=directory / layout.host_ca,
        user_ca=directory / layout.user_ca if user_cas else None,
        database_ca=directory / layout.database_ca if database_cas else None,
    )
    return _assemble(certificate, private_key, host_cas, user_cas, database_cas, files)


def _assemble(
    certificate: x509.Certificate,
    private_key: PrivateKey,
    host_cas: tuple[x509.Certificate, ...],
    user_cas: tuple[x509.Certificate, ...],
    database_cas: tuple[x509.Certificate, ...],
    files: IdentityFiles,
) -> Identity:
    """Put the parts together, if they belong together."""
    _check_match(certificate, private_key, files)
    subject = parse_subject(certificate, files.certificate)
    if subject.route is None:
        raise IdentityError(
            Code.CERTIFICATE_WITHOUT_ROUTE,
            f"the certificate in {files.certificate} (user {subject.user!r}) names no database"
            " service",
        )
    return Identity(
        certificate=certificate,
        private_key=private_key,
        host_cas=host_cas,
        user_cas=user_cas,
        database_cas=database_cas,
        subject=subject,
        route=subject.route,
        files=files,
    )


def _check_match(
    certificate: x509.Certificate, private_key: PrivateKey, files: IdentityFiles
) -> None:
    if not is_key_of(private_key, certificate, files.certificate):
        raise IdentityError(
            Code.KEY_MISMATCH,
            f"the private key in {files.key} does not belong to the certificate in"
            f" {files.certificate}",
        )


def _check_directory(directory: Path) -> None:
    """Tell a wrong directory from one with a file missing, which tbot may be about to write."""
    try:
        mode = directory.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise _missing(f"the destination {directory} does not exist") from error
    except OSError as error:
        raise _unreadable(directory, error) from error
    if not S_ISDIR(mode):
        raise _missing(f"the destination {directory} is not a directory")


def _read_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    return load_certificates(_read(path), path)


def _read_optional_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """The certificates in `path`; none when the file is absent."""
    try:
        return _read_certificates(path)
    except IdentityError as error:
        if error.code is Code.IDENTITY_MISSING:
            return ()
        raise


def _read(path: Path) -> bytes:
    try:
        return read_regular_file(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(f"{path} does not exist") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnusableFileError as error:
        raise IdentityError(Code.IDENTITY_MALFORMED, f"{path} {error}") from error


def _missing(message: str) -> IdentityError:
    return IdentityError(Code.IDENTITY_MISSING, message)


def _unreadable(path: Path, error: OSError) -> IdentityError:
    reason = error.strerror or str(error)
    return IdentityError(Code.IDENTITY_UNREADABLE, f"{path} cannot be read: {reason}")
