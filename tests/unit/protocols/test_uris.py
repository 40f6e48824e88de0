"""URIs and variables, read back by the drivers that they are for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from clickhouse_driver.util.helpers import parse_url as clickhouse_url
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from pymongo.uri_parser import parse_uri as mongo_uri
from redis import connection as redis_connection
from sqlalchemy.engine import make_url

from dbproxy.protocols import (
    ClientEnvironment,
    ConnectionFacts,
    client_environment,
    protocol_named,
)
from dbproxy.protocols.choice import _ALL
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
SOCKET = replace(PLAIN, host="/run/app", port=5433, socket=Path("/run/app/.s.PGSQL.5433"))
NAMES = sorted(protocol.name for protocol in _ALL)

redis_url: Callable[[str], dict[str, Any]] = redis_connection.parse_url
every_protocol = pytest.mark.parametrize("name", NAMES)
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


def environment(name: str, facts: ConnectionFacts) -> ClientEnvironment:
    return client_environment(protocol_named(name), facts)


@every_protocol
@pytest.mark.parametrize("facts", [TLS, PLAIN, replace(TLS, ca_file=None), SOCKET])
def test_every_protocol_says_where_to_connect(name: str, facts: ConnectionFacts) -> None:
    shown = environment(name, facts)
    assert shown.variables["DATABASE_NAME"] == "example"
    if facts.socket is None:
        assert shown.variables["DATABASE_HOST"] == "localhost"
        assert shown.variables["DATABASE_PORT"] == "12345"
    else:
        assert shown.variables["DATABASE_SOCKET"] == "/run/app/.s.PGSQL.5433"
    assert not {*shown.variables} & {*shown.unset}
    for value in (*shown.variables.values(), *shown.uris.values(), *shown.unavailable.values()):
        assert "None" not in value
    if shown.uris:
        assert shown.variables.get("DATABASE_URL") in {*shown.uris.values(), None}
    else:
        assert "DATABASE_URL" in shown.unset


@every_protocol
def test_a_client_with_tls_gets_the_files_and_one_without_gets_none(name: str) -> None:
    files = {"DATABASE_CA_FILE", "DATABASE_CERT_FILE", "DATABASE_KEY_FILE"}
    assert files <= environment(name, TLS).variables.keys()
    assert files <= {*environment(name, PLAIN).unset}
    for text in environment(name, PLAIN).uris.values():
        assert "/id" not in unquote(text)


@every_protocol
def test_no_uri_names_a_loopback_address_where_names_are_checked(name: str) -> None:
    shown = environment(name, TLS)
    for text in (*shown.uris.values(), *shown.variables.values()):
        assert "127.0.0.1" not in text


@every_protocol
@given(user=names, database=names)
def test_strange_names_leave_a_uri_what_it_is(name: str, user: str, database: str) -> None:
    plain = environment(name, PLAIN).uris
    for driver, text in environment(
        name, replace(PLAIN, user=user, database=database)
    ).uris.items():
        if text.startswith(("jdbc:sqlserver", "Driver=")):
            continue  # not URIs; a test of their own
        parts, usual = urlsplit(text), urlsplit(plain[driver])
        assert (parts.scheme, parts.fragment) == (usual.scheme, "")
        assert parts.netloc.rpartition("@")[2] == usual.netloc.rpartition("@")[2]
        assert parse_qs(parts.query).keys() == parse_qs(usual.query).keys()
        assert text.isascii()
        assert text.isprintable()


class TestPostgres:
    """libpq's, and what reads the same."""

    def test_the_variables_are_libpqs(self) -> None:
        assert {
            name: value
            for name, value in environment("postgres", TLS).variables.items()
            if name.startswith("PG")
        } == {
            "PGHOST": "localhost",
            "PGPORT": "12345",
            "PGUSER": "alice",
            "PGDATABASE": "example",
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": "/id/ca.crt",
            "PGSSLCERT": "/id/tlscert",
            "PGSSLKEY": "/id/key",
        }

    def test_what_would_lead_elsewhere_must_not_be_set(self) -> None:
        tls = {*environment("postgres", TLS).unset}
        assert {"PGHOSTADDR", "PGSERVICE", "PGSSLNEGOTIATION", "PGREQUIRESSL"} <= tls
        plain = {*environment("postgres", PLAIN).unset}
        assert {"PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"} <= plain

    @pytest.mark.parametrize(
        "facts",
        [
            TLS,
            PLAIN,
            SOCKET,
            replace(TLS, ca_file=None),
            replace(TLS, hostaddr="127.0.0.2"),
            replace(TLS, host="db.example.com", hostaddr="::1"),
        ],
    )
    def test_libpq_reads_the_uri_as_it_reads_the_line(self, facts: ConnectionFacts) -> None:
        _psql, conninfo = protocol_named("postgres").client(facts).words
        uri = environment("postgres", facts).uris["psycopg"]
        assert conninfo_to_dict(uri) == conninfo_to_dict(str(conninfo))

    @given(user=names, database=names, directory=names)
    def test_any_name_at_all_reaches_libpq_unchanged(
        self, user: str, database: str, directory: str
    ) -> None:
        key = Path("/opt") / directory
        shown = environment("postgres", replace(TLS, user=user, database=database, key_file=key))
        read = conninfo_to_dict(shown.uris["psycopg"])
        assert (read["user"], read["dbname"], read["sslkey"]) == (user, database, str(key))
        assert (shown.variables["PGUSER"], shown.variables["PGDATABASE"]) == (user, database)

    @given(user=names, database=names)
    def test_sqlalchemy_gives_the_driver_what_was_put_in(self, user: str, database: str) -> None:
        uri = environment("postgres", replace(TLS, user=user, database=database)).uris["sqlalchemy"]
        url = make_url(uri)
        assert (url.drivername, url.host, url.port) == ("postgresql+psycopg", "localhost", 12345)
        _words, given = url.get_dialect()().create_connect_args(url)
        assert (given["user"], given["dbname"]) == (user, database)
        assert (given["sslmode"], given["sslkey"]) == ("verify-full", "/id/key")

    def test_a_driver_that_knows_no_address_besides_the_name_gets_one_that_leads_here(self) -> None:
        elsewhere = replace(TLS, hostaddr="127.0.0.2")
        for driver in ("pgx", "asyncpg", "jdbc"):
            assert "//127.0.0.2:12345/" in environment("postgres", elsewhere).uris[driver].replace(
                "alice@", ""
            )

    def test_jdbc_takes_the_user_as_a_parameter(self) -> None:
        assert environment("postgres", PLAIN).uris["jdbc"] == (
            "jdbc:postgresql://localhost:12345/example?user=alice&sslmode=disable"
        )

    def test_what_a_driver_cannot_do_is_told(self) -> None:
        assert "Unix sockets" in environment("postgres", SOCKET).unavailable["jdbc"]
        assert "asyncpg" in environment("postgres", replace(TLS, ca_file=None)).unavailable

    def test_cockroachdb_has_a_dialect_of_its_own(self) -> None:
        uri = environment("cockroachdb", PLAIN).uris["sqlalchemy"]
        assert uri.startswith("cockroachdb+psycopg://alice@localhost:12345/example")


