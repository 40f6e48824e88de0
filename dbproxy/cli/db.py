"""`dbproxy db`: a local port for one database service."""

from typing import Final

import click

from dbproxy.cli.invocation import invocation_of
from dbproxy.cli.options import SettingOption, service_help, settings_from, settings_options

__all__ = ["db"]

HELP: Final = """\
Open a local port for the database service SERVICE.

Once the port listens, the first line on standard output is `Started DB proxy on ADDRESS`; then
follow the credentials to connect with and a ready-to-paste command. The log goes to standard
error.

\b
By default the client's TLS goes through to Teleport: the client itself uses the certificate
that tbot wrote.
--terminate  ends the client's TLS here and checks its certificate here.
--tunnel     takes plaintext clients from this host and presents the certificate itself.

\b
SIGINT, SIGTERM  stop accepting, let open connections go on for --drain-timeout, exit 0;
                 a second one ends at once.
SIGHUP           read the certificates again.
"""


class DBCommand(click.Command):
    """A command whose help lists its own options before the global ones."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the argument, the command's own options and the global ones."""
        own: list[tuple[str, str]] = []
        everywhere: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                is_global = isinstance(parameter, SettingOption) and parameter.is_global
                (everywhere if is_global else own).append(record)
        for title, records in (
            ("Argument", [("SERVICE", service_help())]),
            ("Options", own),
            ("Global options, before the command or after it", everywhere),
        ):
            with formatter.section(title):
                formatter.write_dl(records)

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Nothing: `format_options` writes the argument, in every release of click."""


@click.command(
    cls=DBCommand,
    help=HELP,
    params=settings_options(),
    short_help="Open a local port for a database service.",
)
@click.pass_context
def db(context: click.Context, /, **_options: object) -> None:
    """Open a local port for a database service, until a signal ends it."""
    settings = settings_from(context)
    invocation_of(context).debug = settings.debug
    from dbproxy.cli.serve import serve  # late, so that help and usage errors come quickly

    serve(settings)
