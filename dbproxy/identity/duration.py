"""Spans of time, as Go writes them in configuration files and as people say them."""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Final

__all__ = ["in_words", "parse_go_duration"]

_PART: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_NANOSECONDS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # the micro sign; Go accepts it as well as the Greek letter
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_LONGEST: Final = 2**63 - 1
"""Go keeps a duration as nanoseconds in 64 bits."""
_MAXIMUM_LENGTH: Final = 100


def parse_go_duration(text: str) -> timedelta:
    """Read a duration as Go's `time.ParseDuration` does: `1h0m0s`, `1.5h`, `-20m`, `300ms`, `0`.

    Raises:
        ValueError: When `text` is not a duration, or is out of Go's range of 292 years.
    """
    unsigned = text[1:] if text[:1] in {"+", "-"} else text
    nanoseconds = 0 if unsigned == "0" else _sum_of_parts(unsigned)
    span = timedelta(microseconds=nanoseconds // 1000)
    return -span if text.startswith("-") else span


def _sum_of_parts(text: str) -> int:
    total = 0
    position = 0
    if not text or len(text) > _MAXIMUM_LENGTH:
        raise ValueError("not a duration")
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            raise ValueError("not a duration")
        total += int(Decimal(part[1]) * _NANOSECONDS[part[2]])
        position = part.end()
    if total > _LONGEST:
        raise ValueError("the duration is too long")
    return total


def in_words(span: timedelta) -> str:
    """Say a span roughly, by its largest unit: `3 minutes`, `1 day`; less than a second is 0."""
    seconds = int(abs(span).total_seconds())
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            return _counted(seconds // size, unit)
    return _counted(seconds, "second")


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
