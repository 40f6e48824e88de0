"""Whom we trust to be the Teleport Proxy, what we complain of, and who sees our certificate."""

import gc
import ssl
import weakref
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from identities import (
    HOUR,
    MINUTE,
    Authority,
    Cluster,
    certificate_pem,
    make_authority,
    make_certificate,
    make_key,
)
from malformed import load_malformed
from OpenSSL import SSL
from openssl_ends import server_layer
from tls_peers import (
    CLIENT_AUTH,
    Credentials,
    End,
    StdlibTLS,
    make_credentials,
    server_context,
    shake_hands,
)

from dbproxy.errors import UsageError
from dbproxy.identity import Identity
from dbproxy.layers import LayerError, TLSError, TLSLayer
from dbproxy.upstream import UpstreamTrust, parse_server_name

HOST = "teleport.example.com"
ALPN = ("teleport-postgres-ping", "teleport-postgres")
NOW = datetime.now(UTC)
ALERT, APPLICATION_DATA = 21, 23
"""Kinds of records (RFC 5246 §6.2.1)."""


def complaint_about(
    server: End, trust: UpstreamTrust, identity: Identity, host: str = HOST
) -> str | None:
    """What is found wrong with a server during a handshake; None when it is trusted."""
    connection, judgement = trust.connection(host, ALPN, identity, authenticate=False)
    layer = TLSLayer(connection)
    failure = None
    try:
        shake_hands(layer, server)
    except TLSError as error:
        failure = error
    assert (failure is None) == (judgement.complaint is None)
    assert failure is None or failure.during_handshake
    return None if judgement.complaint is None else str(judgement.complaint)


def serve(credentials: Credentials) -> StdlibTLS:
    return StdlibTLS(server_context(credentials), server_side=True)


@pytest.mark.parametrize(
    ("names", "host"),
    [
        ([HOST], HOST),
        (["other.example.com", HOST], HOST),
        (["*.example.com"], HOST),
        ([HOST.upper()], HOST),
        (["127.0.0.1"], "127.0.0.1"),
        (["::1"], "::1"),
        (["xn--bcher-kva.example"], "bücher.example"),
    ],
)
def test_a_server_with_the_right_name_from_a_given_root_is_trusted(
    names: Sequence[str], host: str, web_authority: Authority, identity: Identity
) -> None:
    server = serve(make_credentials(web_authority, *names))
    trust = UpstreamTrust([web_authority.certificate])
    assert complaint_about(server, trust, identity, host) is None


def test_a_server_of_the_clusters_host_ca_is_trusted(cluster: Cluster, identity: Identity) -> None:
    server = serve(make_credentials(cluster.host, HOST))
    assert complaint_about(server, UpstreamTrust(), identity) is None


@pytest.mark.parametrize("authority", ["user", "database"])
def test_the_clusters_other_authorities_do_not_vouch_for_servers(
    authority: str, cluster: Cluster, identity: Identity
) -> None:
    # Their names are equal to the Host CA's, so it is the signature that does not fit.
    server = serve(make_credentials(getattr(cluster, authority), HOST))
    assert complaint_about(server, UpstreamTrust(), identity) is not None


