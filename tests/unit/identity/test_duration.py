"""Durations as Go writes them, and spans as people say them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.identity import parse_go_duration
from dbproxy.identity.duration import in_words


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("20m", timedelta(minutes=20)),
        ("1h0m0s", timedelta(hours=1)),
        ("1h30m", timedelta(minutes=90)),
        ("1.5h", timedelta(minutes=90)),
        (".5s", timedelta(milliseconds=500)),
        ("1.s", timedelta(seconds=1)),
        ("300ms", timedelta(milliseconds=300)),
        ("5us", timedelta(microseconds=5)),
        ("5\u00b5s", timedelta(microseconds=5)),
        ("5\u03bcs", timedelta(microseconds=5)),
        ("1500ns", timedelta(microseconds=1)),
        ("0", timedelta(0)),
        ("-20m", timedelta(minutes=-20)),
        ("+20m", timedelta(minutes=20)),
        ("2562047h47m16.854775807s", timedelta(microseconds=9_223_372_036_854_775)),
    ],
)
def test_go_durations_are_read(text: str, span: timedelta) -> None:
    assert parse_go_duration(text) == span


@pytest.mark.parametrize(
    "text",
    ["", "-", "20", "m", "20 m", "20m ", "20min", "1d", "1h-1m", "h1", ".s", "1..5s", "2562048h"],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_go_duration(text)


@pytest.mark.parametrize("text", [chr(0x661) + "s", "1e9h", "9" * 200 + "h"])
def test_what_only_looks_like_a_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_go_duration(text)


@given(st.text(alphabet="0123456789.hmsnu\u00b5+-", max_size=20))
def test_any_text_gives_a_span_or_a_value_error(text: str) -> None:
    try:
        span = parse_go_duration(text)
    except ValueError:
        return
    assert abs(span) <= timedelta(days=366 * 293)


@given(hours=st.integers(0, 999), minutes=st.integers(0, 59), seconds=st.integers(0, 59))
def test_what_go_prints_is_read_back(hours: int, minutes: int, seconds: int) -> None:
    span = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    assert parse_go_duration(f"{hours}h{minutes}m{seconds}s") == span


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(0), "0 seconds"),
        (timedelta(milliseconds=999), "0 seconds"),
        (timedelta(seconds=1), "1 second"),
        (timedelta(seconds=59), "59 seconds"),
        (timedelta(seconds=60), "1 minute"),
        (timedelta(minutes=59, seconds=59), "59 minutes"),
        (timedelta(hours=1), "1 hour"),
        (timedelta(hours=47), "1 day"),
        (timedelta(days=-3), "3 days"),
    ],
)
def test_spans_are_said_by_their_largest_unit(span: timedelta, words: str) -> None:
    assert in_words(span) == words
