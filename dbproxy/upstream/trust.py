"""Whom we trust to be the Teleport Proxy, and who we say we are.

There are three kinds of TLS connection on the way.

| | web | inner | outbound proxy |
|---|---|---|---|
| ends at | Teleport Proxy or balancer | Teleport Proxy | a company's `https://` proxy |
| the system's roots | yes | no | yes |
| `--proxy-ca` | yes | no | yes |
| the identity's Host CA | yes | yes, and nothing else | no |
| names | `--server-name`, or the address | either | the proxy's |
| pins | yes | no | no |
| our certificate | on request | on request | never |

Inner is the TLS of the Teleport Proxy itself, inside of an upgraded connection.

The web certificate normally comes from a public authority; in small clusters it is one of the
cluster's Host CA. The inner one is the Proxy's host certificate, from the Host CA, whose names are
the Proxy's public addresses and `localhost`. Teleport's own tools check it for the name that they
dialled, and so do we: the Host CA certifies every host of the cluster, so without that check any
database agent could pose as the Proxy. With `--server-name` either name will do, because that may
be how a balancer in front is called.

Chain, name and pins are judged during the handshake: a server that fails sees neither our
certificate nor a byte of the client's. `--insecure` is for all three kinds, as for Teleport's own
tools; what pins mean then says `judgement.py`.

Security level 2 of OpenSSL is set, not left to how it was built: no signatures by SHA-1, no RSA
keys below 2048 bits, neither in certificates nor in the handshake.

Tested in `tests/unit/upstream/test_trust.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, unique
from time import monotonic
from typing import Final

from cryptography import x509
from OpenSSL import SSL, crypto

from dbproxy.identity import Identity
from dbproxy.layers.openssl import forget_errors
from dbproxy.upstream.judgement import Rules, ServerJudgement
from dbproxy.upstream.names import ServerNames, server_name_indication
from dbproxy.upstream.sessions import ResumableConnection, SessionStore

__all__ = ["UpstreamTrust"]

_CIPHERS: Final = b"DEFAULT:@SECLEVEL=2"

_Roots = Sequence[x509.Certificate]


@unique
class _Kind(Enum):
    WEB = "web"
    INNER = "inner"
    OUTBOUND_PROXY = "outbound proxy"


@dataclass(frozen=True, slots=True)
class _Peer:
    """What connections to one server have in common.

    Attributes:
        rules: What its certificate must be.
        indication: How a ClientHello calls it, if it does.
    """

    rules: Rules
    indication: bytes | None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What connections of one kind share, for one generation and one set of roots."""

    context: SSL.Context
    anchors: _Roots
    sessions: SessionStore
    peers: dict[tuple[str, ...], _Peer] = field(default_factory=dict)