class TestMySQL:
    """Its programs, PyMySQL by way of SQLAlchemy, Connector/J."""

    def test_without_tls_its_programs_need_nothing_but_variables(self) -> None:
        shown = environment("mysql", PLAIN)
        assert shown.variables["MYSQL_HOST"] == "127.0.0.1"  # `localhost` is a socket to them
        assert shown.variables["MYSQL_TCP_PORT"] == "12345"
        assert "MYSQL_UNIX_PORT" in shown.unset
        assert environment("mysql", SOCKET).variables["MYSQL_UNIX_PORT"] == str(SOCKET.socket)

    @given(user=names, database=names)
    def test_sqlalchemy_gives_the_driver_what_was_put_in(self, user: str, database: str) -> None:
        url = make_url(
            environment("mysql", replace(TLS, user=user, database=database)).uris["sqlalchemy"]
        )
        assert (url.drivername, url.username, url.database) == ("mysql+pymysql", user, database)
        _words, given = _pymysql_arguments(url)
        assert given["ssl"] == {
            "ca": "/id/ca.crt",
            "cert": "/id/tlscert",
            "key": "/id/key",
            "check_hostname": True,
        }

    def test_a_socket_reaches_pymysql(self) -> None:
        _words, given = _pymysql_arguments(
            make_url(environment("mysql", SOCKET).uris["sqlalchemy"])
        )
        assert given["unix_socket"] == str(SOCKET.socket)

    def test_mysqls_own_form(self) -> None:
        assert environment("mysql", TLS).variables["DATABASE_URL"] == (
            "mysql://alice@localhost:12345/example?ssl-mode=VERIFY_IDENTITY&ssl-ca=%2Fid%2Fca.crt"
            "&ssl-cert=%2Fid%2Ftlscert&ssl-key=%2Fid%2Fkey"
        )

    def test_what_a_driver_cannot_do_is_told(self) -> None:
        assert "key store" in environment("mysql", TLS).unavailable["jdbc"]
        assert "jdbc" in environment("mysql", SOCKET).unavailable
        assert "sqlalchemy" in environment("mysql", replace(TLS, ca_file=None)).unavailable


