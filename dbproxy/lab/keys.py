"""Private keys and key pairs, in the PEM forms that Teleport writes.

RSA keys become PKCS#1 (`RSA PRIVATE KEY`), all others PKCS#8 (`PRIVATE KEY`), see Teleport's
api/utils/keys/privatekey.go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

RSA_BITS = 2048  # every Teleport version uses this size for database clients
RSA_EXPONENT = 65537


def new_rsa_key() -> rsa.RSAPrivateKey:
    """Make an RSA-2048 key. Takes 100 ms and more: call it in a worker thread."""
    return rsa.generate_private_key(RSA_EXPONENT, RSA_BITS)


def new_ecdsa_key() -> ec.EllipticCurvePrivateKey:
    """Make an ECDSA P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def private_key_pem(key: PrivateKey) -> bytes:
    """Return the unencrypted PEM block of a key: PKCS#1 for RSA, PKCS#8 for others."""
    traditional = isinstance(key, rsa.RSAPrivateKey)
    form = PrivateFormat.TraditionalOpenSSL if traditional else PrivateFormat.PKCS8
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


@dataclass(frozen=True)
class KeyPair:
    """A private key together with the certificate of its public half.

    The key is left out of the representation, so that it cannot slip into a log or a message.
    """

    key: PrivateKey = field(repr=False)
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        """The private key as one PEM block, see `private_key_pem`."""
        return private_key_pem(self.key)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, the leaf alone, as one PEM block."""
        return self.certificate.public_bytes(Encoding.PEM)
