"""`dbproxy connect`: the usual client of a database, told how to connect."""

import os
import shutil
from typing import TYPE_CHECKING, Final

import click

from dbproxy.cli.command_after_dashes import CommandAfterDashes, words_after_dashes
from dbproxy.cli.invocation import invocation_of
from dbproxy.cli.options import ONE_PORT, settings_from, settings_options
from dbproxy.errors import Code, DBProxyError, UsageError
from dbproxy.settings import Scope

if TYPE_CHECKING:
    from dbproxy.protocols import ClientCommand
    from dbproxy.proxy import Prepared
    from dbproxy.run import Command

__all__ = ["connect"]

HELP: Final = """\
Start the usual client of the database service SERVICE: psql, mysql or mariadb, mongosh, redis-cli,
sqlcmd, cqlsh, clickhouse-client and others, by the protocol in the certificate.

dbproxy listens, on a free port unless told otherwise, waits until a connection to the Teleport
Proxy works, and starts the client with host, port and files filled in. What follows after two
dashes is added to its command line.

\b
Examples:
  dbproxy -c /etc/tbot.yaml connect example-server
  dbproxy -c /etc/tbot.yaml connect example-server -- --csv -c 'select 1'

Signals and exit status are as with `dbproxy run`, except that Ctrl-C is the client's own affair,
however often it comes. The log, on standard error, has nothing but warnings, unless --debug is
given.
"""


class ConnectCommand(CommandAfterDashes):
    """The words after the dashes are the client's."""

    metavar = "[-- ARGUMENT...]"


@click.command(
    cls=ConnectCommand,
    help=HELP,
    params=settings_options(*ONE_PORT, Scope.RUN),
    short_help="Start the usual client of a database service.",
)
@click.pass_context
def connect(context: click.Context, /, **_options: object) -> None:
    """Open a port, start a client, and end with its exit status."""
    settings = settings_from(context)
    invocation_of(context).debug = settings.debug
    more = words_after_dashes(context)
    from dbproxy.cli.alongside import (  # late, so that help and usage errors come quickly
        environment_beside,
        run_beside,
    )
    from dbproxy.run import Command

    def make_command(prepared: "Prepared") -> "Command":
        client = prepared.protocol.client(prepared.facts)
        program = _installed(client)
        environment = environment_beside(prepared) | dict(client.variables)
        return Command((program, *client.words[1:], *more), environment)

    context.exit(run_beside(settings, make_command, interactive=True))


def _installed(client: "ClientCommand") -> str:
    """The path of the program.

    Raises:
        UsageError: There is none that people talk with.
        DBProxyError: `command-not-found`: it is not installed.
    """
    if client.instead is not None:
        raise UsageError(
            f"there is no client to start: {client.instead}",
            next_step="`dbproxy env` shows how others connect, `dbproxy run` starts them.",
        )
    found = filter(None, map(shutil.which, client.programs))
    if (program := next(found, None)) is None:
        names = " nor ".join(client.programs)
        path = os.environ.get("PATH", "")
        raise DBProxyError(
            Code.COMMAND_NOT_FOUND,
            f"the client is not installed: there is no {names} in PATH ({path})",
        )
    return program
