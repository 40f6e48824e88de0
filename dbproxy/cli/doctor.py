"""`dbproxy doctor`: is everything as it should be?"""

import json
import sys
from typing import TYPE_CHECKING, Final

import click

from dbproxy._version import __version__
from dbproxy.cli.invocation import invocation_of
from dbproxy.cli.options import LOOKUP, lookup_options, settings_from
from dbproxy.cli.settings_command import SettingsCommand
from dbproxy.settings import Scope, Settings

if TYPE_CHECKING:
    from dbproxy.cli.console import Answer
    from dbproxy.doctor import Evidence, Report, UpstreamEvidence

__all__ = ["doctor", "show_outcomes"]

HELP: Final = """\
Check what `dbproxy db` with the same options needs: tbot's configuration, everything about the
identity, and the way to the Teleport Proxy, on which a few connections are opened. No session
begins, and no port is opened; with --offline no connection either.

Each check is ok, a warning or a failure. A warning or a failure says what was found, its code,
and what to do next; `dbproxy explain CODE` tells more. Checks that another failure makes
impossible are skipped.

\b
Exit status:
  0  nothing failed; there may be warnings
  1  a check failed
  2  the arguments do not say what to check
"""


WORDS: Final = {
    **LOOKUP,
    "tunnel": "Check for `dbproxy db --tunnel`.",
    "terminate": "Check for `dbproxy db --terminate`.",
    "protocol": "The database protocol, as Teleport names it; default: the certificate's.",
    "alpn": "The ALPN value that Teleport knows the protocol by, instead of the usual one.",
    "connect_timeout": "How long each connection may take.",
    "handshake_timeout": "How long each TLS handshake may take.",
}

STYLES: Final = {"ok": "green", "warning": "bold yellow", "failure": "bold red", "skipped": "dim"}
VERDICT_WIDTH: Final = max(map(len, STYLES)) + 2


@click.command(
    cls=SettingsCommand,
    help=HELP,
    params=lookup_options(Scope.DOCTOR, words=WORDS),
    short_help="Check that everything is as it should be.",
)
@click.pass_context
def doctor(context: click.Context, /, **_options: object) -> None:
    """Make every check and say what came out."""
    settings = settings_from(context)
    invocation_of(context).debug = settings.debug
    from dbproxy.cli.console import Answer  # late, so that help and usage errors come quickly
    from dbproxy.doctor import examine, gather
    from dbproxy.identity.store import utc_now

    evidence = gather(settings, utc_now())
    report = examine(evidence, None if settings.offline else _look_upstream(settings, evidence))
    answer = Answer()
    if settings.format == "json":
        answer.line(json.dumps(_facts(report)))
    else:
        show_outcomes(answer, report)
        answer.line()
        answer.line(_summary(report))
    context.exit(1 if report.failed else 0)


def _look_upstream(settings: Settings, evidence: "Evidence") -> "UpstreamEvidence":
    import trio

    from dbproxy.doctor import look_upstream

    if settings.format == "text" and sys.stderr.isatty():
        click.echo("Looking at the way to the Teleport Proxy …", err=True)
    return trio.run(look_upstream, settings, evidence.config, evidence.identity)


def show_outcomes(answer: "Answer", report: "Report") -> None:
    """Write what each check has found, with the next step where there is one."""
    name_width = max(len(outcome.check.name) for outcome in report.outcomes) + 2
    indent = " " * (VERDICT_WIDTH + name_width)
    for outcome in report.outcomes:
        finding = outcome.finding
        verdict = finding.verdict.value
        code = (f" [{finding.code}]", "bold") if finding.code is not None else ""
        answer.line(
            (verdict.ljust(VERDICT_WIDTH), STYLES[verdict]),
            outcome.check.name.ljust(name_width),
            finding.message,
            code,
        )
        if finding.next_step is not None:
            answer.prose(finding.next_step, indent=indent)


def _facts(report: "Report") -> dict[str, object]:
    from dbproxy.doctor import Verdict, describe_outcome

    return {
        "version": __version__,
        "failed": report.failed,
        "counts": {verdict.value: report.count(verdict) for verdict in Verdict},
        "checks": [describe_outcome(outcome) for outcome in report.outcomes],
    }


def _summary(report: "Report") -> str:
    from dbproxy.doctor import Verdict

    counts = [(report.count(verdict), verdict.value) for verdict in Verdict]
    return ", ".join(f"{count} {word}" for count, word in counts if count)
