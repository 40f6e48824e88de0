"""`dbproxy run`: a command with a database at hand."""

import os
from typing import TYPE_CHECKING, Final

import click

from dbproxy.cli.command_after_dashes import CommandAfterDashes, words_after_dashes
from dbproxy.cli.invocation import invocation_of
from dbproxy.cli.options import ONE_PORT, settings_from, settings_options
from dbproxy.errors import UsageError
from dbproxy.settings import Scope

if TYPE_CHECKING:
    from dbproxy.proxy import Prepared
    from dbproxy.run import Command

__all__ = ["run"]

HELP: Final = """\
Run a command with a port for the database service SERVICE, for as long as the command runs.

dbproxy listens, on a free port unless told otherwise, waits until a connection to the Teleport
Proxy works, sets the variables that `dbproxy env` shows (PGHOST and the like, DATABASE_URL), and
runs COMMAND beside itself. When that ends, connections that are left have --drain-timeout to end.

\b
Example:
  dbproxy -c /etc/tbot.yaml run example-server -- psql -c 'select 1'

The log, on standard error, has nothing but warnings, unless --debug is given.

\b
SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGINT
           go to the command. What a terminal's keys have sent to it
           already is not sent twice.
Ctrl-C     a second one ends the command and dbproxy at once.

\b
Exit status: the command's own; 128 and the number of a signal that ended it.
Before the command runs:
  1    no port, or no connection to the Teleport Proxy works
  2    the arguments are incomplete or contradict each other
  126  the command cannot be executed
  127  there is no such command
"""


@click.command(
    cls=CommandAfterDashes,
    help=HELP,
    params=settings_options(*ONE_PORT, Scope.RUN),
    short_help="Run a command with a port for a database service.",
)
@click.pass_context
def run(context: click.Context, /, **_options: object) -> None:
    """Open a port, run a command, and end with its exit status."""
    settings = settings_from(context)
    invocation_of(context).debug = settings.debug
    words = words_after_dashes(context)
    if not words:
        raise UsageError(
            "there is no command to run",
            next_step="Give it after two dashes: `dbproxy run SERVICE -- COMMAND`.",
        )
    from dbproxy.cli.alongside import (  # late, so that help and usage errors come quickly
        run_beside,
        tell_missing_url,
    )
    from dbproxy.protocols import client_environment
    from dbproxy.run import Command

    def make_command(prepared: "Prepared") -> "Command":
        environment = client_environment(prepared.protocol, prepared.facts)
        tell_missing_url(prepared.protocol, environment)
        return Command(words, environment.added_to(os.environ))

    context.exit(run_beside(settings, make_command))
