"""What a Teleport Proxy says about itself, in several versions, and whatever else may answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.upstream import FetchedAnswer, ProxyAddress
from dbproxy.upstream.webapi import (
    MAXIMUM_ANSWER,
    AnswerError,
    ClusterFacts,
    database_address,
    parse_find,
    web_address,
)

ANSWERED = ProxyAddress("given.example.com", 8443)

V9: dict[str, Any] = {
    "auth": {"type": "local", "second_factor": "otp"},
    "proxy": {
        "kube": {"enabled": True, "listen_addr": "0.0.0.0:3080"},
        "ssh": {
            "listen_addr": "0.0.0.0:3023",
            "tunnel_listen_addr": "0.0.0.0:3024",
            "public_addr": "teleport.example.com:443",
        },
        "db": {"mysql_listen_addr": "0.0.0.0:3036"},
        "tls_routing_enabled": True,
    },
    "server_version": "9.3.26",
    "min_client_version": "8.0.0",
    "cluster_name": "example",
}
"""Before the web listener had a field of its own."""

V13: dict[str, Any] = {
    "proxy": {
        "kube": {"enabled": False},
        "ssh": {
            "listen_addr": "0.0.0.0:3080",
            "tunnel_listen_addr": "0.0.0.0:3080",
            "web_listen_addr": "0.0.0.0:3080",
        },
        "db": {},
        "tls_routing_enabled": True,
    },
    "server_version": "13.4.26",
    "min_client_version": "12.0.0",
    "cluster_name": "example",
    "automatic_upgrades": False,
}
"""Without a public address."""

V18: dict[str, Any] = {
    "auth": {"type": "local", "allow_passwordless": True, "signature_algorithm_suite": 4},
    "proxy": {
        "kube": {"enabled": True, "listen_addr": "0.0.0.0:443"},
        "ssh": {
            "web_listen_addr": "0.0.0.0:443",
            "public_addr": "teleport.example.com:443",
            "dial_timeout": 30000000000,
        },
        "db": {
            "postgres_listen_addr": "0.0.0.0:443",
            "mysql_listen_addr": "0.0.0.0:443",
            "postgres_public_addr": "postgres.example.com:5432",
        },
        "tls_routing_enabled": True,
    },
    "server_version": "18.1.0",
    "min_client_version": "17.0.0-aa",
    "cluster_name": "example",
    "edition": "oss",
    "fips": False,
    "auto_update": {"tools_version": "18.1.0", "tools_auto_update": False},
}

SEPARATE: dict[str, Any] = {
    "proxy": {
        "ssh": {"web_listen_addr": "0.0.0.0:3080", "public_addr": "teleport.example.com:443"},
        "db": {
            "postgres_public_addr": "postgres.example.com",
            "postgres_listen_addr": "0.0.0.0:5432",
            "mysql_listen_addr": "0.0.0.0:3307",
        },
        "tls_routing_enabled": False,
    },
    "server_version": "15.4.0",
    "cluster_name": "example",
}
"""With a listener for each database protocol (`proxy_listener_mode: separate`)."""


def answer(document: object, status: int = 200, **headers: str) -> FetchedAnswer:
    return FetchedAnswer(status, headers, json.dumps(document).encode())


def page(body: bytes, status: int = 200, **headers: str) -> FetchedAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return FetchedAnswer(status, named, body)


def proxy_with(ssh: dict[str, Any] | None = None, db: dict[str, Any] | None = None) -> ClusterFacts:
    return parse_find(answer({"proxy": {"ssh": ssh or {}, "db": db or {}}}))


class TestFacts:
    """What is understood."""

    @pytest.mark.parametrize(
        ("document", "version", "oldest_client"),
        [
            (V9, "9.3.26", "8.0.0"),
            (V13, "13.4.26", "12.0.0"),
            (V18, "18.1.0", "17.0.0-aa"),
        ],
    )
    def test_every_version_says_what_it_is(
        self, document: dict[str, Any], version: str, oldest_client: str
    ) -> None:
        facts = parse_find(answer(document))
        assert facts.server_version == version
        assert facts.min_client_version == oldest_client
        assert facts.cluster_name == "example"
        assert facts.tls_routing_enabled is True

    def test_what_is_missing_is_not_known(self) -> None:
        assert parse_find(answer({"proxy": {}})) == ClusterFacts(
            database_public_addrs={}, database_listen_addrs={}
        )

    def test_null_and_the_empty_text_count_as_missing(self) -> None:
        document = {
            "proxy": {"ssh": None, "db": {"mysql_public_addr": ""}, "tls_routing_enabled": None},
            "cluster_name": None,
        }
        assert parse_find(answer(document)) == parse_find(answer({"proxy": {}}))

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_any_encoding_of_json_will_do(self, encoding: str) -> None:
        assert parse_find(page(json.dumps(V18).encode(encoding))) == parse_find(answer(V18))

    def test_what_is_not_used_may_look_as_it_likes(self) -> None:
        document = V18 | {"edition": ["?"], "auth": "none", "fips": 7}
        assert parse_find(answer(document)) == parse_find(answer(V18))


class TestOtherAnswers:
    """What is not a Teleport Proxy's is named as what it looks like."""

    @pytest.mark.parametrize(
        ("other", "what"),
        [
            (page(b"<!DOCTYPE html><title>Shop</title>"), "answered with a web page"),
            (page(b"Welcome", content_type="text/html; charset=utf-8"), "answered with a web page"),
            (page(b""), "answered with an empty page"),
            (page(b"pong"), "answered with something that is not Teleport's JSON"),
            (page(b"\xff\xfe\xff"), "answered with something that is not Teleport's JSON"),
            (answer([1, 2]), "answered with something that is not Teleport's JSON"),
            (answer({"status": "ok"}), "answered with JSON that is not a Teleport Proxy's"),
            (answer({"proxy": "squid"}), "answered with JSON that is not a Teleport Proxy's"),
            (page(b"not found", status=404), "answered with HTTP status 404"),
            (page(b"", 302, location="https://x/"), "status 302, a redirect to 'https://x/'"),
            (page(b"", 200, location="https://x/"), "answered with an empty page"),
            (
                answer({"error": {"message": "access denied"}}, 403),
                "answered with HTTP status 403: 'access denied'",
            ),
            (answer({"error": {"message": "a" * 9999}}, 500), f": '{'a' * 200}…'"),
            (answer({"error": {"message": 1}}, 500), "answered with HTTP status 500"),
            (answer({"error": "no"}, 500), "answered with HTTP status 500"),
            (answer(V18, 503), "answered with HTTP status 503"),
            (page(b"[" * 100_000), "answered with something that is not Teleport's JSON"),
            (page(b"1" * 100_000), "answered with something that is not Teleport's JSON"),
            (page(b" " * (MAXIMUM_ANSWER + 1)), f"answered with more than {MAXIMUM_ANSWER} bytes"),
        ],
    )
    def test_it_is_named(self, other: FetchedAnswer, what: str) -> None:
        with pytest.raises(AnswerError) as caught:
            parse_find(other)
        assert what in str(caught.value)
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize(
        ("document", "what"),
        [
            ({"proxy": {"ssh": []}}, "answered with a proxy.ssh that is not an object"),
            ({"proxy": {"db": "x"}}, "answered with a proxy.db that is not an object"),
            ({"proxy": {"ssh": {"public_addr": 1}}}, "a proxy.ssh.public_addr that is not a print"),
            ({"proxy": {"tls_routing_enabled": "no"}}, "tls_routing_enabled that is not true or"),
            (
                {"proxy": {"tls_routing_enabled": 0}},
                "tls_routing_enabled that is not true or false",
            ),
            ({"proxy": {"db": {"mongo_listen_addr": {}}}}, "a proxy.db.mongo_listen_addr that is"),
            ({"proxy": {}, "cluster_name": "a\x1b[31m"}, "a cluster_name that is not a printable"),
            ({"proxy": {}, "server_version": "\ud800"}, "a server_version that is not a printable"),
            ({"proxy": {}, "cluster_name": "a" * 1025}, "a cluster_name that is not a printable"),
        ],
    )
    def test_what_is_used_must_be_of_the_right_kind(self, document: object, what: str) -> None:
        with pytest.raises(AnswerError) as caught:
            parse_find(answer(document))
        assert what in str(caught.value)


