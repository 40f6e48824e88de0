"""Certificates and destinations as Teleport makes them, for tests; built on `cryptography` alone.

Keys are ECDSA P-256 unless a test asks for something else, because RSA keys take long to make.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from dbproxy.identity import PrivateKey

Attributes = tuple[tuple[str, str], ...]
"""Dotted object identifiers and values, in the order of the subject."""

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Authority:
    """One certificate authority of a cluster."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey = field(repr=False)

    @property
    def pem(self) -> bytes:
        """Its certificate as tbot writes it into a CA file."""
        return certificate_pem(self.certificate)


@dataclass(frozen=True)
class Cluster:
    """The three authorities that a destination knows."""

    host: Authority
    user: Authority
    database: Authority


def make_key() -> EllipticCurvePrivateKey:
    """A key that is made fast."""
    return generate_private_key(SECP256R1())


def make_authority(name: str = "teleport.example.com") -> Authority:
    """A self-signed authority, valid for years."""
    key = make_key()
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, name),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - MINUTE)
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def make_cluster() -> Cluster:
    """Three different authorities of one cluster."""
    return Cluster(make_authority(), make_authority(), make_authority())


def subject_attributes(
    *,
    user: str = "bot-app",
    service: str | None = "example-server",
    protocol: str | None = "postgres",
    username: str | None = "alice",
    database: str | None = "example",
    roles: Sequence[str] = (),
    extra: Attributes = (),
) -> Attributes:
    """The subject of a bot's database certificate; `None` leaves an attribute out."""
    route = (
        ("1.3.9999.2.1", service),
        ("1.3.9999.2.2", protocol),
        ("1.3.9999.2.3", username),
        ("1.3.9999.2.4", database),
    )
    return (
        ("2.5.4.10", "machine-id-db"),
        ("2.5.4.9", ""),
        ("2.5.4.17", '{"logins":["-teleport-internal-join"]}'),
        ("2.5.4.3", user),
        *((oid, value) for oid, value in route if value is not None),
        *(("1.3.9999.2.19", role) for role in roles),
        ("1.3.9999.1.7", "teleport.example.com"),
        *extra,
    )


def make_certificate(
    authority: Authority,
    key: PrivateKey,
    attributes: Attributes | None = None,
    *,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> x509.Certificate:
    """A client certificate of `authority` for `key`; by default valid for the next hour."""
    now = datetime.now(UTC)
    subject = subject_attributes() if attributes is None else attributes
    return (
        x509.CertificateBuilder()
        .subject_name(make_name(subject))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before or now - MINUTE)
        .not_valid_after(not_after or now + HOUR)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(authority.key, hashes.SHA256())
    )


def make_name(attributes: Attributes) -> x509.Name:
    """A distinguished name with one attribute after another."""
    return x509.Name(
        [x509.NameAttribute(x509.ObjectIdentifier(oid), value) for oid, value in attributes]
    )


def certificate_pem(*certificates: x509.Certificate) -> bytes:
    """The certificates, one after another."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def key_pem(key: PrivateKey, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    """The key, not encrypted."""
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def write_destination(
    directory: Path,
    cluster: Cluster,
    *,
    key: PrivateKey | None = None,
    certificate: x509.Certificate | None = None,
    attributes: Attributes | None = None,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> x509.Certificate:
    """Write one renewal, in tbot's order: in place, the certificate before its key.

    Returns:
        The certificate written.
    """
    if key is None:
        key = make_key()
    if certificate is None:
        certificate = make_certificate(
            cluster.user, key, attributes, not_before=not_before, not_after=not_after
        )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, data in destination_files(cluster, key, certificate).items():
        (directory / name).write_bytes(data)
    return certificate


def destination_files(
    cluster: Cluster, key: PrivateKey, certificate: x509.Certificate
) -> dict[str, bytes]:
    """The contents of a destination by file name, in the order that tbot writes them."""
    return {
        "teleport-host-ca.crt": cluster.host.pem,
        "teleport-user-ca.crt": cluster.user.pem,
        "teleport-database-ca.crt": cluster.database.pem,
        "tlscert": certificate_pem(certificate),
        "key": key_pem(key),
    }
