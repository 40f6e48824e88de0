"""The line to paste, for the usual client of each protocol."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from dbproxy.protocols import ConnectionFacts, protocol_named
from dbproxy.protocols.unknown import UnknownProtocol
from dbproxy.settings import Mode

TLS = ConnectionFacts(
    host="localhost",
    port=12345,
    mode=Mode.PASSTHROUGH,
    user="alice",
    database="example",
    ca_file=Path("/id/ca.crt"),
    certificate_file=Path("/id/tlscert"),
    key_file=Path("/id/key"),
)
PLAIN = replace(TLS, mode=Mode.TUNNEL, ca_file=None, certificate_file=None, key_file=None)

LINES = {
    "redis": (
        (
            "redis-cli -h localhost -p 12345 --tls --cacert /id/ca.crt --cert /id/tlscert"
            " --key /id/key"
        ),
        "redis-cli -h localhost -p 12345",
    ),
    "mongodb": (
        (
            "mongosh 'mongodb://localhost:12345/example?directConnection=true' --tls --tlsCAFile"
            " /id/ca.crt --tlsCertificateKeyFile <(cat /id/tlscert /id/key)"
        ),
        "mongosh 'mongodb://localhost:12345/example?directConnection=true'",
    ),
    "cassandra": (
        (
            "env SSL_CERTFILE=/id/ca.crt SSL_USERCERT=/id/tlscert SSL_USERKEY=/id/key"
            " cqlsh localhost 12345 -u alice --ssl"
        ),
        "cqlsh localhost 12345 -u alice",
    ),
    "clickhouse": (
        (
            "clickhouse-client --host localhost --port 12345 --user alice --database example"
            " --secure --config-file <(echo '<config><openSSL><client>"
            "<caConfig>/id/ca.crt</caConfig>"
            "<certificateFile>/id/tlscert</certificateFile><privateKeyFile>/id/key</privateKeyFile>"
            "</client></openSSL></config>')"
        ),
        "clickhouse-client --host localhost --port 12345 --user alice --database example",
    ),
    "elasticsearch": (
        "curl --cacert /id/ca.crt --cert /id/tlscert --key /id/key https://localhost:12345/",
        "curl http://localhost:12345/",
    ),
    "opensearch": (
        "curl --cacert /id/ca.crt --cert /id/tlscert --key /id/key https://localhost:12345/",
        "curl http://localhost:12345/",
    ),
    "clickhouse-http": (
        (
            "curl --cacert /id/ca.crt --cert /id/tlscert --key /id/key"
            " 'https://localhost:12345/?query=SELECT%201'"
        ),
        "curl 'http://localhost:12345/?query=SELECT%201'",
    ),
    "dynamodb": (
        "curl --cacert /id/ca.crt --cert /id/tlscert --key /id/key https://localhost:12345/",
        "aws dynamodb list-tables --endpoint-url http://localhost:12345",
    ),
    "snowflake": (
        "curl --cacert /id/ca.crt --cert /id/tlscert --key /id/key https://localhost:12345/",
        "snowsql -a teleport -h localhost -p 12345 --protocol http -u alice",
    ),
    "mysql": (
        (
            "mysql --host=localhost --port=12345 --protocol=tcp --user=alice --ssl-ca=/id/ca.crt"
            " --ssl-cert=/id/tlscert --ssl-key=/id/key --loose-ssl-verify-server-cert"
            " --loose-ssl-mode=VERIFY_IDENTITY --database=example"
        ),
        (
            "mysql --host=localhost --port=12345 --protocol=tcp --user=alice --loose-skip-ssl"
            " --database=example"
        ),
    ),
    "sqlserver": (
        "sqlcmd -S localhost,12345 -Nm -U alice -P '' -d example",
        "sqlcmd -S localhost,12345 -No -U alice -P '' -d example",
    ),
    "spanner": (
        "grpcurl -cacert /id/ca.crt -cert /id/tlscert -key /id/key localhost:12345 list",
        "env SPANNER_EMULATOR_HOST=localhost:12345 spanner-cli",
    ),
    "oracle": (
        "sqlplus alice/@tcps://localhost:12345/example",
        "sqlplus alice/@tcp://localhost:12345/example",
    ),
    "cockroachdb": (
        (
            "cockroach sql --url 'postgresql://alice@localhost:12345/example?sslmode=verify-full"
            "&sslrootcert=%2Fid%2Fca.crt&sslcert=%2Fid%2Ftlscert&sslkey=%2Fid%2Fkey'"
        ),
        "cockroach sql --url 'postgresql://alice@localhost:12345/example?sslmode=disable'",
    ),
}

every_protocol = pytest.mark.parametrize("name", LINES)


@every_protocol
def test_with_tls_the_files_are_named(name: str) -> None:
    for mode in (Mode.PASSTHROUGH, Mode.TERMINATE):
        assert protocol_named(name).connect_command(replace(TLS, mode=mode)) == LINES[name][0]


@every_protocol
def test_without_tls_there_are_no_files(name: str) -> None:
    assert protocol_named(name).connect_command(PLAIN) == LINES[name][1]


@every_protocol
def test_what_is_not_known_is_left_out(name: str) -> None:
    for facts in (replace(TLS, ca_file=None), PLAIN):
        line = protocol_named(name).connect_command(replace(facts, user=None, database=None))
        assert "None" not in line
        assert "alice" not in line


@every_protocol
def test_strange_names_stay_one_word(name: str) -> None:
    strange = replace(PLAIN, user="a b'; rm -rf /", database="d e&f")
    assert "rm" not in shlex.split(protocol_named(name).connect_command(strange))


@every_protocol
@pytest.mark.parametrize(
    ("facts", "host"),
    [
        (replace(PLAIN, hostaddr="127.0.0.2"), "127.0.0.2"),
        (replace(TLS, hostaddr="127.0.0.2"), "127.0.0.2"),
        (replace(TLS, hostaddr="10.0.0.1", host="db.example.com"), "db.example.com"),
    ],
)
def test_the_host_is_one_that_leads_here(name: str, facts: ConnectionFacts, host: str) -> None:
    assert host in protocol_named(name).connect_command(facts)


URLS = sorted(set(LINES) - {"redis", "cassandra", "clickhouse", "snowflake", "mysql", "sqlserver"})


@pytest.mark.parametrize("name", URLS)
def test_an_ipv6_address_has_brackets_where_a_port_follows(name: str) -> None:
    line = protocol_named(name).connect_command(replace(PLAIN, hostaddr="::1"))
    assert "[::1]:12345" in line


def test_one_file_with_both_is_named_once() -> None:
    both = replace(TLS, certificate_file=Path("/id/mongo.crt"), key_file=Path("/id/mongo.crt"))
    line = protocol_named("mongodb").connect_command(both)
    assert line.endswith("--tlsCertificateKeyFile /id/mongo.crt")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("redis", "redis-cli -s /run/my.sock"),
        ("mongodb", "mongosh 'mongodb://%2Frun%2Fmy.sock/example?directConnection=true'"),
        ("elasticsearch", "curl --unix-socket /run/my.sock http://localhost/"),
        ("mysql", "mysql --socket=/run/my.sock --user=alice --loose-skip-ssl --database=example"),
    ],
)
def test_a_unix_socket_is_named_by_its_path(name: str, line: str) -> None:
    protocol = protocol_named(name)
    assert protocol.port_of_socket("my.sock") == protocol.default_port
    facts = replace(PLAIN, host="/run", socket=Path("/run/my.sock"))
    assert protocol.connect_command(facts) == line


def test_an_unknown_protocol_says_where_and_how() -> None:
    protocol = UnknownProtocol("unheard", ["x"])
    assert protocol.connect_command(PLAIN).endswith("localhost port 12345, without TLS")
    assert protocol.connect_command(TLS).endswith("with TLS and the files above")


def test_for_an_unknown_protocol_no_client_is_promised() -> None:
    """The port that it would name is closed by then."""
    client = UnknownProtocol("unheard", ["x"]).client(PLAIN)
    assert client.instead == "none is known for the protocol unheard"
