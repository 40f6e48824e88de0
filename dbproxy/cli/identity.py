"""`dbproxy identity`: what we read and what it allows."""

import json
from typing import TYPE_CHECKING, Final

import click

from dbproxy._version import __version__
from dbproxy.cli.invocation import invocation_of
from dbproxy.cli.options import lookup_options, settings_from
from dbproxy.cli.settings_command import SettingsCommand

if TYPE_CHECKING:
    from dbproxy.doctor import Evidence, Report

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
    from dbproxy.doctor import examine, gather  # late, so that help and usage errors come quickly
    from dbproxy.identity.store import utc_now

    evidence = gather(settings, utc_now())
    report = examine(evidence)
    if settings.format == "json":
        _show_json(evidence, report)
    else:
        _show_text(evidence, report)
    context.exit(1 if report.failed else 0)


def _show_json(evidence: "Evidence", report: "Report") -> None:
    from dbproxy.doctor import describe

    click.echo(json.dumps({"version": __version__, **describe(evidence, report)}))


def _show_text(evidence: "Evidence", report: "Report") -> None:
    from dbproxy.cli.console import Answer
    from dbproxy.cli.portrait import Portrait

    Portrait(Answer(), evidence, report).show()
