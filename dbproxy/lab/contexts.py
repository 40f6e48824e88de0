"""TLS server contexts of the Proxy, as Go's crypto/tls would configure them.

The standard library loads a key from a file only, so the key pairs lie in the lab's own directory,
mode 0600, as a Proxy's do in its data directory. Contexts are kept while the cluster's trusted
authorities stay the same: a session ticket can be resumed only with the context that issued it.
During a rotation of the authorities the Proxy goes on with new contexts, as a real one reloads;
what it has accepted before is not touched.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dbproxy.lab.authority import Authority, CertificateAuthority, KeyPair


@dataclass(frozen=True)
class Contexts:
    """One generation of contexts.

    Attributes:
        outer: web certificate; client certificate verified if given.
        upgraded: host certificate, for the outer connection inside of an upgraded one; client
            certificate verified if given.
        postgres: host certificate; client certificate of the User CA required; for MySQL, too.
        database_tls: host certificate; client certificate of any CA of the cluster required.
    """

    outer: ssl.SSLContext
    upgraded: ssl.SSLContext
    postgres: ssl.SSLContext
    database_tls: ssl.SSLContext


class ContextSource:
    """Makes the contexts, again whenever the cluster's trusted authorities have changed.

    Args:
        authority: the cluster's authorities.
        directory: where key pairs are put for OpenSSL; created when missing.
        web: the web certificate; ``None`` shows the host certificate instead, as a Proxy without a
            public certificate does.
        alpn: the server's values in its order of preference.
        minimum_version: oldest TLS version of the outer connection; Go's default is 1.2.
        maximum_version: newest TLS version of the outer connection.
        tickets: whether clients can resume sessions.
        names: names of the host certificate besides those of loopback.
        key_log: returns where contexts log their secrets, ``None`` for nowhere. Whenever this
            changes there are new contexts, which do not know the tickets of the old ones.
    """

    def __init__(
        self,
        authority: Authority,
        directory: Path,
        *,
        web: KeyPair | None,
        alpn: Sequence[str],
        minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        maximum_version: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
        tickets: bool = True,
        names: Iterable[str] = (),
        key_log: Callable[[], Path | None] = lambda: None,
    ) -> None:
        self._authority = authority
        self._directory = directory
        self._alpn = tuple(alpn)
        self._versions = (minimum_version, maximum_version)
        self._tickets = tickets
        self._names = tuple(names)
        self._key_log = key_log
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._web_file = _write_pair(directory / "web.pem", web) if web is not None else None
        self._host_issuer: CertificateAuthority | None = None
        self._basis = self._basis_now()
        self._contexts = self._build()

    def current(self) -> Contexts:
        """Returns the contexts for a connection that begins now.

        Without tickets each connection has its own: OpenSSL would resume TLS 1.2 sessions from its
        cache, which Go does not have.
        """
        basis = self._basis_now()
        if basis != self._basis or not self._tickets:
            self._contexts, self._basis = self._build(), basis
        return self._contexts

    def _basis_now(self) -> tuple[object, ...]:
        """What contexts are made from, as far as it can change."""
        return (*self._trusted_now(), self._key_log())

    def _trusted_now(self) -> tuple[CertificateAuthority, ...]:
        authority = self._authority
        return (
            authority.serving_host_ca,
            *authority.trusted_user_cas,
            *authority.trusted_host_cas,
        )

    def _build(self) -> Contexts:
        users = [ca.pem for ca in self._authority.trusted_user_cas]
        everyone = [*users, *(ca.pem for ca in self._authority.trusted_host_cas)]
        host_file = self._host_pair_file()
        return Contexts(
            self._routing_context(self._web_file or host_file, everyone),
            self._routing_context(host_file, everyone),
            self._context(host_file, users, ssl.CERT_REQUIRED),
            self._context(host_file, everyone, ssl.CERT_REQUIRED),
        )

    def _routing_context(self, pair_file: Path, authorities: Iterable[bytes]) -> ssl.SSLContext:
        context = self._context(pair_file, authorities, ssl.CERT_OPTIONAL)
        context.minimum_version, context.maximum_version = self._versions
        context.set_alpn_protocols(list(self._alpn))
        return context

    def _context(
        self, pair_file: Path, authorities: Iterable[bytes], client_certificate: ssl.VerifyMode
    ) -> ssl.SSLContext:
        context = _context(pair_file, authorities, client_certificate)
        if not self._tickets:
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
        if (key_log := self._key_log()) is not None:
            context.keylog_filename = str(key_log)
        return context

    def _host_pair_file(self) -> Path:
        """Keeps the host certificate until another Host CA issues those of servers."""
        path = self._directory / "host.pem"
        if self._host_issuer is not self._authority.serving_host_ca:
            self._host_issuer = self._authority.serving_host_ca
            _write_pair(path, self._authority.issue_proxy_host_certificate(self._names))
        return path


def _context(
    pair_file: Path, client_authorities: Iterable[bytes], client_certificate: ssl.VerifyMode
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.verify_mode = client_certificate
    context.load_verify_locations(cadata=b"".join(client_authorities).decode())
    context.load_cert_chain(pair_file)
    return context


def _write_pair(path: Path, pair: KeyPair) -> Path:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(pair.key_pem + pair.certificate_pem)
    return path
