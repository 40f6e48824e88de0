"""Durations in the notation of Go's time.ParseDuration: `1h0m0s`, `90s`, `1.5m`, `300ms`."""

from __future__ import annotations

import re
from datetime import timedelta

_MICROSECONDS = {
    "ns": 0.001,
    "us": 1.0,
    "µs": 1.0,  # micro sign, U+00B5
    "\u03bcs": 1.0,  # Greek mu: Go accepts both
    "ms": 1e3,
    "s": 1e6,
    "m": 60e6,
    "h": 3600e6,
}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|\u03bcs|ms|s|m|h)")
_WHOLE = re.compile(rf"[+-]?(?:{_PART.pattern})+")


def parse_duration(text: str) -> timedelta:
    """Parse a Go duration; parts below a microsecond are rounded.

    Raises:
        ValueError: The text is not a duration, or too long for a `timedelta`.
    """
    if text in {"0", "+0", "-0"}:
        return timedelta()
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"not a duration such as 1h0m0s, 90s or 500ms: {text!r}")
    total = sum(float(number) * _MICROSECONDS[unit] for number, unit in _PART.findall(text))
    try:
        return timedelta(microseconds=-total if text.startswith("-") else total)
    except OverflowError as error:
        raise ValueError(f"duration out of range: {text!r}") from error
