"""What there is to see on the way to the Teleport Proxy, looked at once.

Here, and nowhere else in this package, connections are opened. Each look is bounded by the
time-outs of the settings, goes the way that database connections go, and ends in a value: what was
seen, or the error that says why not. A look that needs another one's result comes after it; the
others are taken at the same time.

The authenticated look reads after the handshake, because with TLS 1.3 a server that rejects our
certificate says so only then. It sends nothing: Teleport opens no session, and a server that is
content waits for the first message.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import trio
from cryptography import x509
from OpenSSL import SSL

from dbproxy.errors import DBProxyError, IdentityError, UpstreamError
from dbproxy.identity import Identity, TbotConfig
from dbproxy.identity.assemble import is_issued_by_one_of
from dbproxy.layers import LayerError, TLSLayer
from dbproxy.protocols import DatabaseProtocol, UpstreamGreeting, protocol_named
from dbproxy.relay import LayeredStream
from dbproxy.settings import Mode, Settings
from dbproxy.upstream import (
    ConfiguredAddress,
    ProxyAddress,
    SecureDialer,
    UpstreamConnection,
    UpstreamDialer,
    WebFetcher,
    explain_early_end,
    reasons_of,
)
from dbproxy.upstream.first_answer import NoAnswer
from dbproxy.upstream.outbound_proxy import OutboundProxy
from dbproxy.upstream.upgrade_need import UpgradeNeed
from dbproxy.upstream.webapi import (
    FIND_PATH,
    AnswerError,
    ClusterFacts,
    FetchedAnswer,
    parse_find,
    web_address,
)
from dbproxy.wiring import (
    make_secure_dialer,
    make_trust,
    make_upstream_dialer,
    proxy_address,
)

__all__ = ["Session", "TCPAttempt", "UpstreamEvidence", "WebCertificate", "look_upstream"]

PATIENCE: Final = 1.0
"""Seconds that a server has to reject our certificate after the handshake."""


@dataclass(frozen=True, slots=True)
class TCPAttempt:
    """A connection to one address, without TLS.

    Attributes:
        address: The IP address.
        seconds: How long it took; `None` when there was none.
        problem: Why there was none.
    """

    address: str
    seconds: float | None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebCertificate:
    """What the server on the web port has shown.

    Attributes:
        certificate: Its own certificate.
        trusted_by: What it is trusted by, in words.
        tls_version: Such as `TLSv1.3`.
    """

    certificate: x509.Certificate
    trusted_by: str
    tls_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A connection as for a database.

    Attributes:
        alpn: What was negotiated.
        tls_version: Such as `TLSv1.3`.
        upgraded: Whether it went through a connection upgrade.
        seconds: How long dialling took.
    """

    alpn: str
    tls_version: str
    upgraded: bool
    seconds: float


@dataclass(slots=True, kw_only=True)
class UpstreamEvidence:
    """What there is to judge. `None` means: was not looked at, because of something before it.

    Attributes:
        identity: What tbot wrote, if it can be used.
        configured: The address that the operator gave.
        configured_problem: Why there is none.
        outbound: The outbound proxy on the way, if there is one.
        names: The IP addresses that the name leads to: of the outbound proxy where there is one.
        names_problem: Why it leads nowhere.
        attempts: A TCP connection to each of them.
        web: The certificate on the web port.
        web_problem: Why there is no TLS connection to it.
        facts: What the Teleport Proxy says about itself.
        facts_problem: Why it does not.
        published: The address that it wants to be reached at.
        server_time: What its clock says.
        asked_at: What ours said then.
        upgrade: Whether an upgrade is needed, and why.
        session: An authenticated connection that was not rejected.
        session_problem: Why there is none.
        verified_by: Which authorities in the destination have signed what the Teleport Proxy shows
            to a client whose TLS ends there (`passthrough`): `host`, `database`.
        verified_problem: Why that could not be seen.
        mode: The mode that was asked about.
    """

    identity: Identity | None
    mode: Mode
    configured: ConfiguredAddress | None = None
    configured_problem: DBProxyError | None = None
    outbound: OutboundProxy | None = None
    names: tuple[str, ...] = ()
    names_problem: str | None = None
    attempts: list[TCPAttempt] = field(default_factory=list)
    web: WebCertificate | None = None
    web_problem: UpstreamError | None = None
    facts: ClusterFacts | None = None
    facts_problem: str | None = None
    published: ProxyAddress | None = None
    server_time: datetime | None = None
    asked_at: datetime | None = None
    upgrade: UpgradeNeed | None = None
    session: Session | None = None
    session_problem: UpstreamError | None = None
    verified_by: tuple[str, ...] | None = None
    verified_problem: UpstreamError | None = None


