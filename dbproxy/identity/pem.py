"""PEM files as tbot leaves them, from bytes (RFC 7468).

The problem: tbot rewrites its files in place (lib/tbot/botfs/botfs.go), so a reader can meet an
empty file, a file that ends anywhere, and, since its earliest versions did not truncate the old
file first, a complete new file followed by the tail of a longer old one.

The choice: a block that begins must end, or the file counts as truncated; whatever stands outside
of complete blocks is skipped. A leftover tail lacks the beginning of its first block, and so it is
skipped. A file that was cut in the first line of its next block is told apart by that line.

The texts of the errors name the file and never quote from it, as it may hold a private key.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_ssh_private_key,
)

from dbproxy.errors import Code, IdentityError

__all__ = ["PrivateKey", "is_key_of", "load_certificates", "load_private_key"]

PrivateKey: TypeAlias = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
"""The kinds of key that Teleport issues certificates for (lib/cryptosuites)."""

_MARKER: Final = re.compile(rb"-----(BEGIN|END) ([A-Z0-9][A-Z0-9 ]{0,63})-----")
_BEGIN: Final = b"-----BEGIN "
_CERTIFICATE: Final = "CERTIFICATE"
_PRIVATE_KEY: Final = "PRIVATE KEY"
_OPENSSH_PRIVATE_KEY: Final = "OPENSSH PRIVATE KEY"


@dataclass(frozen=True, slots=True)
class _Block:
    label: str
    text: bytes
    """The whole block, with both markers."""
    body: bytes
    """What stands between the markers."""

    def __repr__(self) -> str:
        return f"_Block(label={self.label!r})"


def load_certificates(data: bytes, source: Path) -> tuple[x509.Certificate, ...]:
    """Read every certificate in `data`, in order; blocks of other kinds are skipped.

    Args:
        data: The content of a PEM file.
        source: Where it came from, for the error's text.

    Raises:
        IdentityError: With `Code.IDENTITY_MALFORMED` when there is none, when the data ends inside
            a block, or when a certificate is damaged.
    """
    blocks = [block for block in _complete_blocks(data, source) if block.label == _CERTIFICATE]
    if not blocks:
        raise _malformed(source, "holds no certificate")
    return tuple(_parse_certificate(block, source) for block in blocks)


def load_private_key(data: bytes, source: Path) -> PrivateKey:
    """Read the first private key in `data`: PKCS#8, PKCS#1, SEC1 or OpenSSH.

    The label does not decide between the first three, because mislabelled keys exist
    (api/utils/keys/privatekey.go).

    Args:
        data: The content of a PEM file.
        source: Where it came from, for the error's text.

    Raises:
        IdentityError: With `Code.IDENTITY_MALFORMED` when there is none, when the data ends inside
            a block, or when the key is damaged, encrypted or of another kind. Neither the error nor
            its cause contains a byte of the key.
    """
    for block in _complete_blocks(data, source):
        if block.label.endswith(_PRIVATE_KEY):
            return _parse_private_key(block, source)
    raise _malformed(source, "holds no private key")


def is_key_of(private_key: PrivateKey, certificate: x509.Certificate, source: Path) -> bool:
    """Whether `private_key` is the one that `certificate` was issued for.

    Args:
        private_key: The key.
        certificate: The certificate.
        source: Where the certificate came from, for the error's text.

    Raises:
        IdentityError: With `Code.IDENTITY_MALFORMED` when the certificate's public key is damaged
            or of an unknown kind.
    """
    try:
        return private_key.public_key() == certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        what = f"holds a certificate with an unusable public key: {error}"
        raise _malformed(source, what) from error


def _complete_blocks(data: bytes, source: Path) -> list[_Block]:
    if not data.strip():
        raise _malformed(source, "is empty")
    blocks = list(_split(data, source))
    if _ends_inside_first_line(data):
        raise _malformed(source, "is truncated")
    return blocks


def _split(data: bytes, source: Path) -> Iterator[_Block]:
    begin: re.Match[bytes] | None = None
    for marker in _MARKER.finditer(data):
        if marker[1] == b"BEGIN":
            if begin is not None:
                raise _malformed(source, "has a block that does not end")
            begin = marker
        elif begin is not None:
            if marker[2] != begin[2]:
                raise _malformed(source, "has a block that ends as another kind than it began")
            text = data[begin.start() : marker.end()]
            yield _Block(begin[2].decode(), text, data[begin.end() : marker.start()])
            begin = None
    if begin is not None:
        raise _malformed(source, "is truncated")


def _ends_inside_first_line(data: bytes) -> bool:
    """Whether the last line is the start of a block's first line."""
    line = data.rpartition(b"\n")[2]
    if not line or _MARKER.match(line):
        return False
    return _BEGIN.startswith(line) or line.startswith(_BEGIN)


def _parse_certificate(block: _Block, source: Path) -> x509.Certificate:
    der = _decode(block, source)
    try:
        certificate = x509.load_der_x509_certificate(der)
        _read_lazy_fields(certificate)
    except (ValueError, TypeError, x509.InvalidVersion) as error:
        raise _malformed(source, f"holds a damaged certificate: {error}") from error
    return certificate


def _read_lazy_fields(certificate: x509.Certificate) -> None:
    """Make a certificate that cryptography would reject only later fail now."""
    _ = certificate.subject, certificate.issuer
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc


def _parse_private_key(block: _Block, source: Path) -> PrivateKey:
    try:
        if block.label == _OPENSSH_PRIVATE_KEY:
            key: object = load_ssh_private_key(block.text, password=None)
        else:
            key = load_der_private_key(_decode(block, source), password=None)
    except TypeError:
        raise _malformed(source, "holds an encrypted private key") from None
    except (ValueError, UnsupportedAlgorithm):
        # The cause is left out: what the parsers quote is not ours to promise.
        raise _malformed(source, "holds a damaged private key") from None
    if not isinstance(key, PrivateKey):
        raise _malformed(source, "holds a private key that is not RSA, ECDSA or Ed25519")
    return key


def _decode(block: _Block, source: Path) -> bytes:
    if b":" in block.body:
        raise _malformed(source, "holds a block with headers, as only encrypted keys have them")
    try:
        return base64.b64decode(b"".join(block.body.split()), validate=True)
    except binascii.Error:
        raise _malformed(source, "holds a block that is not base64") from None


def _malformed(source: Path, what: str) -> IdentityError:
    return IdentityError(Code.IDENTITY_MALFORMED, f"{source} {what}")
