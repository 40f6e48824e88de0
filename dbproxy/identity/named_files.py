"""Certificate files that the operator names one by one, outside of any destination.

Those for the identity may be rewritten at any time, as a destination may; they fail with the same
errors. Those for the listener and for trust are read once, at the start.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography import x509

from dbproxy.errors import Code, ConfigError, IdentityError
from dbproxy.identity.assemble import assemble
from dbproxy.identity.files import UnusableFileError, read_regular_file
from dbproxy.identity.folder import Folder, read_steadily
from dbproxy.identity.identity import Identity, IdentityFiles
from dbproxy.identity.identity_file import parse_identity_file
from dbproxy.identity.pem import PrivateKey, is_key_of, load_certificates, load_private_key

__all__ = ["read_certificates", "read_identity_file", "read_key_pair", "read_named_files"]


def read_identity_file(path: Path) -> Identity:
    """Read a combined identity file, in one attempt; blocks on the file system.

    Raises:
        IdentityError: As `IdentitySource.read` does.
    """
    parts = parse_identity_file(_read_together([path])[path], path)
    return assemble(
        certificate=parts.certificate,
        private_key=parts.private_key,
        host_cas=parts.host_cas,
        files=_files(path, path, path),
    )


def read_named_files(certificate: Path, key: Path, authorities: Path) -> Identity:
    """Read an identity from its files, in one attempt; blocks on the file system.

    Raises:
        IdentityError: As `IdentitySource.read` does.
    """
    contents = _read_together((certificate, key, authorities))
    return assemble(
        certificate=load_certificates(contents[certificate], certificate)[0],
        private_key=load_private_key(contents[key], key),
        host_cas=load_certificates(contents[authorities], authorities),
        files=_files(certificate, key, authorities),
    )


def _read_together(paths: Iterable[Path]) -> dict[Path, bytes]:
    """The contents of files, those of one directory from one moment of it."""
    by_directory: dict[Path, list[Path]] = {}
    for path in paths:
        by_directory.setdefault(path.parent, []).append(path)
    contents: dict[Path, bytes] = {}
    for directory, members in by_directory.items():
        contents |= read_steadily(directory, _reader(members))
    return contents


def _reader(paths: Iterable[Path]) -> Callable[[Folder], dict[Path, bytes]]:
    return lambda folder: {path: folder.read(path.name) for path in paths}


def _files(certificate: Path, key: Path, authorities: Path) -> IdentityFiles:
    return IdentityFiles(
        directory=certificate.parent,
        certificate=certificate,
        key=key,
        host_ca=authorities,
        user_ca=None,
        database_ca=None,
    )


def read_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """Read the certificates of one PEM file, in order; at least one.

    Raises:
        ConfigError: `file-unusable`: it cannot be read, or holds no certificate.
    """
    try:
        return load_certificates(_read(path), path)
    except IdentityError as error:
        raise _unusable(error.message) from error


def read_key_pair(
    certificate: Path, key: Path
) -> tuple[x509.Certificate, tuple[x509.Certificate, ...], PrivateKey]:
    """Read a certificate with its chain, and its private key.

    Returns:
        The leaf, the rest of its file, and the key.

    Raises:
        ConfigError: `file-unusable`: one cannot be used, or they do not belong together.
    """
    leaf, *chain = read_certificates(certificate)
    try:
        private_key = load_private_key(_read(key), key)
        belongs = is_key_of(private_key, leaf, certificate)
    except IdentityError as error:
        raise _unusable(error.message) from error
    if not belongs:
        raise _unusable(f"the key in {key} does not belong to the certificate in {certificate}")
    return leaf, tuple(chain), private_key


def _read(path: Path) -> bytes:
    try:
        return read_regular_file(path)
    except OSError as error:
        raise _unusable(f"{path} cannot be read: {error.strerror}") from error
    except UnusableFileError as error:
        raise _unusable(f"{path} {error}") from error


def _unusable(message: str) -> ConfigError:
    return ConfigError(Code.FILE_UNUSABLE, message)
