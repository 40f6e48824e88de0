"""The border where errors become sentences and exit statuses.

Whatever a user can cause ends here as two lines on standard error, what happened and what to do
next, and as an exit status. Anything else is a bug of ours: it passes through, and
`report_bug`, installed as `sys.excepthook`, says so.
"""

import os
import traceback
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final

import click
from click.core import ParameterSource

from dbproxy.cli.guess import guess
from dbproxy.cli.invocation import Invocation
from dbproxy.cli.output import NOBODY_READS, discard_errors, flush_output, output_failure
from dbproxy.cli.printable import printable
from dbproxy.errors import PROBLEMS, Code, DBProxyError
from dbproxy.settings import Scope, options

__all__ = ["INTERRUPTED", "finish_output", "report_bug", "run"]

PROGRAM: Final = "dbproxy"
INTERRUPTED: Final = 130
"""What shells report for a program that SIGINT ended: 128 + 2."""

_OF_DB: Final = frozenset(
    flag for _, option, _ in options(Scope.DB, Scope.WORKERS) for flag in option.flags
)
"""Options that have been typed in another place when they are not known."""

REPORTABLE: Final = (DBProxyError, click.ClickException, click.Abort, KeyboardInterrupt)
"""What users can cause."""


def run(command: click.Command, arguments: Sequence[str], invocation: Invocation) -> int:
    """Run `command` and report what goes wrong.

    Returns:
        The exit status: 0, or that of the problem's row in the table.
    """
    try:
        status = command.main(list(arguments), PROGRAM, standalone_mode=False, obj=invocation)
    except REPORTABLE as error:
        return _report(error)
    except SystemExit:  # how click and rich end when nobody reads their output, and nothing else
        return NOBODY_READS
    except (OSError, BaseExceptionGroup) as error:  # a surprise in a group goes on as it is
        leaves = list(_leaves(error))
        if cause := output_failure(leaves):
            return _report_output(cause)
        if not all(isinstance(leaf, REPORTABLE) for leaf in leaves):
            raise
        statuses = [_report(leaf) for leaf in leaves]
        return statuses[0]
    return status if isinstance(status, int) else 0


def finish_output(status: int) -> int:
    """Write what is left of standard output.

    Args:
        status: The exit status so far.

    Returns:
        The exit status, which is another one when all went well until now.
    """
    cause = flush_output()
    return status if cause is None or status else _report_output(cause)


def _report_output(cause: OSError) -> int:
    """Say why standard output cannot be written, unless its reader does not want it."""
    if isinstance(cause, BrokenPipeError):
        return NOBODY_READS
    _say_error(f"cannot write to standard output: {cause.strerror}")
    return 1


def report_bug(
    invocation: Invocation, error: BaseException, trace: TracebackType | None = None
) -> None:
    """Say that an error was not foreseen; with `--debug`, how it came about."""
    if invocation.debug:
        lines = traceback.format_exception(type(error), error, trace or error.__traceback__)
        click.echo("".join(lines), err=True, nl=False)
    leaf = next(_leaves(error))
    next_step = PROBLEMS[Code.INTERNAL_ERROR].next_step
    if not invocation.debug:
        next_step += " The option --debug shows more."
    _say_error(f"unexpected {type(leaf).__name__}: {leaf}", Code.INTERNAL_ERROR, next_step)


def _report(error: BaseException) -> int:
    """Tell the user about a foreseen error and return the exit status."""
    match error:
        case DBProxyError():
            _say_error(error.message, error.code, error.next_step)
            return error.problem.exit_status
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.format_message(), err=True)
            return error.exit_code
        case click.UsageError():
            return _report_usage(error)
        case click.ClickException():
            _say_error(error.format_message())
            return error.exit_code
    return INTERRUPTED


def _report_usage(error: click.UsageError) -> int:
    path = error.ctx.command_path if error.ctx is not None else PROGRAM
    _say_error(_sentence(error), Code.USAGE, f"See `{path} --help`.")
    return PROBLEMS[Code.USAGE].exit_status


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _sentence(error: click.UsageError) -> str:
    """The message of click in our form: what is wrong with what."""
    match error:
        case click.BadParameter(
            param=click.Parameter() as parameter, ctx=click.Context() as context
        ):
            return f"{_origin(parameter, context)}: {_bare(error.message)}"
        case click.NoSuchOption(option_name=name) if name in _OF_DB:
            return f"no such option {name} here: it is one of `dbproxy db`"
        case click.NoSuchOption():
            meant = guess(error.option_name, error.possibilities or ())
            return f"no such option {error.option_name}{meant}"
    return _bare(error.format_message())


def _bare(message: str) -> str:
    message = message.strip().rstrip(".")
    return message[:1].lower() + message[1:]


def _origin(parameter: click.Parameter, context: click.Context) -> str:
    """Where the value came from: the option as typed, or the environment variable."""
    if context.get_parameter_source(parameter.name or "") is ParameterSource.ENVIRONMENT:
        names = parameter.envvar or ()
        for name in [names] if isinstance(names, str) else names:
            if os.environ.get(name):
                return name
    return (
        max(parameter.opts, key=len) if isinstance(parameter, click.Option) else _title(parameter)
    )


def _title(parameter: click.Parameter) -> str:
    return (parameter.name or "").upper()


def _say_error(message: str, code: Code | None = None, next_step: str | None = None) -> None:
    """Write the message; unprintable characters, which a file's name may have, are escaped."""
    label = click.style("error:", fg="red", bold=True)
    end = f" [{code}]" if code is not None else ""
    lines = [f"{PROGRAM}: {label} {printable(message)}{end}"]
    if next_step:
        lines.append(printable(next_step))
    try:
        for line in lines:
            click.echo(line, err=True, color=False if os.environ.get("NO_COLOR") else None)
    except OSError:  # nobody can be told; the exit status stays what it is
        discard_errors()
