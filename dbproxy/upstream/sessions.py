"""TLS sessions towards the Teleport Proxy, kept for the next connection.

Problem: a full handshake costs two round trips of certificates and the signatures of both sides.
Servers hand out tickets with which the next connection does without. pyOpenSSL has no callback for
new sessions, and with TLS 1.3 the tickets come after the handshake.

Choice: `ResumableConnection.remember`, called once the first bytes have come. Servers send their
tickets at the end of the handshake (OpenSSL, Go), so the ticket has been read by then, and a server
that has turned down our certificate has sent an alert instead. A ticket of TLS 1.3 is used once, so
that nobody on the way can tell two connections to be of one client (RFC 8446 §C.4); the newest is
used first. A session of TLS 1.2 may be used again and again. A server that does not know a session
(any more) makes a full handshake; nothing is lost.

A session belongs to one `SSL.Context`, hence to one generation of the identity, one set of roots,
and one choice whether to authenticate; pyOpenSSL enforces it. Its store goes with the context.

**Why a resumed handshake needs no verification.** No certificate is shown in it, so nothing can be
verified. What is proved is that the server holds the secret of a session that was verified: under
the same roots, pins and settings, because they belong to the same context, and for the same names
and the same SNI, which are the store's key. What can change meanwhile is time. So a session is
used until the server's certificate ends, and for `LIFETIME` after the certificate was verified
at most; a ticket that a resumed session has brought does not count from anew. Our own certificate
is not shown again either. The server has it from the ticket and declines when it has expired (Go,
`crypto/tls`), and whoever dials has looked whether it is valid.

OpenSSL takes a session for damaged when its connection is freed without a close_notify
(`ssl_clear_bad_session` in `ssl/ssl_lib.c`), a rule of TLS 1.0 that TLS 1.1 has dropped (RFC 4346
§7.2.1). We often close without one, so the connection says that it has been shut down before it
goes. A fatal alert still spoils the session, as it should.

Tested in `tests/unit/upstream/test_sessions.py` against the standard library's `ssl`.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from OpenSSL import SSL

from dbproxy.upstream.judgement import ServerJudgement

__all__ = ["LIFETIME", "ResumableConnection", "SessionStore"]

LIFETIME: Final = 600.0
"""Seconds after which a server has to show its certificate again.

Long enough that full handshakes are rare, short enough that a chain that ends, or is not to be
trusted any more, is noticed soon. Certificates of tbot live an hour, and each ends the sessions.
"""
MAX_KEYS: Final = 8
"""How many kinds of connection to keep sessions for; there are about three: the database's ALPN
protocol, an upgrade, the discovery of the address."""
MAX_SESSIONS: Final = 32
"""How many single-use tickets to keep for each; a ticket takes about 2 KiB."""

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Kept:
    session: SSL.Session
    expires: float
    reusable: bool


class SessionStore:
    """The sessions of one context, by what they were verified for; bounded.

    Args:
        clock: Seconds that never go back.
        max_keys: The most keys; the one that was used longest ago gives way.
        max_sessions: The most sessions for each key; the oldest gives way.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = monotonic,
        max_keys: int = MAX_KEYS,
        max_sessions: int = MAX_SESSIONS,
    ) -> None:
        self.clock = clock
        self._max_keys = max_keys
        self._max_sessions = max_sessions
        self._kept: OrderedDict[Key, list[_Kept]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def take(self, key: Key) -> tuple[SSL.Session, float] | None:
        """The newest session that has not expired, and when it will; single-use ones are gone then.

        Args:
            key: As it was put in.
        """
        kept = self._kept.get(key, [])
        while kept:
            newest = kept[-1]
            if newest.expires <= self.clock():
                kept.pop()
                continue
            if not newest.reusable:
                kept.pop()
            return newest.session, newest.expires
        return None

    def put(self, key: Key, session: SSL.Session, expires: float, *, reusable: bool) -> None:
        """Keep a session.

        Args:
            key: What it was verified for.
            session: Of a connection with the store's context.
            expires: By the store's clock.
            reusable: Whether it may be used more than once; then it replaces the others.
        """
        kept = self._kept.setdefault(key, [])
        self._kept.move_to_end(key)
        if reusable:
            kept.clear()
        kept.append(_Kept(session, expires, reusable))
        del kept[: -self._max_sessions]
        if len(self._kept) > self._max_keys:
            self._kept.popitem(last=False)


class ResumableConnection(SSL.Connection):
    """A client connection without a socket that begins with a kept session and leaves one.

    Args:
        context: Of the connection and of all sessions in the store.
        judgement: Filled in during the handshake.
        sessions: Where sessions come from and go to.
        key: What the sessions are verified for.
    """

    def __init__(
        self, context: SSL.Context, judgement: ServerJudgement, sessions: SessionStore, key: Key
    ) -> None:
        super().__init__(context, None)
        self.set_app_data(judgement)
        self.set_connect_state()
        self._judgement = judgement
        self._sessions = sessions
        self._key = key
        self._expires: float | None = None
        if (taken := sessions.take(key)) is not None:
            session, self._expires = taken
            self.set_session(session)

    def __del__(self) -> None:
        # Not to be told to the peer, which is gone: see the module's text.
        self.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)

    @property
    def resumed(self) -> bool:
        """Whether the finished handshake has resumed a session."""
        return self._expires is not None and not self._judgement.checked

    def remember(self) -> None:
        """Keep the session for the next connection; call it once, after the first bytes came.

        Before that the server may still turn down our certificate, and with TLS 1.3 there is no
        ticket yet. Sessions without a ticket do no harm: OpenSSL ignores them.
        """
        session = self.get_session()
        expires = self._expires if self.resumed else self._new_expiry()
        if session is not None and expires is not None:
            reusable = self.get_protocol_version() < SSL.TLS1_3_VERSION
            self._sessions.put(self._key, session, expires, reusable=reusable)

    def _new_expiry(self) -> float:
        lifetime = LIFETIME
        if (end := self._judgement.valid_until) is not None:
            lifetime = min(lifetime, (end - datetime.now(UTC)).total_seconds())
        return self._sessions.clock() + lifetime