def test_roots_of_the_environment_are_trusted(
    web_authority: Authority, identity: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "roots.pem"
    file.write_bytes(certificate_pem(web_authority.certificate))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    server = serve(make_credentials(web_authority, HOST))
    assert complaint_about(server, UpstreamTrust(), identity) is None


class TestAnchors:
    """Every certificate that is named counts, whether it is a root or not."""

    @pytest.fixture
    def intermediate(self, web_authority: Authority) -> Authority:
        made = make_credentials(web_authority, common_name="intermediate", ca=True)
        return Authority(made.certificate, made.key)

    @pytest.mark.parametrize("sent", [False, True])
    def test_an_intermediate_authority(
        self, sent: bool, intermediate: Authority, identity: Identity
    ) -> None:
        chain = [intermediate.certificate] if sent else []
        server = server_layer(make_credentials(intermediate, HOST), chain=chain)
        trust = UpstreamTrust([intermediate.certificate])
        assert complaint_about(server, trust, identity) is None

    def test_the_servers_own_certificate(
        self, web_authority: Authority, identity: Identity
    ) -> None:
        credentials = make_credentials(web_authority, HOST)
        trust = UpstreamTrust([credentials.certificate])
        assert complaint_about(serve(credentials), trust, identity) is None

    def test_it_must_still_be_for_the_host(
        self, web_authority: Authority, identity: Identity
    ) -> None:
        credentials = make_credentials(web_authority, "other.example.com")
        trust = UpstreamTrust([credentials.certificate])
        complaint = complaint_about(serve(credentials), trust, identity)
        assert complaint == f"is for other.example.com, not for {HOST}"

    def test_it_must_still_be_valid(self, web_authority: Authority, identity: Identity) -> None:
        credentials = make_credentials(
            web_authority, HOST, not_before=NOW - HOUR, not_after=NOW - MINUTE
        )
        trust = UpstreamTrust([credentials.certificate])
        complaint = complaint_about(serve(credentials), trust, identity)
        assert complaint == "(CN=example) has expired"

    def test_what_another_intermediate_authority_signed_is_not_trusted(
        self, intermediate: Authority, web_authority: Authority, identity: Identity
    ) -> None:
        server = serve(make_credentials(web_authority, HOST))
        trust = UpstreamTrust([intermediate.certificate])
        assert complaint_about(server, trust, identity) is not None


class TestComplaints:
    """The end of the sentence "the certificate that the Teleport Proxy at … showed …"."""

    def complaint(
        self, credentials: Credentials, authority: Authority, identity: Identity, host: str = HOST
    ) -> str | None:
        trust = UpstreamTrust([authority.certificate])
        return complaint_about(serve(credentials), trust, identity, host)

    def test_an_unknown_authority(self, web_authority: Authority, identity: Identity) -> None:
        foreign = make_credentials(make_authority("foreign"), HOST, common_name="proxy")
        assert self.complaint(foreign, web_authority, identity) == (
            "(CN=proxy) was issued by an authority that is not trusted"
        )

    def test_a_self_signed_certificate(self, web_authority: Authority, identity: Identity) -> None:
        own = make_credentials(None, HOST, common_name="proxy")
        assert self.complaint(own, web_authority, identity) == "(CN=proxy) is self-signed"

    def test_an_expired_certificate(self, web_authority: Authority, identity: Identity) -> None:
        old = make_credentials(
            web_authority, HOST, not_before=NOW - 2 * MINUTE, not_after=NOW - MINUTE
        )
        assert self.complaint(old, web_authority, identity) == "(CN=example) has expired"

    def test_a_certificate_of_tomorrow(self, web_authority: Authority, identity: Identity) -> None:
        early = make_credentials(
            web_authority, HOST, not_before=NOW + HOUR, not_after=NOW + 2 * HOUR
        )
        assert self.complaint(early, web_authority, identity) == "(CN=example) is not valid yet"

    def test_another_name(self, web_authority: Authority, identity: Identity) -> None:
        other = make_credentials(web_authority, "other.example.com", "10.0.0.1")
        assert self.complaint(other, web_authority, identity) == (
            "is for other.example.com, 10.0.0.1, not for teleport.example.com"
        )

    @pytest.mark.parametrize("names", [["127.0.0.2"], ["localhost"], ["127.0.0.1.example.com"]])
    def test_another_ip_address(
        self, names: Sequence[str], web_authority: Authority, identity: Identity
    ) -> None:
        other = make_credentials(web_authority, *names)
        complaint = self.complaint(other, web_authority, identity, "127.0.0.1")
        assert complaint == f"is for {names[0]}, not for 127.0.0.1"

    def test_an_ip_address_among_the_dns_names(
        self, web_authority: Authority, identity: Identity
    ) -> None:
        other = make_credentials(web_authority, "localhost")
        assert self.complaint(other, web_authority, identity, "::1") is not None

    def test_a_name_in_the_common_name_only(
        self, web_authority: Authority, identity: Identity
    ) -> None:
        old_fashioned = make_credentials(web_authority, common_name=HOST)
        assert self.complaint(old_fashioned, web_authority, identity) == (
            f"is for no name at all, not for {HOST}"
        )

    def test_a_wildcard_stands_for_one_label(
        self, web_authority: Authority, identity: Identity
    ) -> None:
        wildcard = make_credentials(web_authority, "*.example.com")
        assert self.complaint(wildcard, web_authority, identity, "a.b.example.com") is not None
        assert self.complaint(wildcard, web_authority, identity, "example.com") is not None

    def test_a_certificate_for_clients(self, web_authority: Authority, identity: Identity) -> None:
        client = make_credentials(web_authority, HOST, usages=[CLIENT_AUTH])
        assert self.complaint(client, web_authority, identity) == (
            "(CN=example) is not meant for this end of a TLS connection (its extended key usage)"
        )

    def test_an_expired_authority(self, web_authority: Authority, identity: Identity) -> None:
        root = make_credentials(
            None, common_name="expired", not_before=NOW - HOUR, not_after=NOW - MINUTE, ca=True
        )
        expired = Authority(root.certificate, root.key)
        server = make_credentials(expired, HOST)
        assert self.complaint(server, expired, identity) == (
            "does not verify: its issuer (CN=expired) has expired"
        )

    def test_a_certificate_that_issues_certificates_without_being_allowed_to(
        self, web_authority: Authority, identity: Identity
    ) -> None:
        leaf = make_credentials(web_authority, "leaf.example.com", common_name="leaf")
        abused = Authority(leaf.certificate, leaf.key)
        server = server_layer(make_credentials(abused, HOST), chain=[leaf.certificate])
        complaint = complaint_about(server, UpstreamTrust([web_authority.certificate]), identity)
        assert complaint == "does not verify: its issuer (CN=leaf) may not issue certificates"

    @pytest.mark.parametrize("trusted", [False, True])
    def test_a_certificate_that_cannot_be_parsed(
        self, trusted: bool, web_authority: Authority, identity: Identity
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_malformed(context, make_credentials(web_authority, HOST), web_authority.key)
        server = StdlibTLS(context, server_side=True)
        trust = UpstreamTrust([web_authority.certificate] if trusted else [])
        complaint = complaint_about(server, trust, identity)
        assert complaint is not None
        assert "malformed" in complaint


def test_an_insecure_choice_trusts_anybody(identity: Identity) -> None:
    stranger = serve(make_credentials(None, "stranger", not_after=NOW - MINUTE, age=HOUR))
    assert complaint_about(stranger, UpstreamTrust(insecure=True), identity) is None


class TestOurCertificate:
    """Who gets to see it."""

    def shown_to(
        self,
        authority: Authority,
        identity: Identity,
        trust: UpstreamTrust,
        *,
        authenticate: bool = True,
        names: Sequence[str] = (HOST,),
    ) -> bytes | None:
        context = server_context(make_credentials(authority, *names))
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=certificate_pem(*identity.user_cas).decode())
        server = StdlibTLS(context, server_side=True)
        connection, _ = trust.connection(HOST, ALPN, identity, authenticate=authenticate)
        shake_hands(TLSLayer(connection), server)
        return server.tls.getpeercert(binary_form=True)

    def test_a_trusted_server_sees_it(self, web_authority: Authority, identity: Identity) -> None:
        trust = UpstreamTrust([web_authority.certificate])
        assert self.shown_to(web_authority, identity, trust) == identity.certificate_der

    def test_no_server_sees_it_unless_it_is_to_authenticate_us(
        self, web_authority: Authority, identity: Identity
    ) -> None:
        trust = UpstreamTrust([web_authority.certificate])
        assert self.shown_to(web_authority, identity, trust, authenticate=False) is None
        assert self.shown_to(web_authority, identity, trust) is not None
        assert self.shown_to(web_authority, identity, trust, authenticate=False) is None

    def test_a_server_that_is_not_trusted_does_not_see_it(
        self, web_authority: Authority, identity: Identity
    ) -> None:
        context = server_context(make_credentials(make_authority(), HOST))
        context.verify_mode = ssl.CERT_OPTIONAL
        server = StdlibTLS(context, server_side=True)
        trust = UpstreamTrust([web_authority.certificate])
        connection, _ = trust.connection(HOST, ALPN, identity, authenticate=True)
        with pytest.raises(LayerError):
            shake_hands(TLSLayer(connection), server)
        assert server.handshaking

    def test_a_new_generation_shows_its_own(
        self, web_authority: Authority, cluster: Cluster, identity: Identity
    ) -> None:
        trust = UpstreamTrust([web_authority.certificate])
        key = make_key()
        renewed = replace(
            identity,
            generation=2,
            private_key=key,
            certificate=make_certificate(cluster.user, key),
        )
        assert self.shown_to(web_authority, identity, trust) == identity.certificate_der
        assert self.shown_to(web_authority, renewed, trust) == renewed.certificate_der


@pytest.mark.parametrize(
    ("host", "sni"),
    [
        (HOST, HOST),
        ("bücher.example", "xn--bcher-kva.example"),
        ("127.0.0.1", None),
        ("::1", None),
    ],
)
def test_the_servers_name_is_sent_unless_it_is_an_address(
    host: str, sni: str | None, identity: Identity, web_authority: Authority
) -> None:
    names: list[str | None] = []
    context = server_context(make_credentials(web_authority, HOST))
    context.sni_callback = lambda _tls, name, _context: names.append(name)
    server = StdlibTLS(context, server_side=True)
    complaint_about(server, UpstreamTrust(insecure=True), identity, host)
    assert names == [sni]


@pytest.mark.parametrize(
    ("known", "chosen"),
    [(ALPN, ALPN[0]), (ALPN[1:], ALPN[1]), (("http/1.1", *ALPN[::-1]), ALPN[1]), (("h2",), None)],
)
def test_all_alpn_values_are_offered(
    known: Sequence[str], chosen: str | None, identity: Identity, web_authority: Authority
) -> None:
    server = StdlibTLS(
        server_context(make_credentials(web_authority, HOST), alpn=known), server_side=True
    )
    complaint_about(server, UpstreamTrust(insecure=True), identity)
    assert server.tls.selected_alpn_protocol() == chosen


def test_a_version_before_tls_1_2_is_refused(identity: Identity) -> None:
    connection, _ = UpstreamTrust(insecure=True).connection(
        HOST, ALPN, identity, authenticate=False
    )
    layer = TLSLayer(connection)
    layer.start()
    hello = b"\x03\x02" + bytes(range(32)) + b"\0\x00\x2f\x00"
    message = b"\x02" + len(hello).to_bytes(3, "big") + hello
    with pytest.raises(TLSError, match="unsupported protocol"):
        layer.receive(b"\x16\x03\x02" + len(message).to_bytes(2, "big") + message)


def test_the_contexts_of_an_earlier_generation_are_dropped(identity: Identity) -> None:
    trust = UpstreamTrust()

    def context_of(generation: int) -> "weakref.ref[object]":
        current = replace(identity, generation=generation)
        connection, _ = trust.connection(HOST, ALPN, current, authenticate=True)
        again, _ = trust.connection(HOST, ALPN, current, authenticate=True)
        assert again.get_context() is connection.get_context()
        return weakref.ref(connection.get_context())

    first, second = context_of(1), context_of(2)
    gc.collect()
    assert first() is None
    assert second() is not None


class TestInnerConnections:
    """The Teleport Proxy itself, inside of an upgraded connection."""

    def trusted(
        self, credentials: Credentials, identity: Identity, trust: UpstreamTrust, host: str = HOST
    ) -> bool:
        connection, judgement = trust.inner_connection(host, ALPN, identity, authenticate=False)
        try:
            shake_hands(TLSLayer(connection), serve(credentials))
        except TLSError:
            assert judgement.complaint is not None
            return False
        return True

    def test_the_host_ca_alone_vouches(
        self,
        cluster: Cluster,
        web_authority: Authority,
        identity: Identity,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        system = make_authority("system")
        (tmp_path / "roots.pem").write_bytes(system.pem)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "roots.pem"))
        trust = UpstreamTrust([web_authority.certificate])
        shown = {
            name: self.trusted(make_credentials(authority, HOST), identity, trust)
            for name, authority in (
                ("host", cluster.host),
                ("user", cluster.user),
                ("web", web_authority),
                ("system", system),
            )
        }
        assert shown == {"host": True, "user": False, "web": False, "system": False}

    def test_another_host_of_the_cluster_cannot_pose_as_the_proxy(
        self, cluster: Cluster, identity: Identity
    ) -> None:
        agent = make_credentials(cluster.host, "agent.teleport.cluster.local")
        assert not self.trusted(agent, identity, UpstreamTrust())

    def test_with_a_server_name_either_name_will_do(
        self, cluster: Cluster, identity: Identity
    ) -> None:
        trust = UpstreamTrust(server_name="balancer.example.com")
        for names, trusted in (
            ([HOST], True),
            (["balancer.example.com"], True),
            (["localhost", "127.0.0.1"], False),
        ):
            credentials = make_credentials(cluster.host, *names)
            assert self.trusted(credentials, identity, trust) is trusted

    def test_insecure_goes_for_them_and_pins_do_not(self, identity: Identity) -> None:
        stranger = make_credentials(None, "stranger")
        trust = UpstreamTrust(insecure=True, pins=frozenset([bytes(32)]))
        assert self.trusted(stranger, identity, trust)

    def test_our_certificate_is_shown_on_request(
        self, cluster: Cluster, identity: Identity
    ) -> None:
        for authenticate in (True, False):
            context = server_context(make_credentials(cluster.host, HOST))
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(cadata=certificate_pem(*identity.user_cas).decode())
            server = StdlibTLS(context, server_side=True)
            connection, _ = UpstreamTrust().inner_connection(
                HOST, ALPN, identity, authenticate=authenticate
            )
            shake_hands(TLSLayer(connection), server)
            assert (server.tls.getpeercert(binary_form=True) is not None) is authenticate


