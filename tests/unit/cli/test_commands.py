import sys

import click
import pytest

from dbproxy import _version
from dbproxy.cli import Commands, dbproxy
from dbproxy.cli.doctor import WORDS as DOCTORS_WORDS
from dbproxy.cli.errors import run
from dbproxy.cli.invocation import Invocation
from dbproxy.cli.lazy import LazyGroup
from dbproxy.cli.options import LOOKUP, ONE_PORT, SettingOption
from dbproxy.settings import Scope, environment_names, options


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(dbproxy, arguments, Invocation()) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return output.out


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert output_of(capsys, "--version") == f"dbproxy {_version.__version__}\n"


OPTIONS_OF = {
    "db": (*ONE_PORT, Scope.WORKERS, Scope.MESSAGE),
    "start": (Scope.GLOBAL, Scope.SERVE, Scope.MESSAGE),
    "run": (*ONE_PORT, Scope.RUN),
    "connect": (*ONE_PORT, Scope.RUN),
    "env": (*ONE_PORT, Scope.WORKERS, Scope.ENV),
    "doctor": (Scope.GLOBAL, Scope.ARGUMENT, Scope.DOCTOR),
}


@pytest.mark.parametrize("command", OPTIONS_OF)
def test_the_help_shows_every_option_with_its_environment_variables(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = output_of(capsys, command, "--help").split()
    text = " ".join(words)
    for name, option, _ in options(*OPTIONS_OF[command]):
        for flag in option.flags:
            assert flag in text
        assert f"[env var: {', '.join(environment_names(name))}" in text


def test_every_option_is_one_of_some_command() -> None:
    assert {scope for scopes in OPTIONS_OF.values() for scope in scopes} == set(Scope)


@pytest.mark.parametrize("command", Commands.places)
def test_a_command_has_the_options_of_its_scopes_and_no_others(command: str) -> None:
    if command not in OPTIONS_OF:
        return
    context = click.Context(dbproxy, info_name="dbproxy")
    found = dbproxy.get_command(context, command)
    assert found is not None
    names = {it.name for it in found.params if isinstance(it, SettingOption)}
    declared = {name for name, option, _ in options(*OPTIONS_OF[command]) if option.flags}
    taken_over = {"doctor": {*LOOKUP, *DOCTORS_WORDS}}.get(command, set())
    assert names == declared | taken_over


@pytest.mark.parametrize("command", Commands.places)
def test_no_command_has_a_flag_twice(command: str) -> None:
    found = dbproxy.get_command(click.Context(dbproxy, info_name="dbproxy"), command)
    assert found is not None
    flags = [flag for it in found.params if isinstance(it, click.Option) for flag in it.opts]
    assert len(flags) == len(set(flags))


def test_the_help_shows_the_defaults_as_one_would_type_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = " ".join(output_of(capsys, "db", "--help").split())
    assert "DBPROXY_DRAIN_TIMEOUT; default: 10s]" in text
    assert "DBPROXY_FORMAT; default: text]" in text
    assert "DBPROXY_TUNNEL]" in text


def test_global_options_have_a_section_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    own, everywhere = output_of(capsys, "db", "-h").split("Global options, ")
    for name, option, _ in options(Scope.GLOBAL):
        assert option.flags[-1] in everywhere, name
    for name, option, _ in options(Scope.DB):
        assert option.flags[-1] in own, name


def test_the_help_before_the_command_shows_the_global_options_and_the_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = output_of(capsys, "--help")
    for _, option, _ in options(Scope.GLOBAL):
        assert option.flags[-1] in text
    commands = text.split("Commands:")[1]
    assert "db " in commands


@pytest.mark.parametrize("command", ["", *Commands.places])
def test_the_help_fits_into_a_terminal_of_80_columns(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(dbproxy, [*([command] if command else []), "--help"], Invocation()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 80] == []


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(dbproxy, ["nix"], Invocation()) == 2
    assert capsys.readouterr().err.splitlines() == [
        "dbproxy: error: no such command 'nix' [usage]",
        "See `dbproxy --help`.",
    ]


def test_a_mistyped_command_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    for typed, meant in (("docter", "doctor"), ("strat", "start"), ("idenity", "identity")):
        assert run(dbproxy, [typed, "--debug"], Invocation()) == 2
        error = capsys.readouterr().err.splitlines()[0]
        assert error == (
            f"dbproxy: error: no such command {typed!r}; did you mean {meant}? [usage]"
        )


@pytest.mark.parametrize("command", ["run", "connect"])
def test_words_without_the_dashes_are_told_where_the_dashes_go(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(dbproxy, [command, "example-server", "psql", "-A"], Invocation()) == 2
    assert run(dbproxy, [command, "example-server", "psql"], Invocation()) == 2
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "dbproxy: error: unexpected argument 'psql': there are no two dashes before it [usage]",
        f"Put them there: `dbproxy {command} SERVICE -- psql …`.",
    ]
    assert run(dbproxy, [command, "one", "two", "--", "psql"], Invocation()) == 2
    assert "`two` is one word too many" in capsys.readouterr().err


def test_a_command_is_imported_only_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Commands, "places", {"absent": "dbproxy.cli.absent"})
    commands: LazyGroup = Commands("group")
    context = commands.make_context("dbproxy", [], resilient_parsing=True)
    assert commands.list_commands(context) == []
    assert commands.get_command(context, "absent") is None
    assert "dbproxy.cli.absent" not in sys.modules


def test_debug_before_the_command_is_known_at_the_border(
    capsys: pytest.CaptureFixture[str],
) -> None:
    invocation = Invocation()
    run(dbproxy, ["--debug", "db", "--help"], invocation)
    assert invocation.debug is True
    assert capsys.readouterr().err == ""
