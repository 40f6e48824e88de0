"""Which protocol is carried, and with which ALPN values (Teleport's own table)."""

import pytest

from dbproxy.errors import ClientError, Code, IdentityError, UsageError
from dbproxy.protocols import Carry, StartTLS, check_mode, choose_protocol, protocol_named
from dbproxy.protocols.unknown import UnknownProtocol
from dbproxy.settings import Mode, Settings

ALPN = {
    "postgres": "teleport-postgres",
    "cockroachdb": "teleport-postgres",
    "mongodb": "teleport-mongodb",
    "mysql": "teleport-mysql",
    "oracle": "teleport-oracle",
    "redis": "teleport-redis",
    "snowflake": "teleport-snowflake",
    "sqlserver": "teleport-sqlserver",
    "cassandra": "teleport-cassandra",
    "elasticsearch": "teleport-elasticsearch",
    "opensearch": "teleport-opensearch",
    "dynamodb": "teleport-dynamodb",
    "clickhouse": "teleport-clickhouse",
    "clickhouse-http": "teleport-clickhouse",
    "spanner": "teleport-spanner",
}
TUNNELS_ONLY = {
    "snowflake",
    "dynamodb",
    "cassandra",
    "oracle",
    "clickhouse",
    "spanner",
    "sqlserver",
}
"""What Teleport's own tools make tunnels for."""

HELLO = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"


@pytest.mark.parametrize("name", ALPN)
def test_each_protocol_offers_teleports_values_with_pings_first(name: str) -> None:
    protocol = choose_protocol(Settings(), name)
    assert protocol.name == name
    assert list(protocol.alpn) == [f"{ALPN[name]}-ping", ALPN[name]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("redis", None),
        ("mongodb", None),
        ("cassandra", None),
        ("elasticsearch", b"http/1.1"),
        ("clickhouse-http", b"http/1.1"),
        ("spanner", b"h2"),
        ("cockroachdb", b"postgresql"),
        ("mysql", None),
        ("sqlserver", b"tds/8.0"),
    ],
)
def test_clients_whose_tls_ends_here_get_the_value_that_they_expect(
    name: str, value: bytes | None
) -> None:
    assert protocol_named(name).server_alpn() == value


@pytest.mark.parametrize("name", ALPN)
@pytest.mark.parametrize("mode", Mode)
def test_passthrough_is_refused_where_teleport_makes_tunnels(name: str, mode: Mode) -> None:
    if mode is not Mode.PASSTHROUGH or name not in TUNNELS_ONLY:
        check_mode(protocol_named(name), mode)
        return
    with pytest.raises(UsageError) as caught:
        check_mode(protocol_named(name), mode)
    assert protocol_named(name).readable_name in caught.value.message
    assert "--terminate" in caught.value.next_step
    assert "--tunnel" in caught.value.next_step


def test_the_operators_name_is_stronger_than_the_certificates() -> None:
    assert choose_protocol(Settings(protocol="redis"), "postgres").name == "redis"
    assert choose_protocol(Settings(protocol="redis"), "unheard").name == "redis"


def test_the_operators_value_replaces_the_usual_ones_for_this_port_alone() -> None:
    protocol = choose_protocol(Settings(alpn="teleport-redis-db"), "redis")
    assert protocol.name == "redis"
    assert list(protocol.alpn) == ["teleport-redis-db-ping", "teleport-redis-db"]
    assert list(protocol_named("redis").alpn) == ["teleport-redis-ping", "teleport-redis"]


@pytest.mark.parametrize("value", ["teleport-x-ping", "x" * 251, "x" * 255])
def test_a_value_with_pings_or_without_room_for_them_stands_alone(value: str) -> None:
    assert list(choose_protocol(Settings(alpn=value), "redis").alpn) == [value]


def test_an_unknown_protocol_of_the_certificate_is_refused_naming_both_options() -> None:
    with pytest.raises(IdentityError) as caught:
        choose_protocol(Settings(), "unheard")
    assert caught.value.code is Code.PROTOCOL_NOT_SUPPORTED
    assert "'unheard'" in caught.value.message
    assert "clickhouse-http, cockroachdb" in caught.value.message
    assert "--protocol" in caught.value.next_step
    assert "--alpn" in caught.value.next_step


def test_an_unknown_protocol_of_the_operator_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        choose_protocol(Settings(protocol="unheard"), "redis")
    assert "--protocol=unheard" in caught.value.message
    assert "postgres" in caught.value.message
    assert "--alpn" in caught.value.next_step


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (Settings(alpn="teleport-unheard"), "unheard"),
        (Settings(alpn="teleport-unheard", protocol="unheard"), "redis"),
    ],
)
def test_with_a_value_an_unknown_protocol_is_carried(settings: Settings, named: str) -> None:
    protocol = choose_protocol(settings, named)
    assert isinstance(protocol, UnknownProtocol)
    assert protocol.name == protocol.readable_name == "unheard"
    assert list(protocol.alpn) == ["teleport-unheard-ping", "teleport-unheard"]
    for mode in Mode:
        check_mode(protocol, mode)


@pytest.mark.parametrize("value", ["", "a b", "é", "a\n", "x" * 256])
def test_what_cannot_be_an_alpn_value_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="--alpn"):
        Settings(alpn=value)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(UsageError, match="--protocol"):
        Settings(protocol="")


class TestUnknownProtocol:
    PROTOCOL = UnknownProtocol("unheard", ["teleport-unheard"])

    @pytest.mark.parametrize("sent", [b"x", b"\x16", HELLO, b"GET / HTTP/1.1\r\n", bytes(9)])
    def test_passthrough_carries_everything_as_it_is(self, sent: bytes) -> None:
        prologue = self.PROTOCOL.prologue(Mode.PASSTHROUGH)
        assert prologue.receive(b"") == []
        assert prologue.receive(sent) == [Carry(sent, authenticate=False)]
        assert prologue.receive(b"more") == []

    @pytest.mark.parametrize("sent", [b"x", b"\x16\x02", b"GET / HTTP/1.1\r\n", bytes(9)])
    @pytest.mark.parametrize("mode", [Mode.TUNNEL, Mode.TERMINATE])
    def test_plaintext_is_carried_with_our_certificate(self, sent: bytes, mode: Mode) -> None:
        prologue = self.PROTOCOL.prologue(mode, inside_tls=mode is Mode.TERMINATE)
        assert prologue.receive(sent) == [Carry(sent, authenticate=True)]

    def test_tls_is_ended_in_terminate(self) -> None:
        assert self.PROTOCOL.prologue(Mode.TERMINATE).receive(HELLO) == [StartTLS(HELLO)]

    @pytest.mark.parametrize(
        ("mode", "sent", "answer"),
        [
            (Mode.TUNNEL, HELLO, b"\x15\x03\x03"),
            (Mode.TERMINATE, b"hello, world", b""),
            (Mode.TERMINATE, b"GET / HTTP/1.1\r\n", b"HTTP/1.1 400"),
        ],
    )
    def test_a_refusal_is_in_words_that_are_recognised(
        self, mode: Mode, sent: bytes, answer: bytes
    ) -> None:
        prologue = self.PROTOCOL.prologue(mode)
        with pytest.raises(ClientError, match="TLS") as caught:
            prologue.receive(sent)
        refusal = prologue.refusal(caught.value)
        assert refusal[: len(answer)] == answer
        assert bool(refusal) == bool(answer)