class TestOutboundProxies:
    """A company's `https://` proxy."""

    def test_a_given_root_vouches_and_our_certificate_is_never_shown(
        self, web_authority: Authority, identity: Identity
    ) -> None:
        trust = UpstreamTrust([web_authority.certificate], server_name=HOST)
        trust.connection(HOST, ALPN, identity, authenticate=True)
        context = server_context(make_credentials(web_authority, "proxy.example.com"))
        context.verify_mode = ssl.CERT_OPTIONAL
        server = StdlibTLS(context, server_side=True)
        connection, _ = trust.outbound_proxy_connection("proxy.example.com")
        shake_hands(TLSLayer(connection), server)
        assert server.tls.getpeercert(binary_form=True) is None
        assert server.tls.selected_alpn_protocol() is None

    @pytest.mark.parametrize("names", [["proxy.example.com"], [HOST]])
    def test_the_host_ca_and_other_names_do_not_count(
        self, names: Sequence[str], cluster: Cluster, web_authority: Authority
    ) -> None:
        authority = cluster.host if names[0] != HOST else web_authority
        trust = UpstreamTrust([web_authority.certificate], server_name=HOST)
        connection, judgement = trust.outbound_proxy_connection("proxy.example.com")
        with pytest.raises(TLSError):
            shake_hands(TLSLayer(connection), serve(make_credentials(authority, *names)))
        assert judgement.complaint is not None

    def test_its_context_outlives_a_generation(self, identity: Identity) -> None:
        trust = UpstreamTrust()
        first, _ = trust.outbound_proxy_connection("proxy.example.com")
        trust.connection(HOST, ALPN, replace(identity, generation=2), authenticate=True)
        second, _ = trust.outbound_proxy_connection("proxy.example.com")
        assert second.get_context() is first.get_context()


