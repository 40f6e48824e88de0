"""Servers whose certificate has one fault each, made with `cryptography` and a little DER.

`cryptography` does not sign with SHA-1 any more, so such a signature is put in by hand: its
algorithm has a name of the same length as that of SHA-256.
"""

import ssl
import tempfile
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID
from identities import key_pem, make_key
from tls_peers import general_name

from dbproxy.identity import PrivateKey

HOUR = timedelta(hours=1)
_SHA256_WITH_RSA = bytes.fromhex("300d06092a864886f70d01010b0500")
_SHA1_WITH_RSA = bytes.fromhex("300d06092a864886f70d0101050500")
_SHA1_DIGEST_INFO = bytes.fromhex("3021300906052b0e03021a05000414")
"""Before the digest in a PKCS #1 signature (RFC 8017 §9.2, note 1)."""


@dataclass(frozen=True)
class Issued:
    """A certificate in DER, with its key and what was sent along with it."""

    der: bytes
    key: PrivateKey = field(repr=False)
    chain: tuple[bytes, ...] = ()

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.der)


def issue(
    issuer: Issued | None,
    *names: str,
    common_name: str = "web",
    organisation: str | None = None,
    not_before: timedelta = -HOUR,
    not_after: timedelta = HOUR,
    key: PrivateKey | None = None,
    ca: bool = False,
    client_only: bool = False,
    fetchable: bool = False,
    sha1_signature: bool = False,
    chain: tuple[Issued, ...] = (),
) -> Issued:
    """A certificate for DNS names and IP addresses; without an issuer it signs itself.

    Args:
        issuer: Signs it.
        names: The subject alternative names; none at all leaves the extension out.
        common_name: In the subject.
        organisation: In the subject.
        not_before: From now.
        not_after: From now.
        key: Its key.
        ca: Whether it may issue certificates.
        client_only: Whether its extended key usage is for clients only.
        fetchable: Whether it says where its issuer's certificate can be fetched.
        sha1_signature: Whether to sign with SHA-1; the issuer's key must be RSA then.
        chain: What a server sends along.
    """
    key = make_key() if key is None else key
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organisation is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    subject = x509.Name(attributes)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + not_before)
        .not_valid_after(now + not_after)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    issuer_key = (issuer.key if issuer else key).public_key()
    for identifier in (
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key),
    ):
        builder = builder.add_extension(identifier, critical=False)
    if names:
        general_names = [general_name(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general_names), critical=False)
    if client_only:
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(usages, critical=False)
    if fetchable:
        place = x509.AccessDescription(
            AuthorityInformationAccessOID.CA_ISSUERS,
            x509.UniformResourceIdentifier("http://ca.example.com/intermediate.crt"),
        )
        builder = builder.add_extension(x509.AuthorityInformationAccess([place]), critical=False)
    signer = issuer.key if issuer else key
    made = builder.sign(signer, hashes.SHA256())
    der = _signed_with_sha1(made, signer) if sha1_signature else made.public_bytes(Encoding.DER)
    return Issued(der, key, tuple(one.der for one in chain))


def _signed_with_sha1(made: x509.Certificate, signer: PrivateKey) -> bytes:
    assert isinstance(signer, rsa.RSAPrivateKey)
    tbs = made.tbs_certificate_bytes.replace(_SHA256_WITH_RSA, _SHA1_WITH_RSA, 1)
    size = signer.key_size // 8
    info = _SHA1_DIGEST_INFO + sha1(tbs).digest()
    padded = b"\0\1" + b"\xff" * (size - len(info) - 3) + b"\0" + info
    numbers = signer.private_numbers()
    number = pow(int.from_bytes(padded, "big"), numbers.d, numbers.public_numbers.n)
    signature = b"\0" + number.to_bytes(size, "big")
    return _long(0x30, tbs + _SHA1_WITH_RSA + _long(0x03, signature))


def _long(tag: int, content: bytes) -> bytes:
    """DER with a length of 256 to 65535 bytes."""
    return bytes([tag, 0x82]) + len(content).to_bytes(2, "big") + content


def lax_context(shown: Issued, *, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A server's context at security level 0, so that it shows what nobody should accept."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    pem = key_pem(shown.key) + b"".join(
        ssl.DER_cert_to_PEM_cert(der).encode() for der in (shown.der, *shown.chain)
    )
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "pair.pem"
        file.write_bytes(pem)
        context.load_cert_chain(file)
    if version is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # old versions, on purpose
            context.minimum_version = context.maximum_version = version
    return context
