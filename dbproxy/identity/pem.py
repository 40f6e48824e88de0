"""PEM files as tbot leaves them, from bytes (RFC 7468).

The problem: tbot rewrites its files in place (lib/tbot/botfs/botfs.go), so a reader can meet an
empty file, a file that ends anywhere, and, since its earliest versions did not truncate the old
file first, a complete new file followed by the tail of a longer old one.

The choice: a block that begins must end, or the file counts as truncated; whatever stands outside
of complete blocks is skipped. A leftover tail shows by an end without a beginning: from there on
all is old. A file that was cut in the first line of its next block is told apart by that line.

The texts of the errors name the file and never quote from it, as it may hold a private key.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
from dbproxy.identity.distinguished_name import read_issuer, read_subject

__all__ = [
    "Block",
    "PrivateKey",
    "complete_blocks",
    "is_key_of",
    "load_certificates",
    "load_private_key",
    "parse_certificate",
    "parse_private_key",
]

PrivateKey: TypeAlias = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
"""The kinds of key that Teleport issues certificates for (lib/cryptosuites)."""

_MARKER: Final = re.compile(rb"-----(BEGIN|END) ([A-Z0-9][A-Z0-9 ]{0,63})-----")
_BEGIN: Final = b"-----BEGIN "
_SEPARATOR: Final = b"$"
"""Between the entries of `tlscacerts` (lib/tbot/identity/artifact.go)."""
_DER_SEQUENCE: Final = b"\x30\x82"
"""How every certificate and RSA key of more than 255 bytes begins in DER, and no text does."""
_MOST_CERTIFICATES: Final = 32
"""Certificates that are not read again when they come again: those of some clusters in rotation."""
_CERTIFICATE: Final = "CERTIFICATE"
_PRIVATE_KEY: Final = "PRIVATE KEY"
_OPENSSH_PRIVATE_KEY: Final = "OPENSSH PRIVATE KEY"


@dataclass(frozen=True, slots=True)
class Block:
    """One complete block of a PEM file.

    Attributes:
        label: What it says it holds, such as `CERTIFICATE`.
        text: The whole block, with both markers.
        body: What stands between the markers.
    """

    label: str
    text: bytes
    body: bytes

    def __repr__(self) -> str:
        return f"Block(label={self.label!r})"

    @property
    def is_certificate(self) -> bool:
        """Whether it says that it holds a certificate."""
        return self.label == _CERTIFICATE

    @property
    def is_private_key(self) -> bool:
        """Whether it says that it holds a private key, of whatever kind."""
        return self.label.endswith(_PRIVATE_KEY)


def load_certificates(data: bytes, source: Path) -> tuple[x509.Certificate, ...]:
    """Read every certificate in `data`, in order; blocks of other kinds are skipped.

    Args:
        data: The content of a PEM file.
        source: Where it came from, for the error's text.

    Raises:
        IdentityError: With `Code.IDENTITY_MALFORMED` when there is none, when the data ends inside
            a block, or when a certificate is damaged.
    """
    blocks = complete_blocks(data, source)
    certificates = [block for block in blocks if block.is_certificate]
    if not certificates:
        raise _holds_no("certificate", data, blocks, source)
    return tuple(parse_certificate(block, source) for block in certificates)


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
    blocks = complete_blocks(data, source)
    for block in blocks:
        if block.is_private_key:
            return parse_private_key(block, source)
    raise _holds_no("private key", data, blocks, source)


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


def complete_blocks(data: bytes, source: Path) -> list[Block]:
    """The blocks of a PEM file, in order, up to the leftover of an older file, if there is one.

    Raises:
        IdentityError: With `Code.IDENTITY_MALFORMED` when the file is empty, or ends inside a
            block or just before one.
    """
    if not data.strip():
        raise _malformed(source, "is empty")
    blocks = list(_split(data, source))
    if _ends_before_block(data):
        raise _malformed(source, "is truncated")
    return blocks


def _split(data: bytes, source: Path) -> Iterator[Block]:
    begin: re.Match[bytes] | None = None
    for marker in _MARKER.finditer(data):
        if marker[1] == b"BEGIN":
            if begin is not None:
                raise _malformed(source, "has a block that does not end")
            begin = marker
        elif begin is None:
            return
        elif marker[2] != begin[2]:
            raise _malformed(source, "has a block that ends as another kind than it began")
        else:
            text = data[begin.start() : marker.end()]
            yield Block(begin[2].decode(), text, data[begin.end() : marker.start()])
            begin = None
    if begin is not None:
        raise _malformed(source, "is truncated")


def _ends_before_block(data: bytes) -> bool:
    """Whether the last line is a separator, or the start of a block's first line."""
    line = data.rpartition(b"\n")[2]
    rest = line.removeprefix(_SEPARATOR)
    if not line or _MARKER.match(rest):
        return False
    return _BEGIN.startswith(rest) or rest.startswith(_BEGIN)