def _pymysql_arguments(url: Any) -> Any:
    from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql

    return MySQLDialect_pymysql().create_connect_args(url)


class TestMongoDB:
    """pymongo's reader, and the one file."""

    @pytest.mark.parametrize("plain", [True, False])
    def test_pymongo_reads_what_was_put_in(self, plain: bool, tmp_path: Path) -> None:
        both, ca = tmp_path / "mongo.crt", tmp_path / "c a.crt"
        both.touch()
        ca.touch()
        tls = replace(TLS, ca_file=ca, certificate_file=both, key_file=both)
        shown = environment("mongodb", PLAIN if plain else tls)
        read = mongo_uri(shown.variables["MONGODB_URI"])
        assert read["nodelist"] == [("localhost", 12345)]
        assert read["database"] == "example"
        assert read["options"]["directConnection"] is True
        if not plain:
            assert read["options"]["tls"] is True
            assert read["options"]["tlsCAFile"] == str(ca)
            assert read["options"]["tlsCertificateKeyFile"] == str(both)

    def test_with_two_files_there_is_no_uri_and_the_reason_says_what_to_do(self) -> None:
        shown = environment("mongodb", TLS)
        assert {"DATABASE_URL", "MONGODB_URI"} <= {*shown.unset}
        assert "format: mongo" in shown.unavailable["mongo"]

    def test_a_socket_is_a_host(self) -> None:
        path = Path("/run/my.sock")
        read = mongo_uri(environment("mongodb", replace(SOCKET, socket=path)).uris["mongo"])
        assert read["nodelist"] == [(str(path), None)]
        assert ".sock" in environment("mongodb", SOCKET).unavailable["mongo"]


class TestRedis:
    """redis-py's reader."""

    def test_redis_py_reads_what_was_put_in(self) -> None:
        read = redis_url(environment("redis", TLS).variables["REDIS_URL"])
        assert (read["host"], read["port"]) == ("localhost", 12345)
        assert read["connection_class"].__name__ == "SSLConnection"
        assert read["ssl_ca_certs"] == "/id/ca.crt"
        assert (read["ssl_certfile"], read["ssl_keyfile"]) == ("/id/tlscert", "/id/key")
        assert read["ssl_check_hostname"] is True
        assert "ssl" not in str(redis_url(environment("redis", PLAIN).uris["redis"]))

    @given(names)
    def test_any_socket_reaches_redis_py(self, name: str) -> None:
        path = Path("/run") / name.replace("/", "_")
        uri = environment("redis", replace(SOCKET, socket=path)).uris["redis"]
        assert redis_url(uri)["path"] == str(path)


