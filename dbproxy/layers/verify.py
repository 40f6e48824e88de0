"""What OpenSSL found wrong with a peer's certificate, in words."""

from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import crypto

__all__ = ["MALFORMED_CERTIFICATE", "describe_verify_error"]

MALFORMED_CERTIFICATE: Final = (
    TypeError,  # a bit string where text belongs
    ValueError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises for certificates of a peer that OpenSSL has let through."""

# X509_V_ERR_* of OpenSSL's include/openssl/x509_vfy.h, in words that help.
_VERIFY_ERRORS: Final = {
    2: "was issued by an authority that is not known",
    7: "is not signed by the authority that it names",
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed",
    19: "is self-signed and not a trusted authority",
    20: "was issued by an authority that is not trusted",
    21: "was issued by an authority that is not trusted (the intermediate certificate is missing)",
    26: "is not meant for this end of a TLS connection (its extended key usage)",
    66: "has a key that is too weak",
    67: "has a key that is too weak",
    68: "is signed with a hash that is too weak",
    79: "may not issue certificates",
}


def describe_verify_error(number: int, depth: int, certificate: crypto.X509) -> str:
    """The end of a sentence that begins with "the certificate".

    Args:
        number: OpenSSL's X509_V_ERR_*.
        depth: Where in the chain: 0 is the peer's own certificate.
        certificate: The one at that depth.
    """
    what = _VERIFY_ERRORS.get(number, f"does not verify (X509_V_ERR {number})")
    whose = f"({_common_name(certificate)})"
    if depth == 0:
        return f"{whose} {what}"
    which = "its issuer" if depth == 1 else f"the issuer at depth {depth}"
    return f"does not verify: {which} {whose} {what}"


def _common_name(certificate: crypto.X509) -> str:
    try:
        names = certificate.to_cryptography().subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except MALFORMED_CERTIFICATE:
        return "malformed"
    return f"CN={names[0].value!s}" if names else "without a common name"