def _holds_no(what: str, data: bytes, blocks: Sequence[Block], source: Path) -> IdentityError:
    """The error about a file without what it is for, with a hint at what it is."""
    if data.startswith(_DER_SEQUENCE):
        return _malformed(source, f"holds no {what} in PEM: it is DER, a binary form")
    labels = ", ".join(sorted({block.label for block in blocks}))
    return _malformed(source, f"holds no {what}" + (f", only {labels}" if labels else ""))


def parse_certificate(block: Block, source: Path) -> x509.Certificate:
    """The certificate in `block`.

    Raises:
        IdentityError: With `Code.IDENTITY_MALFORMED` when it is damaged.
    """
    der = _decode(block, source)
    try:
        return _whole_certificate(der)
    except (ValueError, TypeError, x509.InvalidVersion) as error:
        raise _malformed(source, f"holds a damaged certificate: {error}") from error


@lru_cache(maxsize=_MOST_CERTIFICATES)
def _whole_certificate(der: bytes) -> x509.Certificate:
    """The certificate of these very bytes; authorities stay the same at nearly every renewal."""
    certificate = x509.load_der_x509_certificate(der)
    _read_lazy_fields(certificate)
    return certificate


def _read_lazy_fields(certificate: x509.Certificate) -> None:
    """Make a certificate that cryptography would reject only later fail now."""
    read_subject(certificate)
    read_issuer(certificate)
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc


def parse_private_key(block: Block, source: Path) -> PrivateKey:
    """The private key in `block`.

    Raises:
        IdentityError: With `Code.IDENTITY_MALFORMED`, as `load_private_key`.
    """
    try:
        key = _load_private_key(block, _decode(block, source))
    except TypeError:
        raise _malformed(source, "holds an encrypted private key") from None
    except (ValueError, UnsupportedAlgorithm):
        # The cause is left out: what the parsers quote is not ours to promise.
        raise _malformed(source, "holds a damaged private key") from None
    if not isinstance(key, PrivateKey):
        raise _malformed(source, "holds a private key that is not RSA, ECDSA or Ed25519")
    return key


def _load_private_key(block: Block, der: bytes) -> object:
    """Load without testing that RSA's primes are prime, which takes most of a reload's time.

    Whether the numbers belong together is checked here, so that no torn key gets by.
    """
    if block.label == _OPENSSH_PRIVATE_KEY:
        text = block.text + b"\n"
        key: object = load_ssh_private_key(text, None, unsafe_skip_rsa_key_validation=True)
    else:
        key = load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    if isinstance(key, RSAPrivateKey):
        _check_rsa(key)
    return key


def _check_rsa(key: RSAPrivateKey) -> None:
    """Check the equations between a key's numbers (RFC 8017, 3.2)."""
    numbers = key.private_numbers()
    p, q, d = numbers.p, numbers.q, numbers.d
    public = numbers.public_numbers
    right = (
        min(p, q, d, numbers.dmp1, numbers.dmq1, numbers.iqmp) > 1
        and p * q == public.n
        and numbers.dmp1 == d % (p - 1)
        and numbers.dmq1 == d % (q - 1)
        and public.e * numbers.dmp1 % (p - 1) == 1
        and public.e * numbers.dmq1 % (q - 1) == 1
        and numbers.iqmp * q % p == 1
    )
    if not right:
        raise ValueError("the numbers of the RSA key do not belong together")


def _decode(block: Block, source: Path) -> bytes:
    if b":" in block.body:
        raise _malformed(source, "holds a block with headers, as only encrypted keys have them")
    try:
        return base64.b64decode(b"".join(block.body.split()), validate=True)
    except binascii.Error:
        raise _malformed(source, "holds a block that is not base64") from None


def _malformed(source: Path, what: str) -> IdentityError:
    return IdentityError(Code.IDENTITY_MALFORMED, f"{source} {what}")