async def look_upstream(
    settings: Settings,
    config: TbotConfig | None,
    identity: Identity | None,
    environ: Mapping[str, str] = os.environ,
) -> UpstreamEvidence:
    """Look at everything; takes no longer than a few of the time-outs in the settings.

    Cancelled, it leaves no socket behind.
    """
    seen = UpstreamEvidence(identity=identity, mode=settings.mode)
    try:
        seen.configured = proxy_address(settings, config)
        secure = make_secure_dialer(settings, make_trust(settings, config, _ignore), environ)
        seen.outbound = secure.transport.outbound_proxy(seen.configured.preferred)
    except DBProxyError as error:
        seen.configured_problem = error
        return seen
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_look_at_addresses, seen, settings.connect_timeout)
        if identity is not None:
            look = _Look(seen, settings, config, identity, secure, environ)
            nursery.start_soon(look.at_everything)
    return seen


def _ignore(_event: object) -> None:
    """The doctor tells what it finds in its own way."""


async def _look_at_addresses(seen: UpstreamEvidence, limit: float) -> None:
    assert seen.configured is not None  # noqa: S101 - the caller has looked
    host = seen.outbound.host if seen.outbound else seen.configured.host
    ports = [seen.outbound.port] if seen.outbound else _ports(seen.configured)
    try:
        with trio.fail_after(limit):
            found = await trio.socket.getaddrinfo(host, ports[0], type=trio.socket.SOCK_STREAM)
    except OSError as error:
        seen.names_problem = error.strerror or str(error)
        return
    except trio.TooSlowError:
        seen.names_problem = f"no answer within {limit:g} s"
        return
    seen.names = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    async with trio.open_nursery() as nursery:
        for address in seen.names:
            for port in ports:
                nursery.start_soon(_attempt, seen, address, port, limit)


def _ports(configured: ConfiguredAddress) -> list[int]:
    return [address.port for address in configured.candidates]


async def _attempt(seen: UpstreamEvidence, address: str, port: int, limit: float) -> None:
    shown = str(ProxyAddress(address, port))
    began = trio.current_time()
    try:
        with trio.fail_after(limit):
            stream = await trio.open_tcp_stream(address, port)
    except OSError as error:
        seen.attempts.append(TCPAttempt(shown, None, reasons_of(error)))
    except trio.TooSlowError:
        seen.attempts.append(TCPAttempt(shown, None, f"no answer within {limit:g} s"))
    else:
        seen.attempts.append(TCPAttempt(shown, trio.current_time() - began))
        await trio.aclose_forcefully(stream)


