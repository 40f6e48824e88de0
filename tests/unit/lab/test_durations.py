from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.lab.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1h0m0s", timedelta(hours=1)),
        ("20m0s", timedelta(minutes=20)),
        ("60m", timedelta(hours=1)),
        ("90s", timedelta(seconds=90)),
        ("1.5m", timedelta(seconds=90)),
        (".5s", timedelta(milliseconds=500)),
        ("1.s", timedelta(seconds=1)),
        ("300ms", timedelta(milliseconds=300)),
        ("7us", timedelta(microseconds=7)),
        ("7µs", timedelta(microseconds=7)),
        ("7\u03bcs", timedelta(microseconds=7)),
        ("3000ns", timedelta(microseconds=3)),
        ("-1m30s", timedelta(seconds=-90)),
        ("+1s", timedelta(seconds=1)),
        ("0", timedelta()),
        ("0s", timedelta()),
    ],
)
def test_go_durations_are_read(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "s",
        "1d",
        "1 s",
        " 1s",
        "1s ",
        "1s\n",
        "1h-1m",
        "1e3s",
        ".s",
        "1..5s",
        "\u0661s",
        "9" * 30 + "h",
    ],
)
def test_other_notations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(
    hours=st.integers(0, 1000),
    minutes=st.integers(0, 59),
    seconds=st.integers(0, 59),
    milliseconds=st.integers(0, 999),
)
def test_what_go_prints_is_read_back(
    hours: int, minutes: int, seconds: int, milliseconds: int
) -> None:
    text = f"{hours}h{minutes}m{seconds}.{milliseconds:03}s"
    expected = timedelta(hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)
    assert parse_duration(text) == expected


@given(st.text("0123456789.+-hmsunµ ", max_size=20) | st.text(max_size=10))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert isinstance(parse_duration(text), timedelta)
