"""`dbproxy start`: every tunnel of a tbot configuration."""

from typing import Final

import click

from dbproxy.cli.invocation import invocation_of
from dbproxy.cli.options import settings_from, settings_options
from dbproxy.cli.settings_command import SettingsCommand
from dbproxy.settings import Scope

__all__ = ["start"]

HELP: Final = """\
Open every tunnel that tbot's configuration describes.

Each service of type `database-tunnel` becomes a port (or Unix socket) that takes plaintext
clients from this host, as `dbproxy db --tunnel` does. Its certificate comes from the `database`
output for the same service in the same file, or else from --destination-dir, --identity or
--cert.

Whenever a tunnel is open, a line on standard output says `Started tunnel NAME on ADDRESS`. One
that cannot be opened does not stop the others: the log says why and what to do, and it is tried
again, at first after a second, later every ten seconds. The log goes to standard error; each line
carries the tunnel's name.

\b
SIGINT, SIGTERM  stop accepting, let open connections go on for
                 --drain-timeout, exit 0; a second one ends at once.
SIGHUP           read all certificates again, try at once what is not open.
"""


@click.command(
    cls=SettingsCommand,
    help=HELP,
    params=settings_options(Scope.SERVE, Scope.MESSAGE, Scope.GLOBAL),
    short_help="Open every tunnel that tbot's configuration describes.",
)
@click.pass_context
def start(context: click.Context, /, **_options: object) -> None:
    """Open every tunnel of a tbot configuration, until a signal ends them."""
    settings = settings_from(context, needs_config=True)
    invocation_of(context).debug = settings.debug
    from dbproxy.cli.serve import serve_tunnels  # late, so that help and usage errors come quickly

    serve_tunnels(settings)
