"""As a client in passthrough: a TLS handshake with the Teleport Proxy, inside of the connection.

What the server shows is looked at, not verified: which of the files in the destination verifies it
is the question. The client certificate is judged as on any connection, and with TLS 1.3 only after
the handshake, so reading tells.
"""

from dataclasses import dataclass

import trio
from cryptography import x509
from OpenSSL import SSL

from dbproxy.errors import UpstreamError
from dbproxy.identity import Identity
from dbproxy.layers import LayerError, TLSLayer
from dbproxy.protocols import UpstreamGreeting
from dbproxy.upstream import (
    UpstreamConnection,
    ask_for_tls,
    check_not_rejected,
    explain_early_end,
    too_slow,
)

__all__ = ["InnerServer", "shake_hands_inside"]


@dataclass(frozen=True, slots=True)
class InnerServer:
    """What a client in passthrough meets.

    Attributes:
        certificate: What the server shows.
        rejection: Why it does not take the client certificate, if it does not.
    """

    certificate: x509.Certificate
    rejection: UpstreamError | None = None


async def shake_hands_inside(
    upstream: UpstreamConnection, greeting: UpstreamGreeting, identity: Identity, limit: float
) -> InnerServer:
    """Ask for TLS, complete the handshake, and wait for a rejection.

    The connection stays the caller's to close.

    Args:
        upstream: A connection without a client certificate.
        greeting: How the database protocol asks for TLS.
        identity: Whose certificate to present.
        limit: Seconds for the answer, and again for the handshake.

    Raises:
        UpstreamError: The server has shown no certificate; what went wrong, by its code.
    """
    await ask_for_tls(upstream.stream, upstream.address, greeting, limit=limit)
    connection = _connection(identity)
    rejection = None
    try:
        await _shake_hands(upstream, TLSLayer(connection), limit)
        await check_not_rejected(upstream)
    except UpstreamError as error:
        rejection = error
    certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is not None:
        return InnerServer(certificate, rejection)
    raise rejection or explain_early_end(upstream.address, None)


async def _shake_hands(upstream: UpstreamConnection, tls: TLSLayer, limit: float) -> None:
    try:
        with trio.fail_after(limit):
            await upstream.stream.add_layer(tls)
    except trio.TooSlowError as error:
        raise too_slow("TLS handshake of a client", upstream.address, limit) from error
    except (trio.BrokenResourceError, LayerError) as error:
        raise explain_early_end(upstream.address, error) from error


def _connection(identity: Identity) -> SSL.Connection:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.use_certificate(identity.certificate)
    context.use_privatekey(identity.private_key)
    connection = SSL.Connection(context, None)
    connection.set_tlsext_host_name(b"localhost")  # as clients of our listener call it
    connection.set_connect_state()
    return connection
