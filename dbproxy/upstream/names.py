"""The names that a server's certificate may be for, by RFC 6125, with service-identity.

Only subject alternative names count. A common name alone never does, whatever it says: RFC 6125
§6.4.4 allows it as a last resort, and Go, browsers and Teleport's own tools do not.
"""

from collections.abc import Sequence
from ipaddress import ip_address

from cryptography import x509
from service_identity import VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.exceptions import CertificateError
from service_identity.hazmat import DNS_ID, IPAddress_ID, ServiceID, verify_service_identity

from dbproxy.errors import UsageError

__all__ = ["ServerNames", "names_of", "parse_server_name", "server_name_indication"]


class ServerNames:
    """What a certificate must be for: one of these names or IP addresses.

    Args:
        hosts: The names, the one that people know first.

    Raises:
        ValueError: One of them is neither a name nor an address.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = tuple(dict.fromkeys(hosts))
        self._wanted = [_wanted(host) for host in self._hosts]

    def __str__(self) -> str:
        return " or ".join(self._hosts)

    def match(self, leaf: x509.Certificate) -> bool:
        """Whether the certificate is for one of them; a malformed one raises ValueError."""
        return any(_is_for(leaf, wanted) for wanted in self._wanted)


def _wanted(host: str) -> ServiceID:
    try:
        return IPAddress_ID(str(ip_address(host)))
    except ValueError:
        return DNS_ID(host)


def _is_for(leaf: x509.Certificate, wanted: ServiceID) -> bool:
    try:
        verify_service_identity(extract_patterns(leaf), [wanted], [])
    except (VerificationError, CertificateError):
        return False
    return True


def names_of(leaf: x509.Certificate) -> list[str]:
    """The DNS names and IP addresses that the certificate is for."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]


def server_name_indication(host: str) -> bytes | None:
    """What a ClientHello says that it is looking for; None for an IP address (RFC 6066 §3)."""
    try:
        ip_address(host)
    except ValueError:
        return host.encode("idna")
    return None


def parse_server_name(text: str) -> str:
    """The name or IP address of `--server-name`.

    Raises:
        UsageError: It is neither.
    """
    name = text.strip().removesuffix(".")
    try:
        _wanted(name)
        server_name_indication(name)
    except ValueError as error:
        raise UsageError(
            f"--server-name: {text!r} is neither a host name nor an IP address",
            next_step="Give the name that the Teleport Proxy's certificate is for.",
        ) from error
    return name
