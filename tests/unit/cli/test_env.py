"""`dbproxy env`, by what it prints."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import dotenv
import pytest
from identities import Cluster, subject_attributes, write_destination

from dbproxy.cli import dbproxy
from dbproxy.cli import options as cli_options
from dbproxy.cli.errors import run
from dbproxy.cli.invocation import Invocation

Env = Callable[..., str]
CONFIG = """
version: v2
services:
  - {{type: database, service: example-server, username: alice, database: example,
      destination: {{path: {one}}}}}
  - {{type: database, service: other-server, username: alice, database: example,
      destination: {{path: {other}}}}}
  - {{type: database-tunnel, name: reports, listen: 'tcp://127.0.0.1:25432',
      service: example-server, username: alice, database: example}}
  - {{type: database-tunnel, listen: 'unix:///run/app/.s.PGSQL.5433', service: other-server,
      username: alice, database: example}}
"""


@pytest.fixture(autouse=True)
def no_default_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_options, "DEFAULT_CONFIG", tmp_path / "absent.yaml")


@pytest.fixture
def env(destination: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Env:
    def env(*arguments: str) -> str:
        words = ["--destination-dir", str(destination), "env", *arguments]
        assert run(dbproxy, words, Invocation()) == 0, capsysbinary.readouterr().err.decode()
        output = capsysbinary.readouterr()
        assert output.err == b""
        return output.out.decode()

    return env


@pytest.fixture
def refusal(destination: Path, capsys: pytest.CaptureFixture[str]) -> Env:
    def refusal(*arguments: str) -> str:
        words = ["--destination-dir", str(destination), "env", *arguments]
        assert run(dbproxy, words, Invocation()) == 2
        output = capsys.readouterr()
        assert output.out == ""
        return output.err

    return refusal


@pytest.fixture
def config(destination: Path, tmp_path: Path, cluster: Cluster) -> Path:
    """A tbot.yaml with two tunnels."""
    write_destination(
        tmp_path / "other", cluster, attributes=subject_attributes(service="other-server")
    )
    path = tmp_path / "tbot.yaml"
    path.write_text(CONFIG.format(one=destination, other=tmp_path / "other"))
    return path


def of_config(
    config: Path, capsys: pytest.CaptureFixture[bytes], *arguments: str, status: int = 0
) -> tuple[str, str]:
    assert run(dbproxy, ["-c", str(config), "env", *arguments], Invocation()) == status
    output = capsys.readouterr()
    return output.out.decode(), output.err.decode()


def test_without_a_format_it_is_for_a_shell(env: Env, destination: Path) -> None:
    lines = env("--port=12345").splitlines()
    assert lines[0].startswith("unset ")
    assert "PGHOSTADDR" in lines[0].split()
    assert "export PGHOST=localhost" in lines
    assert f"export PGSSLKEY={shlex.quote(str(destination / 'key'))}" in lines


@pytest.mark.parametrize("options", [(), ("--tunnel",), ("--terminate",)])
def test_dotenv_has_the_same_variables_as_json(env: Env, options: tuple[str, ...]) -> None:
    import io

    variables = json.loads(env("--port=1", "--format=json", *options))["variables"]
    text = env("--port=1", "--format=dotenv", *options)
    assert dotenv.dotenv_values(stream=io.StringIO(text)) == variables


def test_json_has_everything_by_name(env: Env, destination: Path) -> None:
    facts = json.loads(env("--port=12345", "--format=json"))
    assert (facts["service"], facts["protocol"], facts["mode"]) == (
        "example-server",
        "postgres",
        "passthrough",
    )
    assert set(facts["uris"]) == {"psycopg", "sqlalchemy", "pgx", "asyncpg", "jdbc"}
    assert facts["key_file"] == str(destination / "key")
    assert facts["variables"]["PGPORT"] == "12345"
    assert "PGSERVICE" in facts["unset"]
    assert facts["unavailable"] == {}
    assert facts["connect_command"].startswith("psql ")


def test_dsn_is_one_uri_the_usual_one_unless_a_driver_is_named(env: Env) -> None:
    uris = json.loads(env("--port=1", "--tunnel", "--format=json"))["uris"]
    assert env("--port=1", "--tunnel", "--format=dsn") == f"{uris['psycopg']}\n"
    for driver, uri in uris.items():
        assert env("--port=1", "--tunnel", "--format=dsn", f"--driver={driver}") == f"{uri}\n"


def test_the_modes_differ_in_files(env: Env) -> None:
    tls = env("--port=1", "--terminate", "--format=dotenv")
    assert "dbproxy-ca.crt" in tls
    plain = env("--port=1", "--tunnel", "--format=dotenv")
    assert "PGSSLMODE=disable" in plain
    assert "_FILE=" not in plain


def test_names_and_addresses_may_be_given_as_to_db(env: Env) -> None:
    text = env("--listen=tcp://[::1]:1", "--tunnel", "-u", "bob", "-n", "a b", "--format=dotenv")
    assert "PGHOSTADDR=::1" in text
    assert "PGUSER=bob" in text
    assert "PGDATABASE='a b'" in text
    assert "postgresql://bob@localhost:1/a%20b?hostaddr=%3A%3A1&" in text


def test_a_unix_socket_is_where_the_client_looks_for_it(env: Env) -> None:
    text = env("--listen=unix:///run/app/.s.PGSQL.5433", "--tunnel", "--format=dotenv")
    assert "PGHOST=/run/app\nPGPORT=5433" in text
    assert "DATABASE_SOCKET=/run/app/.s.PGSQL.5433" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["the port is not known", "--port", "database-tunnel"]),
        (("--port=1", "--format=dsn", "--driver=x"), ["no driver of PostgreSQL is known as x"]),
        (
            ("--listen=unix:///r/.s.PGSQL.1", "--tunnel", "--format=dsn", "--driver=jdbc"),
            ["there is no URI for jdbc", "Unix sockets"],
        ),
        (("--port=1", "--driver=jdbc"), ["--driver is for --format=dsn"]),
        (("--port=1", "one", "two"), ["--port and --listen are for one service"]),
        (("--port=1", "-n", 'it\'s "so"', "--format=dotenv"), ["--format=shell"]),
        (("--listen=unix:///run/x", "--port=0"), ["Add --tunnel"]),
    ],
)
def test_what_cannot_be_shown_is_told(
    refusal: Env, arguments: tuple[str, ...], words: list[str]
) -> None:
    err = refusal(*arguments)
    for word in words:
        assert word in err


@pytest.mark.parametrize("service", ["reports", "example-server"])
def test_a_tunnel_of_tbot_yaml_says_where_it_listens(
    config: Path, capsysbinary: pytest.CaptureFixture[bytes], service: str
) -> None:
    out, _ = of_config(config, capsysbinary, "--format=dotenv", service)
    assert "PGPORT=25432" in out
    assert "PGSSLMODE=disable" in out


def test_a_port_that_is_given_beats_the_tunnel(
    config: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    out, _ = of_config(config, capsysbinary, "--format=dotenv", "--port=1", "example-server")
    assert "PGPORT=1\n" in out
    assert "PGSSLMODE=verify-full" in out


def test_several_services_have_their_names_in_front(
    config: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    out, _ = of_config(config, capsysbinary, "reports", "other-server")
    assert "export REPORTS_PGPORT=25432" in out
    assert "export OTHER_SERVER_PGHOST=/run/app" in out
    assert "unset" not in out
    out, _ = of_config(config, capsysbinary, "--format=json", "reports", "other-server")
    assert [facts["service"] for facts in json.loads(out)] == ["example-server", "other-server"]
    out, _ = of_config(config, capsysbinary, "--format=dsn", "reports", "other-server")
    assert len(out.splitlines()) == 2


def test_two_services_whose_variables_would_be_the_same_are_refused(
    config: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    _, err = of_config(config, capsysbinary, "reports", "reports", status=2)
    assert "REPORTS_" in err


def test_a_database_that_no_uri_leads_to_is_told_beside_the_variables(
    tmp_path: Path, cluster: Cluster, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    attributes = subject_attributes(protocol="mongodb")
    write_destination(tmp_path / "mongo", cluster, attributes=attributes)
    words = ["--destination-dir", str(tmp_path / "mongo"), "env", "--port=1"]
    assert run(dbproxy, words, Invocation()) == 0
    output = capsysbinary.readouterr()
    assert b"DATABASE_HOST=localhost" in output.out
    assert b"export DATABASE_URL" not in output.out
    assert output.err.startswith(b"dbproxy: note: no DATABASE_URL for MongoDB: ")
