"""One certificate authority of the lab, shaped as Teleport's lib/tlsca makes them.

An authority is self-signed; its subject carries the cluster name twice (CN and O) and its own
serial number. Leaves lie directly below it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dbproxy.lab.keys import KeyPair, PrivateKey, PublicKey, new_ecdsa_key, new_rsa_key

CA_LIFETIME = timedelta(days=3650)
HOST_CERTIFICATE_LIFETIME = timedelta(days=3650)
CLOCK_SKEW = timedelta(minutes=1)  # how far NotBefore lies in the past

CLIENT_AND_SERVER = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
SERVER_ONLY = (ExtendedKeyUsageOID.SERVER_AUTH,)


def current_time() -> datetime:
    """Return the current time, aware."""
    return datetime.now(UTC)


def _random_serial() -> int:
    # 128 random bits; zero is not a valid serial number (RFC 5280, 4.1.2.2).
    return secrets.randbits(128) or 1


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@dataclass(frozen=True)
class CertificateAuthority:
    """One self-signed certificate authority.

    Attributes:
        cluster: Name of the Teleport cluster; common name and organisation of the authority.
        key: Private key.
        certificate: Self-signed certificate.
    """

    cluster: str
    key: PrivateKey = field(repr=False)
    certificate: x509.Certificate

    @classmethod
    def create(cls, cluster: str, *, rsa: bool = False) -> CertificateAuthority:
        """Make an authority with a new ECDSA P-256 key, or RSA-2048 as clusters before v17 have."""
        key: PrivateKey = new_rsa_key() if rsa else new_ecdsa_key()
        return cls(cluster, key, _self_signed(cluster, key))

    @property
    def subject_common_name(self) -> str:
        """The common name of the authority's subject, which is the cluster name."""
        return self.cluster

    @property
    def pem(self) -> bytes:
        """The authority's certificate as one PEM block."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def pin(self) -> str:
        """The pin of this authority: `sha256:` and the hex SHA-256 of its SubjectPublicKeyInfo.

        This is the form that `tctl bots add` prints and `ca_pins` in a tbot.yaml takes.
        """
        public = self.certificate.public_key()
        spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return f"sha256:{hashlib.sha256(spki).hexdigest()}"

    def issue(
        self,
        subject: x509.Name,
        public_key: PublicKey,
        *,
        not_before: datetime,
        not_after: datetime,
        names: Iterable[str] = (),
        usages: Iterable[x509.ObjectIdentifier] = CLIENT_AND_SERVER,
    ) -> x509.Certificate:
        """Issue a leaf certificate directly below this authority.

        Args:
            subject: Subject of the certificate.
            public_key: The holder's public key.
            not_before: Start of validity, aware; fractions of a second are cut.
            not_after: End of validity, aware; must not lie before the start.
            names: DNS names and IP addresses for the subject alternative name; none: no extension.
            usages: Extended key usages.

        Raises:
            ValueError: The validity is empty or a name cannot be encoded.
        """
        builder = (
            x509.CertificateBuilder(subject_name=subject, issuer_name=self.certificate.subject)
            .public_key(public_key)
            .serial_number(_random_serial())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_authority_key_identifier(self.key), critical=False)
        )
        if general_names := [_general_name(name) for name in dict.fromkeys(names)]:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(general_names), critical=False
            )
        return builder.sign(self.key, hashes.SHA256())

    def issue_pair(
        self, subject: x509.Name, names: Iterable[str], usages: Iterable[x509.ObjectIdentifier]
    ) -> KeyPair:
        """Issue a long-lived certificate for a new ECDSA P-256 key."""
        key = new_ecdsa_key()
        now = current_time()
        certificate = self.issue(
            subject,
            key.public_key(),
            not_before=now - CLOCK_SKEW,
            not_after=now + HOST_CERTIFICATE_LIFETIME,
            names=names,
            usages=usages,
        )
        return KeyPair(key, certificate)


def _authority_key_identifier(key: PrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _self_signed(cluster: str, key: PrivateKey) -> x509.Certificate:
    serial = _random_serial()
    # The serial number in the subject keeps authorities of one cluster apart.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster),
            x509.NameAttribute(NameOID.COMMON_NAME, cluster),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, str(serial)),
        ]
    )
    now = current_time()
    return (
        x509.CertificateBuilder(subject_name=name, issuer_name=name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