class TestWebAddress:
    """Where the cluster wants to be reached."""

    @pytest.mark.parametrize(
        ("ssh", "address"),
        [
            ({"public_addr": "teleport.example.com:3080"}, "teleport.example.com:3080"),
            ({"public_addr": "https://Teleport.example.com:1"}, "teleport.example.com:1"),
            ({"public_addr": "[2001:db8::7]:443"}, "[2001:db8::7]:443"),
            ({"public_addr": "t.example.com"}, "t.example.com:443"),
            (
                {"public_addr": "t.example.com", "web_listen_addr": "[::]:3080"},
                "t.example.com:3080",
            ),
            ({"public_addr": "t.example.com", "web_listen_addr": ":3080"}, "t.example.com:3080"),
            ({"public_addr": "t.example.com", "web_listen_addr": "0.0.0.0"}, "t.example.com:443"),
            ({"web_listen_addr": "0.0.0.0:3080"}, "given.example.com:8443"),
            ({}, "given.example.com:8443"),
            ({"public_addr": "0.0.0.0:3080"}, "given.example.com:8443"),
            ({"public_addr": "[::]:3080"}, "given.example.com:8443"),
            ({"public_addr": "127.0.0.1:3080"}, "127.0.0.1:3080"),
        ],
    )
    def test_is_the_public_one_or_else_the_one_that_answered(
        self, ssh: dict[str, Any], address: str
    ) -> None:
        assert str(web_address(proxy_with(ssh), ANSWERED)) == address

    @pytest.mark.parametrize(
        ("ssh", "field"),
        [
            ({"public_addr": "a b"}, "proxy.ssh.public_addr as 'a b': 'a b' is neither"),
            ({"public_addr": "host:0"}, "proxy.ssh.public_addr as 'host:0': the port 0"),
            ({"public_addr": "h", "web_listen_addr": "x:y"}, "proxy.ssh.web_listen_addr as 'x:y'"),
        ],
    )
    def test_what_is_no_address_is_told_with_its_field(
        self, ssh: dict[str, Any], field: str
    ) -> None:
        with pytest.raises(AnswerError) as caught:
            web_address(proxy_with(ssh), ANSWERED)
        assert str(caught.value).startswith(f"publishes {field}")


