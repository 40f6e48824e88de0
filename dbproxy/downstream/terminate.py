"""Letting a client in when its TLS ends here: `--terminate`.

The client must hold the key of a certificate that leads to this service: one that chains to the
cluster's User CA, or a certificate of the destination, of whichever generation. It must be valid
now and carry the same service in its route.

The handshake itself accepts any certificate, or none. Only so can the refusal follow inside TLS, in
the database's own protocol, where the client prints it; nothing is forwarded before the check.
TLS sessions are not resumed, because a resumed session would skip the check.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from dbproxy.downstream.client import Client
from dbproxy.downstream.local_authority import ServerCertificate
from dbproxy.errors import ClientError, Code, IdentityError
from dbproxy.identity import Identity, IdentityStore, parse_subject
from dbproxy.layers import (
    MALFORMED_CERTIFICATE,
    TDSHandshakeLayer,
    TLSLayer,
    describe_verify_error,
)
from dbproxy.layers.openssl import forget_errors
from dbproxy.protocols import Carry, DatabaseProtocol, Greeting, StartTLS
from dbproxy.settings import Mode

__all__ = ["TerminatingAdmission"]


@dataclass(slots=True)
class _ClientJudgement:
    """What OpenSSL found wrong with the client's chain; None when it leads to the User CA."""

    complaint: str | None = None


class TerminatingAdmission:
    """Ends the client's TLS and checks its certificate.

    Args:
        protocol: The database protocol.
        server_certificate: What the listener shows.
        store: Whose User CA and certificates a client's certificate is compared with.
        clock: The time, for certificates that are compared byte by byte.
    """

    def __init__(
        self,
        protocol: DatabaseProtocol,
        server_certificate: ServerCertificate,
        store: IdentityStore,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._protocol = protocol
        self._server_certificate = server_certificate
        self._store = store
        self._clock = clock
        self._generation = 0
        self._contexts: dict[int, SSL.Context] = {}  # by their newest TLS version

    async def admit(self, client: Client, greeting: Greeting | None = None) -> Carry:
        """End TLS, read the first message inside, then judge the certificate.

        The first message is read even from a client that will be refused: a database client reads
        an answer only after it has asked.
        """
        first_words = greeting or self._protocol
        event = await client.read_prologue(first_words.prologue(Mode.TERMINATE))
        if isinstance(event, Carry):
            return event  # a cancel request, which clients send without TLS
        identity = await self._store.fresh()
        # In TDS packets TLS 1.3 would have no end of the handshake that both sides see: SQL Server
        # does not do it there either ([MS-TDS] 2.1).
        newest = SSL.TLS1_2_VERSION if event.in_tds_packets else SSL.TLS1_3_VERSION
        connection, judgement = self._accept(identity, newest)
        packing = TDSHandshakeLayer() if event.in_tds_packets else None
        await client.start_tls(TLSLayer(connection), event.received, packing)
        inside = await client.read_prologue(first_words.prologue(Mode.TERMINATE, inside_tls=True))
        await self._judge(_shown_certificate(connection), judgement)
        if isinstance(inside, StartTLS):
            raise ClientError(Code.CLIENT_PROTOCOL_ERROR, "the client began TLS inside TLS")
        return inside

    def _accept(self, identity: Identity, newest: int) -> tuple[SSL.Connection, _ClientJudgement]:
        if self._generation != identity.generation:
            self._generation, self._contexts = identity.generation, {}
        if newest not in self._contexts:
            self._contexts[newest] = self._new_context(identity, newest)
        connection = SSL.Connection(self._contexts[newest], None)
        judgement = _ClientJudgement()
        connection.set_app_data(judgement)
        connection.set_accept_state()
        return connection, judgement

    def _new_context(self, identity: Identity, newest: int) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_max_proto_version(newest)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION)
        context.use_certificate(self._server_certificate.certificate)
        context.use_privatekey(self._server_certificate.private_key)
        for intermediate in self._server_certificate.chain:
            context.add_extra_chain_cert(intermediate)
        self._trust(context, identity.user_cas)
        context.set_verify(SSL.VERIFY_PEER, _note_complaint)
        if (wanted := self._protocol.server_alpn()) is not None:
            context.set_alpn_select_callback(
                lambda _, offered: wanted if wanted in offered else SSL.NO_OVERLAPPING_PROTOCOLS
            )
        return context

    def _trust(self, context: SSL.Context, authorities: Sequence[x509.Certificate]) -> None:
        store = context.get_cert_store()
        assert store is not None  # noqa: S101 - a context always has one
        for authority in authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
            # Some clients choose their certificate by the authorities that the server names.
            context.add_client_ca(authority)

    async def _judge(
        self, certificate: x509.Certificate | None, judgement: _ClientJudgement
    ) -> None:
        if certificate is None:
            raise ClientError(
                Code.CLIENT_CERTIFICATE_MISSING,
                "the client showed no certificate, and this port is for holders of the tbot"
                " certificate",
            )
        if judgement.complaint is not None and not await self._is_known(certificate):
            raise ClientError(
                Code.CLIENT_CERTIFICATE_REJECTED,
                f"the client's certificate {judgement.complaint}",
            )
        self._check_validity(certificate)
        self._check_service(certificate)

    async def _is_known(self, certificate: x509.Certificate) -> bool:
        """Whether it is the destination's certificate, or was it before.

        A client may hold a newer one than we do, for a moment: it has read the files while tbot was
        still writing. During a CA rotation only the files that come last make that one trusted.
        """
        shown = certificate.public_bytes(Encoding.DER)
        if not self._store.has_held(shown):
            await self._store.settled()
        return self._store.has_held(shown)

    def _check_validity(self, certificate: x509.Certificate) -> None:
        now = self._clock()
        if certificate.public_bytes(Encoding.DER) == self._store.current.certificate_der:
            # The client shows what it was told to: that it has expired is not the client's fault.
            self._store.current.check_validity(now)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise ClientError(
                Code.CLIENT_CERTIFICATE_REJECTED,
                "the client's certificate is not valid now: it is valid from"
                f" {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} to"
                f" {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC",
            )

    def _check_service(self, certificate: x509.Certificate) -> None:
        service = self._store.current.route.service
        try:
            route = parse_subject(certificate).route
        except IdentityError as error:
            raise ClientError(Code.CLIENT_CERTIFICATE_REJECTED, error.message) from error
        if route is None or route.service != service:
            shown = "no database service" if route is None else f"the service {route.service!r}"
            raise ClientError(
                Code.CLIENT_CERTIFICATE_WRONG_SERVICE,
                f"the client's certificate is for {shown}, and this port is for {service!r}",
            )


def _shown_certificate(connection: SSL.Connection) -> x509.Certificate | None:
    try:
        return connection.get_peer_certificate(as_cryptography=True)
    except MALFORMED_CERTIFICATE as error:
        raise ClientError(
            Code.CLIENT_CERTIFICATE_REJECTED, f"the client's certificate is malformed: {error}"
        ) from error


def _note_complaint(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
) -> bool:
    judgement = connection.get_app_data()
    assert isinstance(judgement, _ClientJudgement)  # noqa: S101 - set for each connection above
    if not ok:
        if judgement.complaint is None:
            judgement.complaint = describe_verify_error(error, depth, certificate)
        forget_errors()
    return True
