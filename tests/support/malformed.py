"""Certificates that OpenSSL takes and `cryptography` does not."""

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

_VERSION_3 = b"\xa0\x03\x02\x01\x02"
_VERSION_10 = b"\xa0\x03\x02\x01\x09"


def of_unknown_version(certificate: x509.Certificate) -> crypto.X509:
    """The certificate with another version, hence with a signature that does not fit."""
    der = certificate.public_bytes(Encoding.DER).replace(_VERSION_3, _VERSION_10, 1)
    return crypto.load_certificate(crypto.FILETYPE_ASN1, der)