class TestDatabaseAddress:
    """Where databases are served when TLS routing is off."""

    PUBLIC = "teleport.example.com:8444"

    @pytest.mark.parametrize(
        ("protocol", "db", "address"),
        [
            ("postgres", {"postgres_public_addr": "pg.example.com:1"}, "pg.example.com:1"),
            ("postgres", {"postgres_public_addr": "pg.example.com"}, "pg.example.com:8444"),
            ("postgres", {"postgres_listen_addr": "0.0.0.0:1"}, "teleport.example.com:1"),
            ("postgres", {"postgres_listen_addr": "0.0.0.0"}, "teleport.example.com:5432"),
            ("postgres", {}, "teleport.example.com:8444"),
            ("mysql", {"mysql_public_addr": "my.example.com"}, "my.example.com:3036"),
            ("mysql", {"mysql_listen_addr": ":3307"}, "teleport.example.com:3307"),
            ("mysql", {"mysql_listen_addr": "0.0.0.0"}, "teleport.example.com:3036"),
            ("mongodb", {"mongo_public_addr": "mg.example.com"}, "mg.example.com:8444"),
            ("mongodb", {"mongo_listen_addr": "0.0.0.0"}, "teleport.example.com:27017"),
        ],
    )
    def test_is_the_public_one_or_else_the_listeners_port_at_the_webs_host(
        self, protocol: str, db: dict[str, Any], address: str
    ) -> None:
        facts = proxy_with({"public_addr": self.PUBLIC}, db)
        assert str(database_address(facts, protocol, ANSWERED)) == address

    def test_a_public_address_beats_a_listener(self) -> None:
        facts = parse_find(answer(SEPARATE))
        assert facts.tls_routing_enabled is False
        found = {
            protocol: str(database_address(facts, protocol, ANSWERED))
            for protocol in ("postgres", "mysql")
        }
        assert found == {
            "postgres": "postgres.example.com:443",
            "mysql": "teleport.example.com:3307",
        }

    @pytest.mark.parametrize("protocol", ["mysql", "mongodb", "redis", "oracle"])
    def test_there_is_none_where_nothing_is_published(self, protocol: str) -> None:
        assert database_address(proxy_with(), protocol, ANSWERED) is None

    def test_what_is_no_address_is_told_with_its_field(self) -> None:
        facts = proxy_with(db={"mysql_listen_addr": "h:x"})
        with pytest.raises(AnswerError, match=r"publishes proxy\.db\.mysql_listen_addr as 'h:x'"):
            database_address(facts, "mysql", ANSWERED)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
ADDRESSES = st.text() | st.sampled_from(["h", "h:1", ":1", "[::1]:1", "http://h", "h:0"]) | JSON
NEARLY = st.fixed_dictionaries(
    {
        "proxy": st.fixed_dictionaries(
            {},
            optional={
                "ssh": st.fixed_dictionaries(
                    {}, optional={"public_addr": ADDRESSES, "web_listen_addr": ADDRESSES}
                ),
                "db": st.fixed_dictionaries(
                    {},
                    optional={"mysql_public_addr": ADDRESSES, "mysql_listen_addr": ADDRESSES},
                ),
                "tls_routing_enabled": st.booleans() | JSON,
            },
        )
    },
    optional={"cluster_name": JSON, "server_version": JSON},
)


class TestAnything:
    """Whatever comes in, there is a value or the module's own error."""

    @given(st.binary(), st.integers(100, 599))
    def test_of_any_bytes(self, body: bytes, status: int) -> None:
        with pytest.raises(AnswerError):
            parse_find(FetchedAnswer(status, {}, body))

    @given(JSON | NEARLY, st.sampled_from([200, 404]))
    def test_of_any_json(self, document: object, status: int) -> None:
        try:
            facts = parse_find(answer(document, status))
            addresses = [
                web_address(facts, ANSWERED),
                database_address(facts, "mysql", ANSWERED),
            ]
        except AnswerError as error:
            told = str(error)
        else:
            told = ""
            assert all(0 < address.port < 65536 for address in addresses if address is not None)
        assert len(told) < 5000
        assert told.isprintable()

    @pytest.mark.parametrize("size", range(0, len(json.dumps(V18)), 7))
    def test_of_an_answer_that_is_cut_off(self, size: int) -> None:
        with pytest.raises(AnswerError):
            parse_find(page(json.dumps(V18).encode()[:size]))
