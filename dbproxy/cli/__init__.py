"""The command line: `dbproxy`."""

import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import ClassVar, Final, NoReturn

import click

from dbproxy._version import __version__
from dbproxy.cli.errors import INTERRUPTED, finish_output, report_bug, run
from dbproxy.cli.invocation import Invocation, invocation_of
from dbproxy.cli.lazy import LazyGroup
from dbproxy.cli.options import flags_of, global_options

__all__ = ["dbproxy", "main"]

HELP: Final = """\
A local port for databases behind Teleport.

dbproxy listens on localhost and carries each connection to a database protected by Teleport,
with the short-lived certificates that tbot (Machine ID) keeps fresh in a directory.

\b
Start with:
  dbproxy demo     everything on this machine, with a stand-in for Teleport
  dbproxy -c /etc/tbot.yaml db --port=12345 example-server
  dbproxy --destination-dir=/opt/machine-id --proxy=teleport.example.com:443 \\
          db --port=12345 example-server
  dbproxy -c /etc/tbot.yaml run example-server -- psql -c 'select 1'

\b
When something is wrong:
  dbproxy doctor                 checks what `db` with the same options needs
  dbproxy explain CODE           shows the page about the code of an error

The options below may also be given after the command; the later one wins. Each has an
environment variable; a flag beats the environment, and the environment beats tbot's
configuration file. A flag's variable is 1, true or yes, or 0, false or no; an empty variable
counts as unset.

\b
Exit status:
  0  all went well, or the process was asked to stop and did
  1  something needed is missing or unusable; the message says what to do
  2  the arguments are incomplete or contradict each other

`dbproxy run` and `dbproxy connect` end with the status of the command that they run.
"""


class Commands(LazyGroup):
    """The commands of dbproxy."""

    places: ClassVar[Mapping[str, str]] = {
        "db": "dbproxy.cli.db",
        "start": "dbproxy.cli.start",
        "run": "dbproxy.cli.run",
        "connect": "dbproxy.cli.connect",
        "env": "dbproxy.cli.env",
        "identity": "dbproxy.cli.identity",
        "doctor": "dbproxy.cli.doctor",
        "explain": "dbproxy.cli.explain",
        "lab": "dbproxy.cli.lab",
        "demo": "dbproxy.cli.demo",
    }


@click.group(
    cls=Commands,
    help=HELP,
    params=global_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def dbproxy(context: click.Context, /, **_options: object) -> None:
    """Note the options given before the command."""
    invocation = invocation_of(context)
    invocation.flags.update(flags_of(context))
    invocation.debug = bool(invocation.flags.get("debug", False))


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    # The library's remark on names longer than X.520 allows; Teleport's may be, and are fine.
    warnings.filterwarnings("ignore", "Attribute's length must be", UserWarning)
    # And on the number 0, which an authority in the bundles of systems has.
    warnings.filterwarnings("ignore", "Parsed a serial number", UserWarning)
    invocation = Invocation()
    sys.excepthook = lambda _type, error, trace: report_bug(invocation, error, trace)
    status = INTERRUPTED
    with suppress(KeyboardInterrupt), _interruptible():
        status = finish_output(run(dbproxy, sys.argv[1:], invocation))
    sys.exit(status)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is an exception that cleans up, and before and after only ends the process."""
    previous = signal.getsignal(signal.SIGINT)
    if previous is signal.SIG_IGN:
        yield
        return
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
