"""Environment variables as text: for a shell, and for the files that are called `.env`.

The problem: a shell has one way to quote that always works, and `.env` files have none. Every
reader has rules of its own about quotes, backslashes, `#` and `$` (python-dotenv, Node's and Ruby's
dotenv, Docker Compose, systemd's `EnvironmentFile=`).

The choice: a value is written in a form that they all read alike: bare where nothing in it is
special to anybody, else in single quotes, or in double quotes when it has a single one and nothing
that is special there. A value for which there is no such form is refused.

Tested in `tests/unit/test_environment.py`, with a real shell and a real reader.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Final

from dbproxy.errors import UsageError

__all__ = ["as_dotenv", "as_shell"]

_BARE: Final = re.compile(r"[\w./:@%+,=?-]+", re.ASCII)
_LINE_ENDS: Final = r"\n\r\v\f\x1c-\x1e\x85\u2028\u2029\0"
"""Whatever ends a line for somebody, and NUL, which is in no variable."""
_SINGLE_QUOTED: Final = re.compile(rf"(?:[^'\\{_LINE_ENDS}]|\\(?=[^'\\{_LINE_ENDS}]))*")
"""A backslash before another one, or before the quote, is an escape to some."""
_DOUBLE_QUOTED: Final = re.compile(rf"""[^"\\$`{_LINE_ENDS}]*""")
_INTERPOLATED: Final = "${"
"""python-dotenv takes it for a variable, even in single quotes."""


def as_shell(variables: Mapping[str, str], unset: Iterable[str] = ()) -> str:
    """Lines for `eval` or `.` in any POSIX shell.

    Args:
        variables: What to set and export.
        unset: Names of what must not be set.
    """
    names = list(unset)
    gone = [f"unset {' '.join(names)}"] if names else []
    return "\n".join(
        [*gone, *(f"export {name}={shlex.quote(value)}" for name, value in variables.items())]
    )


def as_dotenv(variables: Mapping[str, str]) -> str:
    """Lines for a `.env` file.

    Raises:
        UsageError: A value cannot be written so that every reader reads the same.
    """
    return "\n".join(f"{name}={_quoted(name, value)}" for name, value in variables.items())


def _quoted(name: str, value: str) -> str:
    if _BARE.fullmatch(value):
        return value
    if _INTERPOLATED not in value:
        if _SINGLE_QUOTED.fullmatch(value):
            return f"'{value}'"
        if _DOUBLE_QUOTED.fullmatch(value):
            return f'"{value}"'
    raise UsageError(
        f"the value of {name} has characters that no two readers of .env files read alike:"
        f" {value!r}",
        next_step="Use --format=shell or --format=json instead.",
    )