class UpstreamTrust:
    """Makes the TLS connections on the way to the Teleport Proxy.

    A context is made once for each generation of the identity and each set of roots, for each kind
    of connection, with and without the identity's certificate; its sessions are resumed.

    Args:
        extra_roots: More authorities to trust, or what returns them; asked for each connection.
        insecure: Trust any server that has a pinned key; without pins, any server.
        pins: Digests of public keys (`parse_pins`): the Teleport Proxy must have one of them.
        server_name: How the certificate calls the server, when not by the name that is dialled.
        clock: Seconds that never go back, for the age of sessions.
    """

    def __init__(
        self,
        extra_roots: _Roots | Callable[[], _Roots] = (),
        *,
        insecure: bool = False,
        pins: frozenset[bytes] = frozenset(),
        server_name: str | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._extra_roots = extra_roots if callable(extra_roots) else lambda: extra_roots
        self._insecure = insecure
        self._pins = pins
        self._server_name = server_name
        self._clock = clock
        self._roots: _Roots = ()
        self._generation = 0
        self._prepared: dict[tuple[_Kind, bool], _Prepared] = {}

    @property
    def extra_roots(self) -> Sequence[x509.Certificate]:
        """The authorities that are trusted besides the system's and the identity's."""
        return self._extra_roots()

    def connection(
        self, host: str, alpn: Sequence[str], identity: Identity | None, *, authenticate: bool
    ) -> tuple[ResumableConnection, ServerJudgement]:
        """A connection to the web port, without a socket, and the judgement it will fill in.

        Args:
            host: The name or address that is dialled; the server's certificate must be for it, and
                it is the SNI, unless there is another server name.
            alpn: What to offer, the preferred value first; empty for no ALPN at all.
            identity: Whose Host CA is trusted and whose certificate may be presented; without one
                the other authorities alone are.
            authenticate: Whether to present that certificate.
        """
        prepared = self._for_identity(_Kind.WEB, identity, authenticate)
        name = self._server_name or host
        return self._connection(prepared, (name,), alpn, self._pins)

    def inner_connection(
        self, host: str, alpn: Sequence[str], identity: Identity, *, authenticate: bool
    ) -> tuple[ResumableConnection, ServerJudgement]:
        """A connection to the Teleport Proxy itself inside of an upgraded one; args as above.

        The identity's Host CA alone vouches for the server; pins are for the outer layer.
        """
        prepared = self._for_identity(_Kind.INNER, identity, authenticate)
        names = (host,) if self._server_name is None else (self._server_name, host)
        return self._connection(prepared, names, alpn, frozenset())

    def outbound_proxy_connection(
        self, host: str, alpn: Sequence[str] = ()
    ) -> tuple[ResumableConnection, ServerJudgement]:
        """A connection to an `https://` proxy on the way: never with a certificate of ours.

        Args:
            host: The proxy's name or address.
            alpn: What to offer; nothing by default.
        """
        self._forget_other_roots()
        key = (_Kind.OUTBOUND_PROXY, False)
        if key not in self._prepared:
            self._prepared[key] = self._prepare(self._roots, system_roots=True)
        return self._connection(self._prepared[key], (host,), alpn, frozenset())

    def _connection(
        self,
        prepared: _Prepared,
        names: tuple[str, ...],
        alpn: Sequence[str],
        pins: frozenset[bytes],
    ) -> tuple[ResumableConnection, ServerJudgement]:
        peer = prepared.peers.get(names)
        if peer is None:
            rules = Rules(ServerNames(names), prepared.anchors, pins, self._insecure)
            peer = prepared.peers[names] = _Peer(rules, server_name_indication(names[0]))
        judgement = ServerJudgement(peer.rules)
        key = (*names, *alpn)
        connection = ResumableConnection(prepared.context, judgement, prepared.sessions, key)
        if alpn:
            connection.set_alpn_protos([value.encode() for value in alpn])
        if peer.indication is not None:
            connection.set_tlsext_host_name(peer.indication)
        return connection, judgement

    def _for_identity(
        self, kind: _Kind, identity: Identity | None, authenticate: bool
    ) -> _Prepared:
        self._forget_other_roots()
        generation = identity.generation if identity is not None else 0
        if generation != self._generation:
            self._generation = generation
            for key in [key for key in self._prepared if key[0] is not _Kind.OUTBOUND_PROXY]:
                del self._prepared[key]
        key = (kind, authenticate)
        if key not in self._prepared:
            inner = kind is _Kind.INNER
            host_cas = identity.host_cas if identity is not None else ()
            roots = host_cas if inner else (*self._roots, *host_cas)
            self._prepared[key] = self._prepare(
                roots, system_roots=not inner, shown=identity if authenticate else None
            )
        return self._prepared[key]

    def _forget_other_roots(self) -> None:
        roots = self._extra_roots()
        if roots is not self._roots:
            self._roots = roots
            self._prepared.clear()

    def _prepare(
        self, roots: _Roots, *, system_roots: bool, shown: Identity | None = None
    ) -> _Prepared:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(_CIPHERS)
        # TLS 1.2: what we send meanwhile would be lost. A server that asks for it is told no.
        context.set_options(SSL.OP_NO_RENEGOTIATION)
        if shown is not None:
            context.use_certificate(shown.certificate)
            context.use_privatekey(shown.private_key)
        context.set_verify(SSL.VERIFY_PEER, _verify)
        if not self._insecure:
            _trust(context, roots, system_roots=system_roots)
        return _Prepared(context, tuple(roots), SessionStore(clock=self._clock))


def _trust(context: SSL.Context, roots: _Roots, *, system_roots: bool) -> None:
    if system_roots:
        context.set_default_verify_paths()
    store = context.get_cert_store()
    assert store is not None  # noqa: S101 - a context always has one
    # Whatever is named is an anchor, also an intermediate or the server's own certificate, as
    # for Teleport's own tools (Go, crypto/x509/verify.go: a chain ends at any of the roots).
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    for root in roots:
        store.add_cert(crypto.X509.from_cryptography(root))


def _verify(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
) -> bool:
    judgement = connection.get_app_data()
    assert isinstance(judgement, ServerJudgement)  # noqa: S101 - set for each connection above
    trusted = judgement.judge(certificate, error, depth, ok=bool(ok))
    if trusted and not ok:
        forget_errors()
    return trusted
