"""Sessions that are resumed, and those that must not be, against the standard library's TLS."""

import ssl
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from identities import MINUTE, Authority, Cluster, certificate_pem, make_authority
from OpenSSL import SSL
from tls_peers import BOTH_VERSIONS, StdlibTLS, make_credentials, server_context, shake_hands

from dbproxy.identity import Identity
from dbproxy.layers import LayerError, TLSLayer
from dbproxy.upstream import UpstreamTrust
from dbproxy.upstream.sessions import (
    LIFETIME,
    MAX_SESSIONS,
    ResumableConnection,
    SessionStore,
)

HOST = "teleport.example.com"
ALPN = ("teleport-postgres",)
TLS_1_2, TLS_1_3 = BOTH_VERSIONS

each_version = pytest.mark.parametrize(
    "version", BOTH_VERSIONS, ids=[version.name for version in BOTH_VERSIONS]
)


class Bench:
    """A server, and connections to it one after another."""

    def __init__(self, context: ssl.SSLContext, trust: UpstreamTrust, identity: Identity) -> None:
        self.context = context
        self.trust = trust
        self.identity = identity

    def connect(
        self,
        *,
        host: str = HOST,
        alpn: tuple[str, ...] = ALPN,
        authenticate: bool = False,
        remember: bool = True,
    ) -> bool:
        """Whether the connection resumes a session, as both ends see it."""
        connection, layer, server = self.open(host, alpn, authenticate=authenticate)
        server.send(b"hello")
        assert layer.receive(server.outgoing()) == b"hello"
        if remember:
            connection.remember()
        resumed = server.tls.session_reused
        assert connection.resumed == resumed
        return bool(resumed)

    def open(
        self, host: str = HOST, alpn: tuple[str, ...] = ALPN, *, authenticate: bool = False
    ) -> tuple[ResumableConnection, TLSLayer, StdlibTLS]:
        """A connection after its handshake, and the server's end."""
        connection, judgement = self.trust.connection(
            host, alpn, self.identity, authenticate=authenticate
        )
        server, layer = StdlibTLS(self.context, server_side=True), TLSLayer(connection)
        shake_hands(layer, server)
        assert judgement.complaint is None
        return connection, layer, server


@pytest.fixture
def bench(web_authority: Authority, identity: Identity) -> Bench:
    context = server_context(make_credentials(web_authority, HOST, "other.example.com"))
    return Bench(context, UpstreamTrust([web_authority.certificate]), identity)


