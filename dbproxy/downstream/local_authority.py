"""The local certificate authority: who says that our listener is `localhost`.

In `--terminate` the client's TLS ends here, so a server certificate is needed that the client can
be told to trust. dbproxy makes an authority once, in its state directory, and a new server
certificate from it at each start. The authority's key never leaves the directory; the server
certificate's key never leaves memory.

Two processes may start at once: the first one holds a lock while it makes the authority. The
certificate is written last, so that its presence means that the authority is complete.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

import platformdirs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dbproxy.errors import Code, ListenError
from dbproxy.identity import PrivateKey

__all__ = ["LocalAuthority", "ServerCertificate", "default_state_directory"]

CERTIFICATE_NAME: Final = "dbproxy-ca.crt"
_KEY_NAME: Final = "dbproxy-ca.key"
_LOCK_NAME: Final = "lock"
_KEY_MODE: Final = 0o600
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
"""A copy from a backup or a careless chmod may give these."""

_AUTHORITY_LIFETIME: Final = timedelta(days=3650)
"""Clients are configured with it by hand, so it should outlive the machine."""
_RENEW_BEFORE: Final = timedelta(days=90)
"""Less than this left, and a new authority is made at the next start."""
_SERVER_LIFETIME: Final = timedelta(days=397)
"""A process may run for months; some clients refuse server certificates valid for longer."""
_CLOCK_SKEW: Final = timedelta(minutes=5)

SERVER_NAMES: Final = (
    x509.DNSName("localhost"),
    x509.IPAddress(ip_address("127.0.0.1")),
    x509.IPAddress(ip_address("::1")),
)


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """What our listener shows to clients.

    Attributes:
        certificate: The leaf.
        chain: What the client needs on the way to `ca_file`, without the root.
        private_key: The leaf's key, of a kind that OpenSSL signs with.
        ca_file: The file that a client must trust; None when the client's own roots must do.
        host: The name that clients should call, one that the leaf is for.
    """

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey
    ca_file: Path | None
    host: str = "localhost"

    def __repr__(self) -> str:
        return f"ServerCertificate(ca_file={str(self.ca_file)!r})"


def default_state_directory() -> Path:
    """`$STATE_DIRECTORY` as systemd sets it, else the user's XDG state directory."""
    # systemd separates several directories with a colon; the first is ours (systemd.exec(5)).
    from_systemd = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(from_systemd) if from_systemd else platformdirs.user_state_path("dbproxy")


class LocalAuthority:
    """An ECDSA P-256 authority for `localhost`, kept in a directory.

    Args:
        certificate: The authority's certificate.
        private_key: Its key.
        directory: Where both are kept.
    """

    def __init__(
        self,
        certificate: x509.Certificate,
        private_key: ec.EllipticCurvePrivateKey,
        directory: Path,
    ) -> None:
        self.certificate = certificate
        self._private_key = private_key
        self.ca_file = directory / CERTIFICATE_NAME

    @classmethod
    def open(cls, directory: Path) -> "LocalAuthority":
        """Load the authority of this directory, or make it.

        Raises:
            ListenError: `state-directory-unusable`.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(directory):
                return cls._load(directory) or cls._make(directory)
        except OSError as error:
            raise ListenError(
                Code.STATE_DIRECTORY_UNUSABLE,
                f"the state directory {directory} cannot be used:"
                f" {error.filename}: {error.strerror}",
            ) from error

    @classmethod
    def _load(cls, directory: Path) -> "LocalAuthority | None":
        """The authority, or None when there is none yet, or only a part, or it ends soon."""
        try:
            certificate = x509.load_pem_x509_certificate(
                (directory / CERTIFICATE_NAME).read_bytes()
            )
            key = load_pem_private_key(_read_private(directory / _KEY_NAME), password=None)
        except (FileNotFoundError, ValueError, TypeError, UnsupportedAlgorithm):
            return None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            return None
        ends_soon = certificate.not_valid_after_utc < datetime.now(UTC) + _RENEW_BEFORE
        if ends_soon or key.public_key() != certificate.public_key():
            return None
        return cls(certificate, key, directory)

    @classmethod
    def _make(cls, directory: Path) -> "LocalAuthority":
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _authority_certificate(key)
        (directory / CERTIFICATE_NAME).unlink(missing_ok=True)
        (directory / _KEY_NAME).unlink(missing_ok=True)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write_new(directory / _KEY_NAME, pem, mode=_KEY_MODE)
        _write_new(directory / CERTIFICATE_NAME, certificate.public_bytes(Encoding.PEM), mode=0o644)
        return cls(certificate, key, directory)

    def issue_server_certificate(self) -> ServerCertificate:
        """A server certificate for `localhost`, `127.0.0.1` and `::1`, with a new key."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(min(now + _SERVER_LIFETIME, self.certificate.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName(SERVER_NAMES), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._private_key.public_key()),
                critical=False,
            )
            .sign(self._private_key, hashes.SHA256())
        )
        return ServerCertificate(certificate, (), key, self.ca_file)


def _authority_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dbproxy local authority")])
    # The name constraints keep the damage small, should the key ever leak: it vouches for this
    # host's loopback names only (RFC 5280 §4.2.1.10).
    permitted = [
        x509.DNSName("localhost"),
        x509.IPAddress(ip_network("127.0.0.0/8")),
        x509.IPAddress(ip_network("::1/128")),
    ]
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock; the system releases it when the process ends."""
    descriptor = os.open(directory / _LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read_private(path: Path) -> bytes:
    """Read a file of ours that nobody else may read; if others may, that ends here.

    Raises:
        OSError: It cannot be read, or others may read it and it is not ours.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_mode & _OTHERS:
            if status.st_uid != os.geteuid():
                raise PermissionError(
                    errno.EPERM, "others may read this key, and it is not ours", str(path)
                )
            os.fchmod(file.fileno(), _KEY_MODE)
        return file.read()


def _write_new(path: Path, content: bytes, *, mode: int) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
