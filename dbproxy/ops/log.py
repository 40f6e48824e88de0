"""The log: a subscriber that writes each event as one line.

structlog renders; nothing of it is configured globally, so that a program which embeds dbproxy
keeps its own configuration. For people a line is a time (UTC, with its `Z`), a level, the event's
stable name and `key=value` pairs; for machines it is a JSON object with the same keys, among them
`timestamp` (ISO 8601, UTC), `level` and `event`. People are told what to do about refused
connections once for each code, machines every time.
"""

import traceback
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from enum import Enum
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger

from dbproxy.errors import PROBLEMS
from dbproxy.events import ConnectionClosed, ConnectionRecord, Event, Level
from dbproxy.ops.log_format import processors

__all__ = ["EventLog", "dropped_notice", "make_logger"]

_PLAIN_TYPES: Final = frozenset({str, int, bool, type(None)})

Write = Callable[[str], None]
"""Takes one finished line, without its end."""


class EventLog:
    """A subscriber that logs events.

    Args:
        logger: Where the lines go, by structlog.
        debug: Whether to log the events of level debug too, and tracebacks.
        quiet: Whether to log only what is a warning or worse, unless `debug` says otherwise.
    """

    def __init__(
        self, logger: FilteringBoundLogger, *, debug: bool = False, quiet: bool = False
    ) -> None:
        self._debug = debug
        silent = {Level.DEBUG, Level.INFO} if quiet else {Level.DEBUG}
        self._silent = frozenset() if debug else frozenset(silent)
        self._write = {
            Level.DEBUG: logger.debug,
            Level.INFO: logger.info,
            Level.WARNING: logger.warning,
            Level.ERROR: logger.error,
        }

    def __call__(self, event: Event) -> None:
        """Log `event` under its stable name, with its fields."""
        level = level_of(event)
        if level not in self._silent:
            traces = traces_of(event) if self._debug else {}
            self._write[level](event.name, **fields_of(event), **traces)


def make_logger(log_format: str, write: Write, *, colors: bool = False) -> FilteringBoundLogger:
    """A structlog logger of our own.

    Args:
        log_format: `console` or `json`.
        write: Takes the finished lines; it must not block.
        colors: Whether the console format is coloured.
    """
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _Lines(write),
        processors=processors(log_format, colors=colors),
        wrapper_class=structlog.make_filtering_bound_logger("DEBUG"),
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return logger


def dropped_notice(log_format: str, *, colors: bool = False) -> Callable[[int], str]:
    """What makes the line that says how many lines were lost."""

    def notice(count: int) -> str:
        lines: list[str] = []
        logger = make_logger(log_format, lines.append, colors=colors)
        logger.warning("log-lines-dropped", count=count, reason="the log is not read fast enough")
        return lines[0]

    return notice


def level_of(event: Event) -> Level:
    """How loud an event is: that of its class, and for a closed connection that of its end."""
    if isinstance(event, ConnectionClosed):
        if event.record.outcome == "probe":
            return Level.DEBUG
        if event.record.outcome == "refused" or event.record.code is not None:
            return Level.WARNING
    return event.level


def fields_of(event: Event) -> dict[str, object]:
    """The fields of an event as plain values; those of a record, not the record."""
    if isinstance(event, ConnectionClosed):
        return _fields_of_record(event.record)
    return _plain_fields_of(event)


def traces_of(event: Event) -> dict[str, str]:
    """How an error that was not foreseen came about, if the event has one."""
    for field in fields(event):
        value = getattr(event, field.name)
        if isinstance(value, Exception):
            return {"traceback": "".join(traceback.format_exception(value))}
    return {}


def _fields_of_record(record: ConnectionRecord) -> dict[str, object]:
    values = _plain_fields_of(record)
    if record.code is not None:
        values["next_step"] = PROBLEMS[record.code].next_step
    return values


def _plain_fields_of(thing: Event | ConnectionRecord) -> dict[str, object]:
    values: dict[str, object] = {}
    for name in _names_of(thing):
        value = getattr(thing, name)
        values[name] = value if type(value) in _PLAIN_TYPES else _plain(value)
    return values


_NAMES: Final[dict[type, tuple[str, ...]]] = {}


def _names_of(thing: Event | ConnectionRecord) -> tuple[str, ...]:
    """The fields, found out once for each class: each time would cost more than all the rest."""
    names = _NAMES.get(type(thing))
    if names is None:
        names = _NAMES[type(thing)] = tuple(field.name for field in fields(thing))
    return names


def _plain(value: object) -> object:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case Enum():
            return value.value
        case float():
            return round(value, 6)
        case Exception():
            return repr(value)
    return value


class _Lines:
    """What structlog calls a logger: it takes the rendered line, whatever the level."""

    def __init__(self, write: Write) -> None:
        self.debug = self.info = self.warning = self.error = write
