"""The combined identity file: key, certificate and authorities in one (api/identityfile).

A PEM private key, an SSH certificate as one line, the TLS certificate, then SSH authorities as
lines that start with `@cert-authority`, and the certificates of the Host CA. PEM blocks are told
apart by their order; every other line is for SSH, and skipped here.
"""

from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from dbproxy.errors import Code, IdentityError
from dbproxy.identity.pem import PrivateKey, complete_blocks, parse_certificate, parse_private_key

__all__ = ["IdentityFile", "parse_identity_file"]


@dataclass(frozen=True, slots=True, eq=False)
class IdentityFile:
    """What an identity file holds for TLS.

    Attributes:
        certificate: The client certificate.
        private_key: Its key.
        host_cas: The Host CA's certificates; at least one.
    """

    certificate: x509.Certificate
    private_key: PrivateKey = field(repr=False)
    host_cas: tuple[x509.Certificate, ...]


def parse_identity_file(data: bytes, source: Path) -> IdentityFile:
    """Read an identity file, which must be complete.

    Args:
        data: Its content.
        source: Where it came from, for the error's text.

    Raises:
        IdentityError: With `Code.IDENTITY_MALFORMED` when a block does not end, is missing, is of
            another kind than its place asks for, or is damaged. The error holds no byte of the key.
    """
    blocks = complete_blocks(data, source)
    key, rest = blocks[:1], blocks[1:]
    if not key or not key[0].is_private_key:
        raise _malformed(source, "does not begin with a private key, as an identity file does")
    if not rest:
        raise _malformed(source, "ends before the certificate")
    if not all(block.is_certificate for block in rest):
        raise _malformed(source, "holds something else than certificates after its private key")
    certificate, *authorities = (parse_certificate(block, source) for block in rest)
    if not authorities:
        raise _malformed(source, "ends before the Host CA's certificates")
    return IdentityFile(
        certificate=certificate,
        private_key=parse_private_key(key[0], source),
        host_cas=tuple(authorities),
    )


def _malformed(source: Path, what: str) -> IdentityError:
    return IdentityError(Code.IDENTITY_MALFORMED, f"{source} {what}")