class TestServerNames:
    """`--server-name` for the outer layer."""

    def test_it_is_the_sni_and_what_the_certificate_must_be_for(
        self, web_authority: Authority, identity: Identity
    ) -> None:
        asked: list[str | None] = []
        context = server_context(make_credentials(web_authority, HOST))
        context.sni_callback = lambda _tls, name, _context: asked.append(name)
        trust = UpstreamTrust([web_authority.certificate], server_name=HOST)
        server = StdlibTLS(context, server_side=True)
        assert complaint_about(server, trust, identity, "10.0.0.1") is None
        assert asked == [HOST]

    def test_the_address_does_not_count_any_more(
        self, web_authority: Authority, identity: Identity
    ) -> None:
        trust = UpstreamTrust([web_authority.certificate], server_name="other.example.com")
        complaint = complaint_about(serve(make_credentials(web_authority, HOST)), trust, identity)
        assert complaint == f"is for {HOST}, not for other.example.com"

    @pytest.mark.parametrize(
        ("text", "name"), [(HOST, HOST), (f" {HOST}. ", HOST), ("10.0.0.1", "10.0.0.1")]
    )
    def test_names_and_addresses_are_taken(self, text: str, name: str) -> None:
        assert parse_server_name(text) == name

    @pytest.mark.parametrize("text", ["", ".", "a b", f"{HOST}:443", "x" * 64, "https://x", "*.a"])
    def test_anything_else_is_one_sentence(self, text: str) -> None:
        with pytest.raises(UsageError, match="is neither a host name nor an IP address"):
            parse_server_name(text)


def test_a_server_that_asks_for_another_handshake_is_told_no(
    web_authority: Authority, identity: Identity
) -> None:
    """In the middle of one, what the client sends would be lost."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    make_credentials(web_authority, HOST).use_in(context)
    accepting = SSL.Connection(context, None)
    accepting.set_accept_state()
    server = TLSLayer(accepting)
    trust = UpstreamTrust([web_authority.certificate])
    connection, _judgement = trust.connection(HOST, ALPN, identity, authenticate=False)
    layer = TLSLayer(connection)
    shake_hands(layer, server)

    accepting.renegotiate()
    accepting.do_handshake()
    assert layer.receive(server.outgoing()) == b""
    layer.send(b"question")
    wire, kinds = layer.outgoing(), []
    while wire:
        kinds.append(wire[0])
        wire = wire[5 + int.from_bytes(wire[3:5], "big") :]
    assert kinds == [ALERT, APPLICATION_DATA]
