"""TLS server contexts of the Proxy, as Go's crypto/tls would configure them.

The standard library loads a key from a file only, so the key pairs lie in the lab's own directory,
mode 0600, as a Proxy's do in its data directory. Contexts are kept while the cluster's trusted
authorities stay the same: a session ticket can be resumed only with the context that issued it.
During a rotation of the authorities the Proxy goes on with new contexts, as a real one reloads;
what it has accepted before is not touched.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dbproxy.lab.authority import Authority, CertificateAuthority, KeyPair


@dataclass(frozen=True)
class Contexts:
    """One generation of contexts.

    Attributes:
        outer: web certificate; client certificate verified if given.
        postgres: host certificate; client certificate of the User CA required.
        database_tls: host certificate; client certificate of any CA of the cluster required.
    """

    outer: ssl.SSLContext
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
    ) -> None:
        self._authority = authority
        self._directory = directory
        self._alpn = tuple(alpn)
        self._versions = (minimum_version, maximum_version)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._web_file = _write_pair(directory / "web.pem", web) if web is not None else None
        self._host_issuer: CertificateAuthority | None = None
        self._trusted = self._trusted_now()
        self._contexts = self._build()

    def current(self) -> Contexts:
        """Returns the contexts for a connection that begins now."""
        trusted = self._trusted_now()
        if trusted != self._trusted:
            self._contexts, self._trusted = self._build(), trusted
        return self._contexts

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
        outer = _context(self._web_file or host_file, everyone, ssl.CERT_OPTIONAL)
        outer.minimum_version, outer.maximum_version = self._versions
        outer.set_alpn_protocols(list(self._alpn))
        return Contexts(
            outer,
            _context(host_file, users, ssl.CERT_REQUIRED),
            _context(host_file, everyone, ssl.CERT_REQUIRED),
        )

    def _host_pair_file(self) -> Path:
        """Keeps the host certificate until another Host CA issues those of servers."""
        path = self._directory / "host.pem"
        if self._host_issuer is not self._authority.serving_host_ca:
            self._host_issuer = self._authority.serving_host_ca
            _write_pair(path, self._authority.issue_proxy_host_certificate())
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
