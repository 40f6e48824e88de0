"""Certificate authorities of the lab: a stand-in for Teleport's auth service.

Shapes follow Teleport's lib/tlsca/ca.go and api/utils/tlsca: self-signed authorities whose subject
carries the cluster name twice (CN and O) and their own serial number, and leaves directly below
them. A further authority, the web CA, stands for whoever issued the public certificate of the
Teleport Proxy.
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
from dbproxy.lab.ssh import SshAuthority
from dbproxy.lab.subject import SubjectFields, encode_subject

__all__ = ["Authority", "CertificateAuthority", "KeyPair"]

CA_LIFETIME = timedelta(days=3650)  # defaults.CATTL
HOST_CERTIFICATE_LIFETIME = timedelta(days=3650)  # host certificates live as long as their CA
CLOCK_SKEW = timedelta(minutes=1)  # how far NotBefore lies in the past
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")  # always in a Proxy's host certificate

_CLIENT_AND_SERVER = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)


def _now() -> datetime:
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

        See Teleport's lib/utils/certs.go (`CalculateSPKI`).
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
        usages: Iterable[x509.ObjectIdentifier] = _CLIENT_AND_SERVER,
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
        now = _now()
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
    now = _now()
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


class Authority:
    """The cluster's authorities, and what they issue.

    Attributes:
        cluster: Name of the cluster.
        host_ca: Issues the Proxy's own certificates.
        user_ca: Issues user and bot certificates.
        database_ca: The very same authority as `host_ca`, as in clusters that predate their split,
            or one of its own.
        web_ca: Stands for the public authority of the Proxy's web certificate.
        ssh_user_ca: Issues the SSH certificates of bots.
        ssh_host_ca: What bots are told to trust as SSH host authority.
        trusted_host_cas: Every trusted Host CA, the issuing one first; several during a rotation.
        trusted_user_cas: Every trusted User CA, the issuing one first.
        trusted_database_cas: Every trusted Database CA, the issuing one first.
    """

    def __init__(self, cluster: str, *, split_database_ca: bool = False, rsa: bool = False) -> None:
        self.cluster = cluster
        self._split = split_database_ca
        self._rsa = rsa
        self.web_ca = CertificateAuthority.create("Lab Web CA")
        self.ssh_user_ca = SshAuthority.create(cluster)
        self.ssh_host_ca = SshAuthority.create(cluster)
        self.trusted_host_cas: tuple[CertificateAuthority, ...] = ()
        self.trusted_user_cas: tuple[CertificateAuthority, ...] = ()
        self.trusted_database_cas: tuple[CertificateAuthority, ...] = ()
        self.begin_rotation()

    @classmethod
    def create(
        cls,
        cluster: str = "lab.example.com",
        *,
        split_database_ca: bool = False,
        rsa: bool = False,
    ) -> Authority:
        """Make the authorities of a new cluster."""
        return cls(cluster, split_database_ca=split_database_ca, rsa=rsa)

    @property
    def host_ca(self) -> CertificateAuthority:
        """The issuing Host CA."""
        return self.trusted_host_cas[0]

    @property
    def user_ca(self) -> CertificateAuthority:
        """The issuing User CA."""
        return self.trusted_user_cas[0]

    @property
    def database_ca(self) -> CertificateAuthority:
        """The issuing Database CA."""
        return self.trusted_database_cas[0]

    @property
    def ca_pin(self) -> str:
        """The pin of the Host CA, which `tctl bots add` prints and tbot checks when it joins."""
        return self.host_ca.pin

    def begin_rotation(self) -> None:
        """Put new Host, User and Database CAs in front; the old ones stay trusted.

        This is the state after the phase `update_clients` of Teleport's lib/auth/rotate.go.
        """
        host, user = self._new_ca(), self._new_ca()
        database = self._new_ca() if self._split else host
        self.trusted_host_cas = (host, *self.trusted_host_cas)
        self.trusted_user_cas = (user, *self.trusted_user_cas)
        self.trusted_database_cas = (database, *self.trusted_database_cas)

    def end_rotation(self) -> None:
        """Trust only the newest authorities (phase `standby`)."""
        self.trusted_host_cas = self.trusted_host_cas[:1]
        self.trusted_user_cas = self.trusted_user_cas[:1]
        self.trusted_database_cas = self.trusted_database_cas[:1]

    def _new_ca(self) -> CertificateAuthority:
        return CertificateAuthority.create(self.cluster, rsa=self._rsa)

    def issue_proxy_host_certificate(self, names: Iterable[str] = ()) -> KeyPair:
        """Issue the host identity of a Teleport Proxy: Host CA, loopback names and `names`."""
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Proxy"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"proxy.{self.cluster}"),
            ]
        )
        return self.host_ca.issue_pair(subject, (*LOOPBACK_NAMES, *names), _CLIENT_AND_SERVER)

    def issue_web_certificate(self, names: Iterable[str] = ()) -> KeyPair:
        """Issue the Proxy's public certificate: web CA, loopback names and `names`."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.cluster)])
        return self.web_ca.issue_pair(subject, (*LOOPBACK_NAMES, *names), _SERVER)

    def issue_user_certificate(
        self,
        public_key: PublicKey,
        subject: SubjectFields,
        ttl: timedelta,
        *,
        now: datetime | None = None,
        authority: CertificateAuthority | None = None,
        not_before: datetime | None = None,
    ) -> x509.Certificate:
        """Issue a user certificate as Teleport's lib/tlsca does.

        Args:
            public_key: The holder's public key.
            subject: Identity to encode.
            ttl: Lifetime from `now` on; X.509 cuts fractions of a second.
            now: Time of issue, the current time by default; another one makes certificates that
                have expired or are not yet valid.
            authority: Issuer, the User CA by default.
            not_before: Start of validity, one minute before `now` by default.

        Raises:
            LabError: The subject cannot be encoded.
            ValueError: The certificate would end before it starts.
        """
        issued = now or _now()
        return (authority or self.user_ca).issue(
            encode_subject(subject),
            public_key,
            not_before=not_before or issued - CLOCK_SKEW,
            not_after=issued + ttl,
        )
