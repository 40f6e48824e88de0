"""Certificates that OpenSSL takes and `cryptography` does not: their version is 10."""

import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from identities import key_pem
from OpenSSL import crypto
from tls_peers import Credentials

_VERSION_3 = b"\xa0\x03\x02\x01\x02"
_VERSION_10 = b"\xa0\x03\x02\x01\x09"
_ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def of_unknown_version(certificate: x509.Certificate) -> crypto.X509:
    """The certificate with another version, hence with a signature that does not fit."""
    der = certificate.public_bytes(Encoding.DER).replace(_VERSION_3, _VERSION_10, 1)
    return crypto.load_certificate(crypto.FILETYPE_ASN1, der)


def load_malformed(
    context: ssl.SSLContext, credentials: Credentials, issuer: EllipticCurvePrivateKey
) -> None:
    """Let a context of the standard library show a malformed version, signed by the issuer."""
    tbs = credentials.certificate.tbs_certificate_bytes.replace(_VERSION_3, _VERSION_10, 1)
    signature = b"\0" + issuer.sign(tbs, ECDSA(hashes.SHA256()))
    der = _tagged(0x30, tbs + _ECDSA_WITH_SHA256 + _tagged(0x03, signature))
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "pair.pem"
        file.write_bytes(key_pem(credentials.key) + ssl.DER_cert_to_PEM_cert(der).encode())
        context.load_cert_chain(file)


def _tagged(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