@dataclass(slots=True)
class _Look:
    """The looks that need an identity, for its Host CA and its certificate."""

    seen: UpstreamEvidence
    settings: Settings
    config: TbotConfig | None
    identity: Identity
    secure: SecureDialer
    environ: Mapping[str, str]

    async def at_everything(self) -> None:
        """One after another: each decides what the next one dials."""
        address = await self._find_address()
        await self._at_web_certificate(address)
        if self.seen.web is None:
            return
        dialer = make_upstream_dialer(
            self.settings, self.secure, lambda: self.identity, _ignore, self.config, self.environ
        )
        self.seen.upgrade = await dialer.upgrade_need(address)
        try:
            protocol = protocol_named(self.identity.route.protocol)
        except IdentityError:
            return  # the identity's own check says so
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._at_session, dialer, protocol)
            if self.seen.mode is Mode.PASSTHROUGH and protocol.starttls is not None:
                nursery.start_soon(self._at_inner_server, dialer, protocol, protocol.starttls)

    async def _find_address(self) -> ProxyAddress:
        """Ask the Teleport Proxy about itself; also what its clock says."""
        seen = self.seen
        assert seen.configured is not None  # noqa: S101 - the caller has looked
        fetch = WebFetcher(self.secure, lambda: self.identity)
        reasons = []
        for candidate in seen.configured.candidates:
            try:
                answer = await fetch(candidate, FIND_PATH)
                self._note_clock(answer)
                seen.facts = parse_find(answer)
                seen.published = web_address(seen.facts, candidate)
            except UpstreamError as error:
                reasons.append(error.message)
            except AnswerError as error:
                reasons.append(f"the server at {candidate} {error}")
            else:
                return candidate if self.settings.no_discovery else seen.published
        seen.facts_problem = NoAnswer("; ".join(reasons)).reason
        return seen.configured.preferred

    def _note_clock(self, answer: FetchedAnswer) -> None:
        try:
            when = parsedate_to_datetime(answer.headers["date"])
        except (KeyError, ValueError):
            return
        self.seen.server_time = when if when.tzinfo else when.replace(tzinfo=UTC)
        self.seen.asked_at = datetime.now(UTC)

    async def _at_web_certificate(self, address: ProxyAddress) -> None:
        try:
            # With another list than before, so that no session is resumed and all is shown.
            secured = await self.secure.dial(address, ("h2", "http/1.1"), self.identity)
        except UpstreamError as error:
            self.seen.web_problem = error
            return
        await trio.aclose_forcefully(secured.stream)
        certificate = secured.tls.get_peer_certificate(as_cryptography=True)
        assert certificate is not None  # noqa: S101 - a server always shows one
        self.seen.web = WebCertificate(
            certificate=certificate,
            trusted_by=self._trusted_by(secured.tls, certificate),
            tls_version=secured.tls.get_protocol_version_name(),
        )

    def _trusted_by(self, connection: SSL.Connection, certificate: x509.Certificate) -> str:
        if self.settings.insecure or (self.config is not None and self.config.insecure):
            return "nothing: --insecure takes any certificate"
        chain = connection.get_verified_chain(as_cryptography=True) or [certificate]
        anchor = chain[-1]
        if anchor in self.identity.host_cas:
            return f"the Host CA in {self.identity.files.host_ca}"
        if anchor in self.secure.trust.extra_roots:
            return f"the authority in {self.settings.proxy_ca or 'onboarding.ca_path'}"
        variable = next((name for name in _ROOTS if name in self.environ), None)
        return f"the authorities in {variable}" if variable else "the system's authorities"

    async def _at_session(self, dialer: UpstreamDialer, protocol: DatabaseProtocol) -> None:
        """An authenticated connection; whether it is taken shows when it is read from."""
        try:
            upstream = await dialer.dial(protocol, self.identity, authenticate=True)
        except UpstreamError as error:
            self.seen.session_problem = error
            return
        try:
            await _check_not_rejected(upstream)
        except UpstreamError as error:
            self.seen.session_problem = error
        else:
            self.seen.session = Session(
                alpn=upstream.alpn,
                tls_version=upstream.tls_version,
                upgraded=upstream.upgraded,
                seconds=upstream.duration,
            )
        finally:
            await trio.aclose_forcefully(upstream.stream)

    async def _at_inner_server(
        self, dialer: UpstreamDialer, protocol: DatabaseProtocol, greeting: UpstreamGreeting
    ) -> None:
        """As a client in passthrough: which of tbot's files verifies what Teleport shows it?"""
        try:
            upstream = await dialer.dial(protocol, self.identity, authenticate=False)
        except UpstreamError as error:
            self.seen.verified_problem = error
            return
        try:
            shown = await _shown_inside(upstream, greeting, self.identity, self.secure)
        except UpstreamError as error:
            self.seen.verified_problem = error
        else:
            authorities = {
                "host": self.identity.host_cas,
                "database": self.identity.database_cas,
            }
            self.seen.verified_by = tuple(
                name for name, cas in authorities.items() if is_issued_by_one_of(shown, cas)
            )
        finally:
            await trio.aclose_forcefully(upstream.stream)


_ROOTS: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


async def _check_not_rejected(upstream: UpstreamConnection) -> None:
    """Read for a moment: silence means that the server waits for the first message."""
    with trio.move_on_after(PATIENCE):
        try:
            received = await upstream.stream.receive_some()
        except (trio.BrokenResourceError, LayerError) as error:
            raise explain_early_end(upstream.address, error) from error
        if not received:
            raise explain_early_end(upstream.address, None)


async def _shown_inside(
    upstream: UpstreamConnection,
    greeting: UpstreamGreeting,
    identity: Identity,
    secure: SecureDialer,
) -> x509.Certificate:
    """The certificate that a client in passthrough gets to see; it is not verified here."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.use_certificate(identity.certificate)
    context.use_privatekey(identity.private_key)
    connection = SSL.Connection(context, None)
    connection.set_tlsext_host_name(b"localhost")
    connection.set_connect_state()
    try:
        with trio.move_on_after(secure.handshake_timeout):
            await _start_tls(upstream.stream, greeting, TLSLayer(connection))
    except (trio.BrokenResourceError, LayerError) as error:
        raise explain_early_end(upstream.address, error) from error
    certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is None:
        raise explain_early_end(upstream.address, None)
    return certificate


async def _start_tls(stream: LayeredStream, greeting: UpstreamGreeting, tls: TLSLayer) -> None:
    await stream.send_all(greeting.request)
    if await stream.receive_some(len(greeting.answer)) == greeting.answer:
        await stream.add_layer(tls)
