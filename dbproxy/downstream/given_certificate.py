"""The server certificate that the operator gave: `--server-cert` and `--server-key`.

Two things must be said to clients so that they verify it: what to trust, and by which name to call
us. A client builds the chain up to a self-signed certificate that it trusts; libpq does not take
any other certificate for an anchor (OpenSSL does so only with X509_V_FLAG_PARTIAL_CHAIN). So the
file given is named to clients only when it has such a root; otherwise the roots are the client's.
"""

from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from dbproxy.downstream.local_authority import ServerCertificate
from dbproxy.identity import read_key_pair

__all__ = ["given_server_certificate"]

_USUAL_NAME: Final = "localhost"


def given_server_certificate(certificate: Path, key: Path) -> ServerCertificate:
    """The operator's certificate and key, and what clients must be told about them.

    Raises:
        ConfigError: `file-unusable`: one cannot be used, or they do not belong together.
    """
    leaf, chain, private_key = read_key_pair(certificate, key)
    ca_file = certificate if _leads_to_a_root(leaf, chain) else None
    return ServerCertificate(leaf, chain, private_key, ca_file, host=_name_for_clients(leaf))


def _leads_to_a_root(leaf: x509.Certificate, chain: tuple[x509.Certificate, ...]) -> bool:
    """Whether a self-signed certificate is at the end, or the leaf is one itself."""
    left = [*chain]
    last = leaf
    while not _issued(last, last):
        issuer = next((candidate for candidate in left if _issued(candidate, last)), None)
        if issuer is None:
            return False
        left.remove(issuer)
        last = issuer
    return True


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _name_for_clients(leaf: x509.Certificate) -> str:
    """A name that the certificate is for: `localhost` if it is, since that leads here too."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return _USUAL_NAME
    dns_names = names.get_values_for_type(x509.DNSName)
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    if _USUAL_NAME in dns_names:
        return _USUAL_NAME
    # A wildcard stands for any one label (RFC 6125 §6.4.3).
    fitting = [*(name.replace("*", "dbproxy") for name in dns_names), *addresses]
    return fitting[0] if fitting else _USUAL_NAME
