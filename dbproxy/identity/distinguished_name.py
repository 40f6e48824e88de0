"""The names in a certificate, as object identifiers and text.

The problem: Teleport keeps a whole identity in the subject, with values that no standard foresees,
and Go enforces no limits. `cryptography` reads such names, but warns through `warnings` when a
common name is empty or has more than 64 characters (RFC 5280, appendix A.1), which a bot's may.

The choice: a name is a list of pairs, so reading one takes a few lines of DER (ITU-T X.690, 8 and
10.1). Only what is text is taken; anything else makes the certificate unusable, early. Old
authorities, which are in the bundles of systems, have TeletexString; as by OpenSSL and Go, it is
read as Latin-1.
"""

from collections.abc import Iterator
from typing import Final

from cryptography import x509

__all__ = ["Attributes", "read_issuer", "read_subject"]

Attributes = tuple[tuple[str, str], ...]
"""Dotted object identifiers and values, in the order of the name."""

_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_OBJECT_IDENTIFIER: Final = 0x06
_VERSION: Final = 0xA0
_ENCODINGS: Final = {
    0x0C: "utf-8",  # UTF8String
    0x12: "ascii",  # NumericString
    0x13: "utf-8",  # PrintableString; not every writer keeps to its characters
    0x14: "latin-1",  # TeletexString
    0x16: "ascii",  # IA5String
    0x1A: "ascii",  # VisibleString
    0x1E: "utf-16-be",  # BMPString
}
_ISSUER, _SUBJECT = 2, 4
"""Positions in TBSCertificate after its optional version (RFC 5280, 4.1)."""


def read_subject(certificate: x509.Certificate) -> Attributes:
    """The subject's attributes.

    Raises:
        ValueError: The name is not well-formed, or a value is not text.
    """
    return _read_name(certificate, _SUBJECT)


def read_issuer(certificate: x509.Certificate) -> Attributes:
    """The issuer's attributes.

    Raises:
        ValueError: As `read_subject`.
    """
    return _read_name(certificate, _ISSUER)


def _read_name(certificate: x509.Certificate, position: int) -> Attributes:
    ((_, body),) = _elements(certificate.tbs_certificate_bytes)
    fields = [(tag, content) for tag, content in _elements(body) if tag != _VERSION]
    name = _expect(_SEQUENCE, fields[position])
    return tuple(_attributes(name))


def _attributes(name: bytes) -> Iterator[tuple[str, str]]:
    for relative_name in _elements(name):
        for attribute in _elements(_expect(_SET, relative_name)):
            pair = list(_elements(_expect(_SEQUENCE, attribute)))
            if len(pair) != 2:
                raise ValueError("an attribute of the name is not a pair")
            oid = _dotted(_expect(_OBJECT_IDENTIFIER, pair[0]))
            yield oid, _text(oid, *pair[1])


def _text(oid: str, tag: int, content: bytes) -> str:
    encoding = _ENCODINGS.get(tag)
    if encoding is None:
        raise ValueError(f"the attribute {oid} of the name is not text")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise ValueError(f"the attribute {oid} of the name is not valid text") from None


def _expect(tag: int, element: tuple[int, bytes]) -> bytes:
    if element[0] != tag:
        raise ValueError("the name is not built as names are")
    return element[1]


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each element's tag, which fits one byte in certificates, and its content."""
    offset = 0
    while offset < len(data):
        length, begin = _length(data, offset + 1)
        end = begin + length
        if end > len(data):
            raise ValueError("an element is longer than what it is in")
        yield data[offset], data[begin:end]
        offset = end


def _length(data: bytes, offset: int) -> tuple[int, int]:
    """The length at `offset`, and where the content begins."""
    first = data[offset] if offset < len(data) else 0x80
    if first < 0x80:
        return first, offset + 1
    end = offset + 1 + (first & 0x7F)
    if first in (0x80, 0xFF) or end > len(data):
        raise ValueError("an element has no valid length")
    return int.from_bytes(data[offset + 1 : end], "big"), end


def _dotted(content: bytes) -> str:
    if not content or content[-1] & 0x80:
        raise ValueError("an object identifier is not complete")
    numbers = [0]
    for byte in content:
        numbers[-1] = numbers[-1] << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(0)
    first, *rest = numbers[:-1]
    top = min(first // 40, 2)
    return ".".join(map(str, (top, first - 40 * top, *rest)))