class TestSQLServer:
    """What is no URI has quotes of its own."""

    def test_without_tls(self) -> None:
        shown = environment("sqlserver", PLAIN)
        assert shown.variables["SQLCMDSERVER"] == "localhost,12345"
        assert shown.uris == {
            "sqlserver": "sqlserver://alice@localhost:12345/?database=example&encrypt=disable",
            "odbc": (
                "Driver={ODBC Driver 18 for SQL Server};Server=tcp:localhost,12345;"
                "Database={example};UID={alice};PWD=;Encrypt=no"
            ),
            "jdbc": (
                "jdbc:sqlserver://localhost:12345;databaseName={example};user={alice};encrypt=false"
            ),
        }

    @given(names)
    def test_a_name_in_braces_ends_where_it_should(self, user: str) -> None:
        for driver in ("odbc", "jdbc"):
            text = environment("sqlserver", replace(PLAIN, user=user)).uris[driver]
            _before, _key, rest = text.partition("UID={" if driver == "odbc" else "user={")
            read, position = "", 0
            while rest[position] != "}" or rest[position : position + 2] == "}}":
                read += rest[position]
                position += 2 if rest[position] == "}" else 1
            assert read == user
            assert rest[position + 1] == ";"

    def test_with_tls_every_driver_is_told_to_use_a_tunnel(self) -> None:
        shown = environment("sqlserver", replace(TLS, mode=Mode.TERMINATE))
        assert shown.uris == {}
        assert all("--tunnel" in reason for reason in shown.unavailable.values())


class TestOthers:
    """One look at each."""

    def test_clickhouse_driver_reads_what_was_put_in(self) -> None:
        host, read = clickhouse_url(environment("clickhouse", TLS).variables["DATABASE_URL"])
        assert (host, read["port"], read["user"]) == ("localhost", 12345, "alice")
        assert (read["secure"], read["verify"]) == (True, True)
        assert (read["ca_certs"], read["certfile"], read["keyfile"]) == (
            "/id/ca.crt",
            "/id/tlscert",
            "/id/key",
        )

    @pytest.mark.parametrize(
        ("name", "variables"),
        [
            ("cassandra", {"CQLSH_HOST": "localhost", "CQLSH_PORT": "12345"}),
            ("dynamodb", {"AWS_ENDPOINT_URL_DYNAMODB": "http://localhost:12345"}),
            ("elasticsearch", {"ELASTICSEARCH_URL": "http://localhost:12345"}),
            ("opensearch", {"OPENSEARCH_URL": "http://localhost:12345"}),
            ("spanner", {"SPANNER_EMULATOR_HOST": "localhost:12345"}),
            (
                "clickhouse-http",
                {"DATABASE_URL": "http://localhost:12345/?user=alice&database=example"},
            ),
            ("snowflake", {"SNOWFLAKE_HOST": "localhost", "SNOWFLAKE_PROTOCOL": "http"}),
            ("oracle", {"DATABASE_URL": "jdbc:oracle:thin:@//localhost:12345/example"}),
        ],
    )
    def test_the_variables_that_clients_read(self, name: str, variables: dict[str, str]) -> None:
        assert variables.items() <= environment(name, PLAIN).variables.items()

    @pytest.mark.parametrize("name", ["oracle", "snowflake"])
    def test_where_tls_cannot_be_the_reason_says_what_to_do(self, name: str) -> None:
        reasons = environment(name, replace(TLS, mode=Mode.TERMINATE)).unavailable.values()
        assert reasons
        assert all("--tunnel" in reason for reason in reasons)
