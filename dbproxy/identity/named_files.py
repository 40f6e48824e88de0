"""Certificate files that the operator names one by one, outside of any destination."""

from pathlib import Path

from cryptography import x509

from dbproxy.errors import Code, ConfigError, IdentityError
from dbproxy.identity.files import UnusableFileError, read_regular_file
from dbproxy.identity.pem import PrivateKey, is_key_of, load_certificates, load_private_key

__all__ = ["read_certificates", "read_key_pair"]


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
