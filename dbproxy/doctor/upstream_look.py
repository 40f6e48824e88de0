"""Looking at the way to the Teleport Proxy, once.

Here, and nowhere else in this package, connections are opened. Each look is bounded by the
time-outs of the settings, goes the way that database connections go, and ends in a value: what was
seen, or the error that says why not. A look that needs another one's result comes after it; the
others are taken at the same time.

The authenticated look reads after the handshake, because with TLS 1.3 a server that rejects our
certificate says so only then. It sends nothing: Teleport opens no session, and a server that is
content waits for the first message.

Without an identity the looks that need none are taken all the same; only its Host CA is not trusted
then.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeAlias

import trio
from cryptography import x509

from dbproxy.doctor.inner_handshake import check_not_rejected, shake_hands_inside
from dbproxy.doctor.trust_source import trust_source
from dbproxy.doctor.upstream_evidence import (
    Session,
    TCPAttempt,
    UpstreamEvidence,
    WebCertificate,
)
from dbproxy.errors import DBProxyError, IdentityError, UpstreamError, UsageError
from dbproxy.identity import Identity, TbotConfig
from dbproxy.identity.assemble import is_issued_by_one_of
from dbproxy.protocols import DatabaseProtocol, UpstreamGreeting
from dbproxy.settings import Mode, Settings
from dbproxy.upstream import (
    ConfiguredAddress,
    ProxyAddress,
    SecureDialer,
    UpstreamDialer,
    WebFetcher,
    reasons_of,
)
from dbproxy.upstream.discovery import TIMEOUT
from dbproxy.upstream.first_answer import Answer, NoAnswer, first_answer
from dbproxy.upstream.webapi import FetchedAnswer
from dbproxy.wiring import (
    configured_protocol,
    insecure_by,
    make_secure_dialer,
    make_trust,
    make_upstream_dialer,
    proxy_address,
)

__all__ = ["look_upstream"]


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
        look = _Look(seen, seen.configured, settings, config, identity, secure, environ)
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
    targets = [ProxyAddress(address, port) for address in seen.names for port in ports]
    async with trio.open_nursery() as nursery:
        for target in targets:
            nursery.start_soon(_attempt, seen, target, limit)
    shown = [str(target) for target in targets]
    seen.attempts.sort(key=lambda attempt: shown.index(attempt.address))


def _ports(configured: ConfiguredAddress) -> list[int]:
    return [address.port for address in configured.candidates]


async def _attempt(seen: UpstreamEvidence, target: ProxyAddress, limit: float) -> None:
    shown = str(target)
    began = trio.current_time()
    try:
        with trio.fail_after(limit):
            stream = await trio.open_tcp_stream(target.host, target.port)
    except OSError as error:
        seen.attempts.append(TCPAttempt(shown, None, reasons_of(error)))
    except trio.TooSlowError:
        seen.attempts.append(TCPAttempt(shown, None, f"no answer within {limit:g} s"))
    else:
        seen.attempts.append(TCPAttempt(shown, trio.current_time() - began))
        await trio.aclose_forcefully(stream)


@dataclass(slots=True)
class _Look:
    """The looks that begin with TLS."""

    seen: UpstreamEvidence
    configured: ConfiguredAddress
    settings: Settings
    config: TbotConfig | None
    identity: Identity | None
    secure: SecureDialer
    environ: Mapping[str, str]

    async def at_everything(self) -> None:
        """One after another: each decides what the next one dials."""
        address = await self._find_address()
        await self._at_web_certificate(address)
        if self.seen.web is None:
            return
        settings = self.settings
        if self.seen.facts is None:  # nor would the dialer get an answer, after the same wait
            settings = replace(settings, no_discovery=True)
        dialer = make_upstream_dialer(
            settings, self.secure, lambda: self.identity, _ignore, self.config, self.environ
        )
        self.seen.upgrade = await dialer.upgrade_need(address)
        if self.identity is not None:
            await self._at_database(dialer, self.identity)

    async def _at_database(self, dialer: UpstreamDialer, identity: Identity) -> None:
        try:
            protocol = configured_protocol(self.settings, identity.route.protocol)
        except (IdentityError, UsageError):
            return  # the protocol's own check says so
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._at_session, dialer, protocol, identity)
            if self.seen.mode is Mode.PASSTHROUGH and (greeting := protocol.starttls) is not None:
                nursery.start_soon(self._at_inner_server, dialer, protocol, greeting, identity)

    async def _find_address(self) -> ProxyAddress:
        """Ask the Teleport Proxy about itself, as long as `dbproxy db` would wait, or less."""
        fetch = WebFetcher(self.secure, lambda: self.identity)
        told: dict[ProxyAddress, _Clocks] = {}

        async def ask(address: ProxyAddress, path: str) -> FetchedAnswer:
            answer = await fetch(address, path)
            if (clocks := _clocks(answer)) is not None:
                told[address] = clocks
            return answer

        settings = self.settings
        limit = min(TIMEOUT, settings.connect_timeout + settings.handshake_timeout)
        outcome: Answer | NoAnswer = NoAnswer(
            f"there was no answer from {self.configured} within {limit:g} s"
        )
        with trio.move_on_after(limit):
            outcome = await first_answer(self.configured.candidates, ask)
        if isinstance(outcome, NoAnswer):
            self.seen.facts_problem = outcome.reason
            asked = dialled = self.configured.preferred
        else:
            self.seen.facts, self.seen.published = outcome.facts, outcome.web
            asked, dialled = outcome.address, outcome.web
        if asked in told:
            self.seen.server_time, self.seen.asked_at = told[asked]
        return self.configured.preferred if settings.no_discovery else dialled

    async def _at_web_certificate(self, address: ProxyAddress) -> None:
        try:
            # With another list than before, so that no session is resumed and all is shown.
            secured = await self.secure.dial(address, ("h2", "http/1.1"), self.identity)
        except UpstreamError as error:
            self.seen.web_problem = error
            return
        await secured.stream.abandon()
        certificate = secured.tls.get_peer_certificate(as_cryptography=True)
        assert certificate is not None  # noqa: S101 - a server always shows one
        unverified = insecure_by(self.settings, self.config)
        chain = secured.tls.get_verified_chain(as_cryptography=True) or [certificate]
        self.seen.web = WebCertificate(
            certificate=certificate,
            trusted_by=None if unverified else self._trust_source(chain[-1]),
            insecure_by=unverified,
            pinned=bool(self.settings.proxy_pin),
            tls_version=secured.tls.get_protocol_version_name(),
        )

    def _trust_source(self, anchor: x509.Certificate) -> str:
        extra_roots = self.secure.trust.extra_roots
        return trust_source(anchor, self.settings, self.identity, extra_roots, self.environ)

    async def _at_session(
        self, dialer: UpstreamDialer, protocol: DatabaseProtocol, identity: Identity
    ) -> None:
        """An authenticated connection; whether it is taken shows when it is read from."""
        try:
            upstream = await dialer.dial(protocol, identity, authenticate=True)
        except UpstreamError as error:
            self.seen.session_problem = error
            return
        try:
            await check_not_rejected(upstream)
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
            await upstream.stream.abandon()

    async def _at_inner_server(
        self,
        dialer: UpstreamDialer,
        protocol: DatabaseProtocol,
        greeting: UpstreamGreeting,
        identity: Identity,
    ) -> None:
        """As a client in passthrough: which of tbot's files verifies what Teleport shows it?"""
        limit = self.secure.handshake_timeout
        try:
            upstream = await dialer.dial(protocol, identity, authenticate=False)
        except UpstreamError as error:
            self.seen.verified_problem = error
            return
        try:
            server = await shake_hands_inside(upstream, greeting, identity, limit)
        except UpstreamError as error:
            self.seen.verified_problem = error
        else:
            authorities = {"host": identity.host_cas, "database": identity.database_cas}
            self.seen.inner_rejection = server.rejection
            self.seen.verified_by = tuple(
                name
                for name, cas in authorities.items()
                if is_issued_by_one_of(server.certificate, cas)
            )
        finally:
            await upstream.stream.abandon()


_Clocks: TypeAlias = tuple[datetime, datetime]
"""What the clock of a server said, and what ours said then."""


def _clocks(answer: FetchedAnswer) -> _Clocks | None:
    try:
        when = parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)), datetime.now(UTC)
