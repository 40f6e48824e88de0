"""Layers over pyOpenSSL, with as little configuration as a test needs."""

from collections.abc import Sequence

from cryptography import x509
from OpenSSL import SSL, crypto
from tls_peers import Credentials

from dbproxy.layers import TLSLayer

VERSION_1_2, VERSION_1_3 = SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION


def client_layer(
    *,
    credentials: Credentials | None = None,
    version: int = VERSION_1_3,
    suite: str | None = None,
) -> TLSLayer:
    """A client that trusts anybody; with `suite` it knows one of TLS 1.3's only."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(version)
    if suite is not None:
        context.set_tls13_ciphersuites(suite.encode())
    if credentials is not None:
        credentials.use_in(context)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    return TLSLayer(connection)


def server_layer(
    credentials: Credentials,
    *,
    wants_certificate: bool = False,
    chain: Sequence[x509.Certificate] = (),
) -> TLSLayer:
    """A server; it takes any client certificate when it wants one."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_options(SSL.OP_NO_TICKET)
    credentials.use_in(context)
    for certificate in chain:
        context.add_extra_chain_cert(certificate)
    if wants_certificate:
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _trust_anybody)
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    return TLSLayer(connection)


def _trust_anybody(
    _connection: SSL.Connection, _certificate: crypto.X509, _error: int, _depth: int, _ok: int
) -> bool:
    return True
