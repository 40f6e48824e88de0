"""Pinned public keys: `--proxy-pin sha256:<SPKI>`.

A pin is the SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 §2.4), so it outlives a
renewal of the certificate that keeps the key. Teleport writes such pins in hexadecimal
(`sha256:7e12c1…`, in `tctl status`), HTTP's key pins are in base64; both are accepted.
"""

import re
from base64 import b64decode
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from OpenSSL import crypto

from dbproxy.errors import UsageError

__all__ = ["parse_pins", "pin_of"]

_PREFIX: Final = re.compile(r"sha256:(?://)?")
"""Teleport's `sha256:`, and the `sha256//` of curl after it."""
_CURL_PREFIX: Final = re.compile(r"sha256//")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{64}")
_BASE64: Final = re.compile(r"[0-9A-Za-z+/]{43}=?")


def parse_pins(texts: Iterable[str]) -> frozenset[bytes]:
    """The digests that the texts stand for.

    Raises:
        UsageError: One of them is not a pin.
    """
    return frozenset(map(_parse_pin, texts))


def _parse_pin(text: str) -> bytes:
    pin = text.strip()
    prefix = _PREFIX.match(pin) or _CURL_PREFIX.match(pin)
    if prefix is not None:
        digest = pin[prefix.end() :]
        if _HEX.fullmatch(digest):
            return bytes.fromhex(digest)
        if _BASE64.fullmatch(digest):
            return b64decode(digest.rstrip("=") + "=")
    raise UsageError(
        f"--proxy-pin: {text!r} is not the SHA-256 of a public key",
        next_step="Give it as sha256: and 64 hexadecimal digits, or 44 characters of base64.",
    )


def pin_of(certificate: crypto.X509) -> bytes:
    """The digest of the certificate's public key.

    Raises:
        ValueError: OpenSSL cannot read the key.
    """
    try:
        key = crypto.dump_publickey(crypto.FILETYPE_ASN1, certificate.get_pubkey())
    except crypto.Error as error:
        raise ValueError("its public key cannot be read") from error
    return sha256(key).digest()
