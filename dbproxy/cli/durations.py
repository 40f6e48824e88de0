"""Durations as people type them: `500ms`, `10s`, `1m30s`, `1h`, or a bare number of seconds."""

import math
import re
from typing import Final

__all__ = ["format_duration", "parse_duration"]

UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
_BARE: Final = re.compile(_NUMBER)
_PART: Final = re.compile(rf"({_NUMBER})(ms|[hms])")
_WHOLE: Final = re.compile(rf"(?:{_NUMBER}(?:ms|[hms]))+")


def parse_duration(text: str) -> float:
    """Read a duration.

    Args:
        text: One or more numbers with a unit (`h`, `m`, `s`, `ms`), or a number of seconds.

    Returns:
        Seconds: finite and not negative.

    Raises:
        ValueError: The text is no duration; the message says what would be one.
    """
    seconds = _seconds(text.strip())
    if seconds is None or not math.isfinite(seconds):
        raise ValueError(f"`{text}` is not a duration: give for example 500ms, 10s, 1m30s or 2.5")
    return seconds


def format_duration(seconds: float) -> str:
    """Write a duration in the largest units that fit, so that `parse_duration` reads it back."""
    milliseconds = round(seconds * 1000)
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _seconds(text: str) -> float | None:
    if _BARE.fullmatch(text):
        return float(text)
    if _WHOLE.fullmatch(text):
        return sum(float(number) * UNITS[unit] for number, unit in _PART.findall(text))
    return None
