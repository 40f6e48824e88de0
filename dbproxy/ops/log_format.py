"""How a line of the log looks: for people and for machines."""

import re
from typing import Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from dbproxy.events import ConnectionClosed, InsecureChoice

__all__ = ["processors"]

EVENT_WIDTH: Final = 18
"""Pads the names of the usual events, so that what follows lines up."""

_AMBIGUOUS: Final = re.compile("[ =\"']")
_NUMBERS: Final = frozenset({int, bool, float})

PLAIN: Final = "\x1b[0m"
BOLD: Final = "\x1b[1m"
DIM: Final = "\x1b[2m"
CYAN: Final = "\x1b[36m"
ALARM: Final = "\x1b[1;97;41m"
"""White on red, for what lowers safety."""

LEVEL_STYLES: Final = {
    "debug": "\x1b[34m",
    "info": "\x1b[32m",
    "warning": "\x1b[1;33m",
    "error": "\x1b[1;31m",
}
ALARMING: Final = frozenset({InsecureChoice.name})


def processors(log_format: str, *, colors: bool) -> list[Processor]:
    """The steps that structlog makes a line with.

    Args:
        log_format: `json`, or `console` for people.
        colors: Whether the console format is coloured.
    """
    if log_format == "json":
        return [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _lead,
            structlog.processors.JSONRenderer(),
        ]
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%SZ", utc=True),
        _Repeats(),
        _Console(_Colors() if colors else _NoColors()),
    ]


def _lead(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Put what every line has before what only some have."""
    return {key: event.pop(key) for key in ("timestamp", "level", "event")} | dict(event)


class _Repeats:
    """Leaves the next step out where a refusal with the same code has shown it already."""

    def __init__(self) -> None:
        self._shown: set[object] = set()

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        code = event.get("code")
        if event["event"] == ConnectionClosed.name and code is not None:
            if code in self._shown:
                event.pop("next_step", None)
            self._shown.add(code)
        return event


class _NoColors:
    """Paints nothing."""

    def __call__(self, style: str, text: str) -> str:
        return text

    def pairs(self, event: EventDict) -> list[str]:
        """The fields that are known, as `key=value`."""
        return [f"{key}={_shown(value)}" for key, value in event.items() if value is not None]


class _Colors(_NoColors):
    """Paints for terminals that know ECMA-48's colours."""

    def __call__(self, style: str, text: str) -> str:
        return f"{style}{text}{PLAIN}"

    def pairs(self, event: EventDict) -> list[str]:
        """As above, in colours."""
        return super().pairs({self(CYAN, key): value for key, value in event.items()})


class _Console:
    """Renders an event for people: time, level, name, and `key=value` for what is known."""

    def __init__(self, paint: _NoColors) -> None:
        self._paint = paint

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        """One line, without its end."""
        time, level, name = (str(event.pop(key)) for key in ("timestamp", "level", "event"))
        style = ALARM if name in ALARMING else LEVEL_STYLES.get(level, BOLD)
        head = [
            self._paint(DIM, time),
            self._paint(style, f"{level:7}"),
            self._paint(ALARM if name in ALARMING else BOLD, f"{name:{EVENT_WIDTH}}"),
        ]
        return " ".join(head + self._paint.pairs(event))


def _shown(value: object) -> str:
    """A value without room for misreading: quoted and escaped where it is not a plain word."""
    text = str(value)
    if type(value) in _NUMBERS:
        return text
    plain = text.isprintable() and text and not _AMBIGUOUS.search(text)
    return text if plain else repr(text)
