"""How the text of an option becomes a value, on the command line and in the environment."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from dbproxy.cli.durations import parse_duration
from dbproxy.settings import MOST_WORKERS, Kind, Option

if TYPE_CHECKING:
    _ParamType = click.ParamType[object]
else:  # generic at run time only in newer releases of click
    _ParamType = click.ParamType

__all__ = ["Value", "value_type"]

HIGHEST_PORT: Final = 65535
MOST_DIGITS: Final = 10
TRUTH: Final = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(
    ("0", "false", "no", "off"), False
)

Value = str | int | float | bool | Path | tuple[str, ...]
"""What an option's text, or the texts of a repeated one, can become."""


class Parsed(_ParamType):
    """A click type made from a function that takes text and raises ValueError with a sentence."""

    envvar_list_splitter = ","
    """Between the texts of a repeatable option in an environment variable."""

    def __init__(self, name: str, parse: Callable[[str], Value]) -> None:
        self.name = name
        self._parse = parse

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Value:
        """Turn the text into a value; a value that is none (a flag's True) passes."""
        if not isinstance(value, str):
            assert isinstance(value, Value)  # noqa: S101
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Truth(click.types.BoolParamType):
    """Whether a flag is set, as an environment variable says it."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> bool:
        """Turn the word into a truth; the True of a flag that was typed passes."""
        word = str(value).strip().lower()
        if word not in TRUTH:
            self.fail(f"`{value}` is neither yes nor no: give 1 or 0", param, ctx)
        return TRUTH[word]


def value_type(option: Option) -> Parsed | Truth:
    """The click type that reads the option's text."""
    if option.kind is Kind.CHOICE:
        return Parsed("word", partial(_one_of, option.choices))
    return _TYPES[option.kind]


def _text(text: str) -> str:
    """Any text but the empty one, which is what an unset shell variable leaves behind."""
    if not text:
        raise ValueError("the value is empty")
    return text


def _path(text: str) -> Path:
    return Path(_text(text))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) <= HIGHEST_PORT):
        raise ValueError(f"`{text}` is not a port: give 0 to {HIGHEST_PORT}{_where_from(text)}")
    return int(text)


def _where_from(text: str) -> str:
    """Kubernetes gives pods such variables for each Service, `DBPROXY_PORT` for one of our name."""
    if not text.startswith(("tcp://", "udp://")):
        return ""
    return (
        ". Kubernetes sets DBPROXY_PORT so where a Service is called dbproxy: put"
        " `enableServiceLinks: false` into the pod's specification"
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < MOST_DIGITS):
        raise ValueError(f"`{text}` is not a whole number: give for example 4")
    return int(text)


def _processes(text: str) -> int:
    if text == "auto":
        return min(_usable_cpus(), MOST_WORKERS)
    if not (text.isascii() and text.isdigit() and len(text) < MOST_DIGITS):
        raise ValueError(f"`{text}` is neither a number of processes nor auto")
    return int(text)


def _usable_cpus() -> int:
    """The CPUs that this process may run on, where the system tells, else those of the host."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _one_of(words: tuple[str, ...], text: str) -> str:
    if text not in words:
        raise ValueError(f"`{text}` is not one of: {', '.join(words)}")
    return text


_TYPES: Final[dict[Kind, Parsed | Truth]] = {
    Kind.FLAG: Truth(),
    Kind.TEXT: Parsed("text", _text),
    Kind.TEXTS: Parsed("text", _text),
    Kind.PATH: Parsed("path", _path),
    Kind.PORT: Parsed("port", _port),
    Kind.COUNT: Parsed("number", _count),
    Kind.PROCESSES: Parsed("number", _processes),
    Kind.DURATION: Parsed("duration", parse_duration),
}
