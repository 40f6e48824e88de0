"""TLS alerts by name, and records that carry one without TLS's help.

OpenSSL chooses its alerts itself; a server that is to reject a good certificate, or for another
reason than OpenSSL sees, has to write the alert by hand. Two cases are easy, and enough:

- In the clear, as long as the server has not changed to encryption: as the answer to a ClientHello
  in any version, and until the server's ChangeCipherSpec in TLS 1.2 (RFC 5246 §7.2).
- As the first record under a TLS 1.3 server's application traffic secret, which is where the
  rejection of a client certificate lies: the server has sent its Finished long before (RFC 8446
  §5.2 and §7.3). The secret comes from OpenSSL's key log.

Not made: alerts in the middle of a TLS 1.3 server's own flight (they need the handshake secret and
the count of its records), and alerts in sessions that are established.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

CONTENT_ALERT: Final = 21
CONTENT_APPLICATION_DATA: Final = 23
LEGACY_VERSION: Final = b"\x03\x03"
FATAL: Final = 2
TAG_SIZE: Final = 16
IV_SIZE: Final = 12


class Alert(IntEnum):
    """Alert descriptions (RFC 8446 §6.2), those that concern a connection's beginning."""

    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    PROTOCOL_VERSION = 70
    INTERNAL_ERROR = 80
    UNRECOGNIZED_NAME = 112
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120


class CipherUnknown(ValueError):
    """Not one of the TLS 1.3 cipher suites that OpenSSL has by default."""


def plaintext_alert(alert: Alert) -> bytes:
    """Returns a fatal alert as a whole TLS record in the clear."""
    body = bytes((FATAL, alert))
    return bytes((CONTENT_ALERT,)) + LEGACY_VERSION + len(body).to_bytes(2, "big") + body


def encrypted_alert(alert: Alert, *, secret: bytes, cipher: str) -> bytes:
    """Returns a fatal alert as the first TLS 1.3 record under a traffic secret.

    Args:
        alert: what to say.
        secret: ``SERVER_TRAFFIC_SECRET_0`` of the connection.
        cipher: the cipher suite as OpenSSL names it, such as ``TLS_AES_256_GCM_SHA384``.

    Raises:
        CipherUnknown: the suite is not one of TLS 1.3's usual three.
    """
    key_size, digest, aead = _suite(cipher)
    key = _expand_label(secret, b"key", key_size, digest)
    nonce = _expand_label(secret, b"iv", IV_SIZE, digest)  # record 0: the number changes nothing
    plaintext = bytes((FATAL, alert, CONTENT_ALERT))
    size = (len(plaintext) + TAG_SIZE).to_bytes(2, "big")
    header = bytes((CONTENT_APPLICATION_DATA,)) + LEGACY_VERSION + size
    return header + aead(key).encrypt(nonce, plaintext, header)


def _suite(
    cipher: str,
) -> tuple[int, hashes.HashAlgorithm, type[AESGCM] | type[ChaCha20Poly1305]]:
    match cipher:
        case "TLS_AES_128_GCM_SHA256":
            return 16, hashes.SHA256(), AESGCM
        case "TLS_AES_256_GCM_SHA384":
            return 32, hashes.SHA384(), AESGCM
        case "TLS_CHACHA20_POLY1305_SHA256":
            return 32, hashes.SHA256(), ChaCha20Poly1305
    raise CipherUnknown(cipher)


def _expand_label(secret: bytes, label: bytes, size: int, digest: hashes.HashAlgorithm) -> bytes:
    """HKDF-Expand-Label with an empty context (RFC 8446 §7.1)."""
    name = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes((len(name),)) + name + b"\0"
    return HKDFExpand(digest, size, info).derive(secret)
