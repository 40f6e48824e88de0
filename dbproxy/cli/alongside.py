"""Running a command beside a proxy: its environment, its log, its signals."""

import os
from collections.abc import Callable

import click
import trio

from dbproxy.cli.printable import printable
from dbproxy.cli.serve import event_logs
from dbproxy.cli.terminal import ControllingTerminal
from dbproxy.protocols import ClientEnvironment, DatabaseProtocol, client_environment
from dbproxy.proxy import Prepared
from dbproxy.run import Command, run_alongside
from dbproxy.settings import Settings

__all__ = ["environment_beside", "run_beside", "tell_missing_url"]


def run_beside(
    settings: Settings, make_command: Callable[[Prepared], Command], *, interactive: bool = False
) -> int:
    """Run a command beside the proxy that `settings` describe.

    Returns:
        The exit status of the command.

    Raises:
        DBProxyError: As `run_alongside` does; possibly in an exception group.
    """

    async def run() -> int:
        heard = ControllingTerminal.at_start().has_told_everybody
        return await run_alongside(
            settings, log(), make_command, heard=heard, interactive=interactive
        )

    with event_logs(settings, quiet=True) as log:
        return trio.run(run)


def environment_beside(prepared: Prepared) -> dict[str, str]:
    """This process's environment, with the variables that lead to a proxy."""
    environment = client_environment(prepared.protocol, prepared.facts)
    return environment.added_to(os.environ)


def tell_missing_url(protocol: DatabaseProtocol, environment: ClientEnvironment) -> None:
    """Say on standard error why there is no DATABASE_URL, where one would be expected."""
    if "DATABASE_URL" in environment.variables or not environment.unavailable:
        return
    reason = next(iter(environment.unavailable.values()))
    note = f"no DATABASE_URL for {protocol.readable_name}: {reason}"
    click.echo(f"dbproxy: note: {printable(note)}", err=True)
