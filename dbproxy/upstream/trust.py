"""Whom we trust to be the Teleport Proxy, and who we say we are.

The outer TLS connection normally ends at the Proxy's *web* certificate, which a public authority
has signed; in some small clusters it is one of the cluster's Host CA. So the roots are the system's
(or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`), the ones given with `--proxy-ca`, and the Host CA
that tbot wrote.

Chain and name are judged during the handshake: a server that fails sees neither our certificate
nor a byte of the client's. The name rules are those of RFC 6125, by the library service-identity.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.exceptions import CertificateError
from service_identity.hazmat import DNS_ID, IPAddress_ID, ServiceID, verify_service_identity

from dbproxy.identity import Identity
from dbproxy.layers import MALFORMED_CERTIFICATE, describe_verify_error

__all__ = ["ServerJudgement", "UpstreamTrust"]


@dataclass(slots=True)
class ServerJudgement:
    """What was found wrong with the server's certificate during one handshake.

    Attributes:
        host: The name or IP address that it must be for.
        complaint: The first thing wrong, as the end of a sentence, or None.
    """

    host: str
    complaint: str | None = None
    _names: list[ServiceID] = field(init=False)

    def __post_init__(self) -> None:
        self._names = [_wanted_name(self.host)]

    def note_verify_error(self, number: int, depth: int, certificate: crypto.X509) -> None:
        """Keep the first failure of chain building."""
        if self.complaint is None:
            self.complaint = describe_verify_error(number, depth, certificate)

    def check_name(self, certificate: crypto.X509) -> bool:
        """Whether the certificate is for the host; what is wrong is kept."""
        try:
            self.complaint = self._name_complaint(certificate.to_cryptography())
        except MALFORMED_CERTIFICATE as error:
            self.complaint = f"is malformed: {error}"
        return self.complaint is None

    def _name_complaint(self, leaf: x509.Certificate) -> str | None:
        try:
            verify_service_identity(extract_patterns(leaf), self._names, [])
        except (VerificationError, CertificateError):
            return f"is for {_names_of(leaf)}, not for {self.host}"
        return None


def _wanted_name(host: str) -> ServiceID:
    try:
        return IPAddress_ID(str(ip_address(host)))
    except ValueError:
        return DNS_ID(host)


def _names_of(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return "no name at all"
    known = [str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]
    return ", ".join(known) or "no name at all"


class UpstreamTrust:
    """Makes the TLS contexts for connections to the Teleport Proxy.

    A context is made once for each generation of the identity and each set of roots, with and
    without the identity's certificate.

    Args:
        extra_roots: More authorities to trust, or what returns them; asked for each connection.
        insecure: Trust any server.
    """

    def __init__(
        self,
        extra_roots: Sequence[x509.Certificate] | Callable[[], Sequence[x509.Certificate]] = (),
        *,
        insecure: bool = False,
    ) -> None:
        self._extra_roots = extra_roots if callable(extra_roots) else lambda: extra_roots
        self._insecure = insecure
        self._made_for: tuple[int, Sequence[x509.Certificate]] = (0, ())
        self._contexts: dict[bool, SSL.Context] = {}

    def connection(
        self, host: str, alpn: Sequence[str], identity: Identity, *, authenticate: bool
    ) -> tuple[SSL.Connection, ServerJudgement]:
        """A new client connection without a socket, and the judgement it will fill in.

        Args:
            host: The name or address that the server's certificate must be for; also the SNI.
            alpn: What to offer, the preferred value first.
            identity: Whose Host CA is trusted and whose certificate may be presented.
            authenticate: Whether to present that certificate.
        """
        connection = SSL.Connection(self._context(identity, authenticate), None)
        connection.set_alpn_protos([value.encode() for value in alpn])
        if not _is_ip_address(host):  # RFC 6066 §3 allows names only
            connection.set_tlsext_host_name(host.encode("idna"))
        judgement = ServerJudgement(host)
        connection.set_app_data(judgement)
        connection.set_connect_state()
        return connection, judgement

    def _context(self, identity: Identity, authenticate: bool) -> SSL.Context:
        roots = self._extra_roots()
        generation, present_roots = self._made_for
        if identity.generation != generation or roots is not present_roots:
            self._contexts.clear()
            self._made_for = (identity.generation, roots)
        if authenticate not in self._contexts:
            self._contexts[authenticate] = self._new_context(identity, roots, authenticate)
        return self._contexts[authenticate]

    def _new_context(
        self, identity: Identity, roots: Sequence[x509.Certificate], authenticate: bool
    ) -> SSL.Context:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        if authenticate:
            context.use_certificate(identity.certificate)
            context.use_privatekey(identity.private_key)
        if self._insecure:
            context.set_verify(SSL.VERIFY_NONE)
            return context
        context.set_default_verify_paths()
        store = context.get_cert_store()
        assert store is not None  # noqa: S101 - a context always has one
        # Whatever is named is an anchor, also an intermediate or the server's own certificate, as
        # for Teleport's own tools (Go, crypto/x509/verify.go: a chain ends at any of the roots).
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        for root in (*roots, *identity.host_cas):
            store.add_cert(crypto.X509.from_cryptography(root))
        context.set_verify(SSL.VERIFY_PEER, _verify)
        return context


def _verify(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
) -> bool:
    judgement = connection.get_app_data()
    assert isinstance(judgement, ServerJudgement)  # noqa: S101 - set for each connection above
    if not ok:
        judgement.note_verify_error(error, depth, certificate)
        return False
    return depth > 0 or judgement.check_name(certificate)


def _is_ip_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
