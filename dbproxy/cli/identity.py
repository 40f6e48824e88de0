"""`dbproxy identity`: what we read and what it allows."""

import json
from typing import Final

import click

from dbproxy._version import __version__
from dbproxy.cli.invocation import invocation_of
from dbproxy.cli.options import lookup_options, settings_from
from dbproxy.cli.settings_command import SettingsCommand

__all__ = ["identity"]

HELP: Final = """\
Show the identity that `dbproxy db` with the same options would use: which files it is read from and
why, who may read them, whom the certificate is for and what it allows, how long it is valid, the
fingerprints of the authorities, and what is wrong with it.

A private key is never shown.

\b
Exit status:
  0  the identity can be used; there may be warnings
  1  it cannot, or everybody can read its key
  2  the arguments do not say where the identity is
"""


@click.command(
    cls=SettingsCommand,
    help=HELP,
    params=lookup_options(),
    short_help="Show the identity: what it is read from and what it allows.",
)
@click.pass_context
def identity(context: click.Context, /, **_options: object) -> None:
    """Show what is known about the identity."""
    settings = settings_from(context)
    invocation_of(context).debug = settings.debug
    from dbproxy.cli.console import Answer  # late, so that help and usage errors come quickly
    from dbproxy.cli.portrait import Portrait
    from dbproxy.doctor import describe, examine, gather
    from dbproxy.identity.store import utc_now

    evidence = gather(settings, utc_now())
    report = examine(evidence)
    answer = Answer()
    if settings.format == "json":
        answer.line(json.dumps({"version": __version__, **describe(evidence, report)}))
    else:
        Portrait(answer, evidence, report).show()
    context.exit(1 if report.failed else 0)