def only(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = version
    return context


class TestResumption:
    """What a connection leaves for the next."""

    @each_version
    @pytest.mark.parametrize("authenticate", [False, True])
    def test_the_next_connection_resumes(
        self, version: ssl.TLSVersion, authenticate: bool, bench: Bench
    ) -> None:
        only(bench.context, version)
        bench.context.verify_mode = ssl.CERT_OPTIONAL if authenticate else ssl.CERT_NONE
        users = certificate_pem(*bench.identity.user_cas).decode()
        bench.context.load_verify_locations(cadata=users)
        shown = [bench.connect(authenticate=authenticate) for _ in range(4)]
        assert shown == [False, True, True, True]

    @each_version
    def test_a_server_without_tickets_does_full_handshakes(
        self, version: ssl.TLSVersion, bench: Bench
    ) -> None:
        only(bench.context, version)
        bench.context.options |= ssl.OP_NO_TICKET
        bench.context.num_tickets = 0
        assert [bench.connect() for _ in range(3)] == [False, False, False]

    @each_version
    def test_a_server_that_was_restarted_does_a_full_handshake_once(
        self, version: ssl.TLSVersion, bench: Bench, web_authority: Authority
    ) -> None:
        only(bench.context, version)
        assert [bench.connect(), bench.connect()] == [False, True]
        bench.context = only(server_context(make_credentials(web_authority, HOST)), version)
        assert [bench.connect(), bench.connect()] == [False, True]

    def test_a_server_that_changes_its_version_is_followed(self, bench: Bench) -> None:
        for version in (TLS_1_3, TLS_1_2, TLS_1_3):
            only(bench.context, version)
            assert [bench.connect(), bench.connect()] == [False, True]

    def test_a_ticket_of_tls_1_3_is_used_once(self, bench: Bench) -> None:
        only(bench.context, TLS_1_3)
        bench.connect()
        assert bench.connect(remember=False)
        assert not bench.connect(remember=False)

    def test_a_session_of_tls_1_2_is_used_again(self, bench: Bench) -> None:
        only(bench.context, TLS_1_2)
        bench.connect()
        assert [bench.connect(remember=False) for _ in range(3)] == [True, True, True]

    def test_a_connection_that_is_not_remembered_leaves_nothing(self, bench: Bench) -> None:
        bench.connect(remember=False)
        assert not bench.connect()

    @each_version
    def test_a_connection_that_fails_spoils_its_session(
        self, version: ssl.TLSVersion, bench: Bench
    ) -> None:
        only(bench.context, version)
        connection, layer, server = bench.open()
        server.send(b"hello")
        layer.receive(server.outgoing())
        connection.remember()
        with pytest.raises(LayerError):
            layer.receive(b"\x17\x03\x03\x00\x20" + bytes(32))
        assert not bench.connect()


class TestBoundaries:
    """A session is worth something only where it was verified."""

    def test_another_generation_begins_anew(self, bench: Bench) -> None:
        bench.connect()
        bench.identity = replace(bench.identity, generation=2)
        assert [bench.connect(), bench.connect()] == [False, True]

    def test_a_late_connection_of_an_earlier_generation_leaves_nothing(self, bench: Bench) -> None:
        connection, layer, server = bench.open()
        server.send(b"hello")
        layer.receive(server.outgoing())
        bench.identity = replace(bench.identity, generation=2)
        bench.connect(remember=False)
        connection.remember()
        assert not bench.connect()

    def test_other_roots_begin_anew(self, bench: Bench, web_authority: Authority) -> None:
        roots = [[web_authority.certificate], [web_authority.certificate]]
        bench.trust = UpstreamTrust(lambda: roots[0])
        bench.connect()
        assert bench.connect()
        roots.pop(0)
        assert not bench.connect()

    def test_a_server_that_lost_our_trust_is_refused_although_it_knows_the_session(
        self, bench: Bench, web_authority: Authority
    ) -> None:
        roots = [[web_authority.certificate], [make_authority("another").certificate]]
        bench.trust = UpstreamTrust(lambda: roots[0])
        bench.connect()
        roots.pop(0)
        with pytest.raises(LayerError):
            bench.connect()

    @pytest.mark.parametrize(
        "options",
        [{"host": "other.example.com"}, {"alpn": ("teleport-mysql",)}, {"authenticate": True}],
        ids=["name", "ALPN", "certificate"],
    )
    def test_another_kind_of_connection_begins_anew(
        self, options: dict[str, object], bench: Bench
    ) -> None:
        bench.connect()
        assert not bench.connect(**options)  # type: ignore[arg-type]
        assert bench.connect()

    def test_the_inner_layer_and_outbound_proxies_have_sessions_of_their_own(
        self, identity: Identity, cluster: Cluster
    ) -> None:
        trust = UpstreamTrust([cluster.host.certificate])
        context = server_context(make_credentials(cluster.host, HOST))

        def connect(connection: ResumableConnection) -> bool:
            server, layer = StdlibTLS(context, server_side=True), TLSLayer(connection)
            shake_hands(layer, server)
            server.send(b"hello")
            layer.receive(server.outgoing())
            connection.remember()
            return connection.resumed

        for expected in (False, True):
            for connection, _ in (
                trust.connection(HOST, (), identity, authenticate=False),
                trust.inner_connection(HOST, (), identity, authenticate=False),
                trust.outbound_proxy_connection(HOST),
            ):
                assert connect(connection) is expected


class TestTime:
    """How long a verification is good for."""

    @pytest.fixture
    def clock(self, bench: Bench, web_authority: Authority) -> list[float]:
        now = [1000.0]
        bench.trust = UpstreamTrust([web_authority.certificate], clock=lambda: now[0])
        return now

    @each_version
    def test_the_lifetime_counts_from_the_last_verification_not_from_a_resumption(
        self, version: ssl.TLSVersion, clock: list[float], bench: Bench
    ) -> None:
        only(bench.context, version)
        bench.connect()
        clock[0] += LIFETIME - 1
        assert bench.connect(), "still in time"
        clock[0] += 1
        assert [bench.connect(), bench.connect()] == [False, True]

    @each_version
    def test_a_session_ends_with_the_servers_certificate(
        self, version: ssl.TLSVersion, clock: list[float], bench: Bench, web_authority: Authority
    ) -> None:
        short = make_credentials(web_authority, HOST, not_after=datetime.now(UTC) + MINUTE)
        bench.context = only(server_context(short), version)
        bench.connect()
        clock[0] += 55
        assert bench.connect()
        clock[0] += 10
        assert not bench.connect()


class TestStore:
    """Its bounds."""

    @pytest.fixture
    def session(self) -> SSL.Session:
        return SSL.Session.__new__(SSL.Session)

    def test_the_oldest_session_gives_way(self, session: SSL.Session) -> None:
        store = SessionStore(max_sessions=3, clock=lambda: 0)
        for expires in range(1, 6):
            store.put(("key",), session, expires, reusable=False)
        assert len(store) == 3
        taken = [store.take(("key",)) for _ in range(4)]
        assert [one and one[1] for one in taken] == [5, 4, 3, None]

    def test_the_key_that_was_used_longest_ago_gives_way(self, session: SSL.Session) -> None:
        store = SessionStore(max_keys=2, clock=lambda: 0)
        for key in ("a", "b", "a", "c"):
            store.put((key,), session, 1, reusable=False)
        assert [store.take((key,)) is not None for key in "abc"] == [True, False, True]

    def test_a_reusable_session_replaces_those_before(self, session: SSL.Session) -> None:
        store = SessionStore(clock=lambda: 0)
        for expires in (1, 2, 3):
            store.put(("key",), session, expires, reusable=True)
        assert len(store) == 1
        assert store.take(("key",)) == store.take(("key",)) == (session, 3)

    def test_expired_sessions_are_dropped_when_looked_for(self, session: SSL.Session) -> None:
        store = SessionStore(clock=lambda: 10)
        store.put(("key",), session, 10, reusable=False)
        store.put(("key",), session, 9, reusable=True)
        assert store.take(("key",)) is None
        assert len(store) == 0

    def test_many_connections_at_once_leave_no_more_than_the_bound(self, bench: Bench) -> None:
        only(bench.context, TLS_1_3)
        open_connections = []
        for _ in range(MAX_SESSIONS + 3):
            connection, layer, server = bench.open()
            open_connections.append((connection, layer, server))
        for connection, layer, server in open_connections:
            server.send(b"hello")
            layer.receive(server.outgoing())
            connection.remember()
        resumed = [bench.connect(remember=False) for _ in range(MAX_SESSIONS + 3)]
        assert resumed == [True] * MAX_SESSIONS + [False] * 3
