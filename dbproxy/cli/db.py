"""`dbproxy db`: a local port for one database service."""

from typing import Final

import click

from dbproxy.cli.invocation import invocation_of
from dbproxy.cli.options import ONE_PORT, settings_from, settings_options
from dbproxy.cli.settings_command import SettingsCommand
from dbproxy.settings import Scope

__all__ = ["db"]

HELP: Final = """\
Open a local port for the database service SERVICE.

Once the port listens, the first line on standard output is `Started DB proxy on ADDRESS`; then
follow the credentials to connect with and a ready-to-paste command. The log goes to standard
error.

\b
By default the client's TLS goes through to Teleport: the client itself uses
the certificate that tbot wrote.
--terminate  ends the client's TLS here and checks its certificate here.
--tunnel     takes plaintext clients from this host, and presents the
             certificate itself.

\b
Example:
  dbproxy --destination-dir=/opt/machine-id --proxy=teleport.example.com:443 \\
          db --port=12345 example-server
  psql "host=localhost port=12345 ..."     (dbproxy prints the whole line)

\b
SIGINT, SIGTERM  stop accepting, let open connections go on for
                 --drain-timeout, exit 0; a second one ends at once.
SIGHUP           read the certificates again.
"""


@click.command(
    cls=SettingsCommand,
    help=HELP,
    params=settings_options(*ONE_PORT, Scope.WORKERS, Scope.MESSAGE),
    short_help="Open a local port for a database service.",
)
@click.pass_context
def db(context: click.Context, /, **_options: object) -> None:
    """Open a local port for a database service, until a signal ends it."""
    settings = settings_from(context)
    invocation_of(context).debug = settings.debug
    from dbproxy.cli.serve import serve  # late, so that help and usage errors come quickly

    serve(settings)
