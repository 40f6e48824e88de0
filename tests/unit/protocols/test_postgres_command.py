"""The psql command to paste: read back by the shell's rules and by libpq's."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from dbproxy.errors import Code, IdentityError
from dbproxy.protocols import ConnectionFacts, protocol_named
from dbproxy.protocols.postgres import Postgres
from dbproxy.settings import Mode

FACTS = ConnectionFacts(
    host="localhost",
    port=12345,
    mode=Mode.PASSTHROUGH,
    user="alice",
    database="example",
    ca_file=Path("/opt/machine-id/teleport-host-ca.crt"),
    certificate_file=Path("/opt/machine-id/tlscert"),
    key_file=Path("/opt/machine-id/key"),
)


def parse_conninfo(text: str) -> dict[str, str]:
    """A keyword/value string as libpq reads it: conninfo_parse in its fe-connect.c.

    Values end at white space, unless they begin with a quote; a backslash makes the next character
    an ordinary one, inside quotes and outside.
    """
    values: dict[str, str] = {}
    rest = text.lstrip(" \t\n\v\f\r")
    while rest:
        name, _equals, rest = rest.partition("=")
        quoted = rest.startswith("'")
        value, rest = _take_value(rest[1:] if quoted else rest, quoted=quoted)
        values[name.strip()] = value
        rest = rest.lstrip(" \t\n\v\f\r")
    return values


def _take_value(text: str, *, quoted: bool) -> tuple[str, str]:
    value, position = "", 0
    while position < len(text):
        character = text[position]
        if character == "'" and quoted:
            return value, text[position + 1 :]
        if character in " \t\n\v\f\r" and not quoted:
            return value, text[position + 1 :]
        if character == "\\":
            position += 1
            character = text[position : position + 1]
        value += character
        position += 1
    assert not quoted, "unterminated quoted string"
    return value, ""


def parameters(command: str) -> dict[str, str]:
    program, conninfo = shlex.split(command)
    assert program == "psql"
    return parse_conninfo(conninfo)


def test_the_command_for_a_tls_client_verifies_the_server() -> None:
    assert Postgres().connect_command(FACTS) == (
        "psql 'host=localhost port=12345 user=alice dbname=example sslmode=verify-full"
        " sslrootcert=/opt/machine-id/teleport-host-ca.crt sslcert=/opt/machine-id/tlscert"
        " sslkey=/opt/machine-id/key'"
    )


def test_the_command_for_a_tunnel_switches_tls_off_and_names_no_files() -> None:
    tunnel = replace(FACTS, mode=Mode.TUNNEL, ca_file=None, certificate_file=None, key_file=None)
    assert parameters(Postgres().connect_command(tunnel)) == {
        "host": "localhost",
        "port": "12345",
        "user": "alice",
        "dbname": "example",
        "sslmode": "disable",
    }


def test_an_address_is_given_besides_the_name_where_the_name_does_not_lead_there() -> None:
    read_back = parameters(Postgres().connect_command(replace(FACTS, hostaddr="127.0.0.2")))
    assert (read_back["host"], read_back["hostaddr"]) == ("localhost", "127.0.0.2")


def test_without_a_file_to_trust_the_systems_roots_are_named() -> None:
    read_back = parameters(Postgres().connect_command(replace(FACTS, ca_file=None)))
    assert (read_back["sslmode"], read_back["sslrootcert"]) == ("verify-full", "system")


def test_an_unknown_user_and_database_are_left_to_psql() -> None:
    command = Postgres().connect_command(replace(FACTS, user=None, database=None))
    assert not {"user", "dbname"} & parameters(command).keys()


AWKWARD = ["", "two words", "o'brien", "back\\slash", "\\'", "tab\there", "new\nline", '"$HOME`']


@pytest.mark.parametrize("value", AWKWARD)
def test_awkward_names_reach_psql_unchanged(value: str) -> None:
    facts = replace(FACTS, user=value, database=value, key_file=Path("/opt") / f"{value} dir")
    read_back = parameters(Postgres().connect_command(facts))
    assert read_back["user"] == read_back["dbname"] == value
    assert read_back["sslkey"] == f"/opt/{value} dir"


printable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(printable, printable)
def test_any_name_at_all_reaches_psql_unchanged(user: str, database: str) -> None:
    facts = replace(FACTS, user=user, database=database)
    read_back = parameters(Postgres().connect_command(facts))
    assert read_back["user"] == user
    assert read_back["dbname"] == database
    assert len(read_back) == 8


@given(st.text("ab ='\\\t\n"), st.text("ab ='\\\t\n"))
def test_libpq_itself_reads_the_command_as_these_tests_do(user: str, database: str) -> None:
    command = Postgres().connect_command(replace(FACTS, user=user, database=database))
    _psql, conninfo = shlex.split(command)
    assert conninfo_to_dict(conninfo) == parse_conninfo(conninfo)


def test_postgres_is_found_by_the_name_in_the_certificate() -> None:
    protocol = protocol_named("postgres")
    assert protocol.name == "postgres"
    assert list(protocol.alpn) == ["teleport-postgres-ping", "teleport-postgres"]
    assert protocol.server_alpn() == b"postgresql"


@pytest.mark.parametrize("name", ["unheard", "", "Postgres"])
def test_another_protocol_is_named_in_the_complaint(name: str) -> None:
    with pytest.raises(IdentityError) as caught:
        protocol_named(name)
    assert caught.value.code is Code.PROTOCOL_NOT_SUPPORTED
    assert repr(name) in caught.value.message
    assert "postgres" in caught.value.message
