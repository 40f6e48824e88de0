"""`dbproxy env`: how to connect to a port, for programs."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import click

from dbproxy._version import __version__
from dbproxy.cli.invocation import invocation_of
from dbproxy.cli.options import ONE_PORT, settings_from, settings_options
from dbproxy.cli.settings_command import SettingsCommand
from dbproxy.errors import UsageError
from dbproxy.settings import Scope, Settings

if TYPE_CHECKING:
    from dbproxy.protocols import ClientEnvironment
    from dbproxy.wiring import ExpectedConnection

__all__ = ["env"]

HELP: Final = """\
Show how clients connect to the port that `dbproxy db` with the same options opens: environment
variables (PGHOST and the like, and DATABASE_URL), and URIs for drivers. Nothing is opened, and no
running dbproxy is asked.

So the port must be known: from --port or --listen, or from tbot's configuration, when SERVICE is
the name of a `database-tunnel` there, or its service. With several services, each of which must be
such a tunnel, every variable has the service's name in front.

\b
Examples:
  eval "$(dbproxy -c /etc/tbot.yaml env --port=12345 example-server)" && psql
  dbproxy -c /etc/tbot.yaml env --port=12345 --format=dotenv >.env
  dbproxy -c /etc/tbot.yaml env --port=12345 --format=dsn --driver=jdbc
"""

_OTHER_CHARACTERS: Final = re.compile(r"\W", re.ASCII)


@dataclass(frozen=True)
class Shown:
    """A service, and how clients connect to it."""

    name: str
    expected: "ExpectedConnection"
    environment: "ClientEnvironment"


@click.command(
    cls=SettingsCommand,
    help=HELP,
    params=[
        *settings_options(*ONE_PORT, Scope.WORKERS, Scope.ENV),
        click.Argument(["more_services"], nargs=-1, required=False, metavar="[SERVICE]..."),
    ],
    short_help="Show how clients connect, as variables or URIs.",
)
@click.pass_context
def env(context: click.Context, /, **_options: object) -> None:
    """Write the variables or URIs to standard output."""
    more: tuple[str, ...] = context.params.pop("more_services")
    settings = settings_from(context)
    invocation_of(context).debug = settings.debug
    services = [settings.service, *more]
    if more and (settings.port or settings.listen is not None):
        raise UsageError(
            "--port and --listen are for one service, and several are named",
            next_step="Name one, or let tbot.yaml have a `database-tunnel` for each.",
        )
    shown = [_look(replace(settings, service=service)) for service in services]
    click.echo(os.fsencode(_text(settings, shown)))


def _look(settings: Settings) -> Shown:
    import trio  # late, so that help and usage errors come quickly

    from dbproxy.cli.alongside import tell_missing_url
    from dbproxy.fleet import settings_of_tunnel
    from dbproxy.protocols import client_environment
    from dbproxy.wiring import expect_connection

    expected = trio.run(expect_connection, settings_of_tunnel(settings), lambda _event: None)
    environment = client_environment(expected.protocol, expected.facts)
    if settings.env_format in {"shell", "dotenv"}:
        tell_missing_url(expected.protocol, environment)
    return Shown(settings.service or expected.service, expected, environment)


def _text(settings: Settings, shown: list[Shown]) -> str:
    from dbproxy.environment import as_dotenv, as_shell

    match settings.env_format:
        case "json":
            facts = [_facts(it) for it in shown]
            return json.dumps(facts if len(facts) > 1 else facts[0])
        case "dsn":
            return "\n".join(_dsn(it, settings.driver) for it in shown)
        case "dotenv":
            return as_dotenv(_variables(shown))
    unset = [name for it in shown for name in it.environment.unset] if len(shown) == 1 else []
    return as_shell(_variables(shown), unset)


def _variables(shown: list[Shown]) -> Mapping[str, str]:
    """Of several services, each with the service's name in front.

    Raises:
        UsageError: Two names become one.
    """
    if len(shown) == 1:
        return shown[0].environment.variables
    variables: dict[str, str] = {}
    for it in shown:
        prefix = _prefix(it.name)
        named = {f"{prefix}_{name}": value for name, value in it.environment.variables.items()}
        if variables.keys() & named:
            raise UsageError(f"the variables of two services would have {prefix}_ in front")
        variables |= named
    return variables


def _prefix(name: str) -> str:
    words = _OTHER_CHARACTERS.sub("_", name).upper()
    return f"_{words}" if words[:1].isdigit() else words


def _dsn(shown: Shown, driver: str | None) -> str:
    environment = shown.environment
    known = [*environment.uris, *environment.unavailable]
    readable = shown.expected.protocol.readable_name
    name = driver if driver is not None else next(iter(known), "")
    if name in environment.uris:
        return environment.uris[name]
    if name in environment.unavailable:
        raise UsageError(f"there is no URI for {name}: {environment.unavailable[name]}")
    if not known:
        raise UsageError(f"drivers of {readable} take no URI", next_step="Choose another --format.")
    raise UsageError(
        f"no driver of {readable} is known as {name}; those are {', '.join(known)}",
        next_step="Name one of them with --driver.",
    )


def _facts(shown: Shown) -> dict[str, object]:
    facts, environment = shown.expected.facts, shown.environment
    files = {"ca": facts.ca_file, "cert": facts.certificate_file, "key": facts.key_file}
    return {
        "service": shown.expected.service,
        "protocol": shown.expected.protocol.name,
        "mode": facts.mode.value,
        "user": facts.user,
        "database": facts.database,
        **{f"{kind}_file": str(file) if file else None for kind, file in files.items()},
        "connect_command": shown.expected.protocol.connect_command(facts),
        "variables": environment.variables,
        "unset": environment.unset,
        "uris": environment.uris,
        "unavailable": environment.unavailable,
        "version": __version__,
    }
