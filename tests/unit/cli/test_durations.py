import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.cli.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10.0),
        ("1m30s", 90.0),
        ("1h", 3600.0),
        ("1h0m0s", 3600.0),
        ("1.5h", 5400.0),
        ("0", 0.0),
        ("15", 15.0),
        ("2.5", 2.5),
        (" 10s ", 10.0),
        ("1m500ms", 60.5),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "3x", "10 s", "-1s", "1e9", "inf", "nan", "1m-30s", "10S", "1d", "٣s", ".5s"]
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"`{text}` is not a duration: give for example")
    ):
        parse_duration(text)


def test_a_number_too_large_for_arithmetic_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration("9" * 400)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (10, "10s"), (0.25, "250ms"), (90, "1m30s"), (3600, "1h"), (3661.5, "1h1m1s500ms")],
)
def test_a_duration_is_written_in_the_units_that_fit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=10**10))
def test_what_is_written_reads_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-6)


@given(st.text(alphabet="0123456789.hms -+eE", max_size=12))
def test_no_text_makes_the_parser_do_anything_but_answer_or_refuse(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds < float("inf")
