"""When a missing renewal is told, and when a clock has jumped."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.identity.expiry import (
    MOST_WARNINGS,
    SHORTEST_SPACING,
    ClockComparison,
    Expired,
    ExpirySchedule,
    Overdue,
    renewal_due,
)

ISSUED = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
NOT_BEFORE = ISSUED - MINUTE
"""As Teleport issues: valid from a minute before."""
END = ISSUED + timedelta(hours=1)


def schedule(renewal_interval: timedelta | None = None) -> ExpirySchedule:
    return ExpirySchedule(NOT_BEFORE, END, renewal_interval)


class TestRenewalDue:
    """The moment of the first warning."""

    def test_without_an_interval_it_is_two_thirds_of_the_lifetime(self) -> None:
        assert renewal_due(NOT_BEFORE, END) == ISSUED + 40 * MINUTE

    def test_with_an_interval_it_is_a_little_later_than_that(self) -> None:
        assert renewal_due(NOT_BEFORE, END, 20 * MINUTE) == ISSUED + 22 * MINUTE

    def test_a_short_interval_gets_ten_seconds(self) -> None:
        end = ISSUED + MINUTE
        assert renewal_due(NOT_BEFORE, end, 20 * SECOND) == ISSUED + 30 * SECOND

    def test_an_interval_close_to_the_lifetime_leaves_time_to_act(self) -> None:
        assert renewal_due(NOT_BEFORE, END, 56 * MINUTE) == ISSUED + 57 * MINUTE

    @pytest.mark.parametrize("minutes", [60, 61, 600, 0, -20])
    def test_an_interval_that_makes_no_sense_does_not_count(self, minutes: int) -> None:
        assert renewal_due(NOT_BEFORE, END, minutes * MINUTE) == ISSUED + 40 * MINUTE

    @given(
        st.timedeltas(min_value=SECOND, max_value=timedelta(days=365)),
        st.none() | st.timedeltas(min_value=timedelta(), max_value=timedelta(days=365)),
    )
    def test_it_lies_within_the_validity(
        self, lifetime: timedelta, renewal_interval: timedelta | None
    ) -> None:
        end = NOT_BEFORE + lifetime
        assert NOT_BEFORE < renewal_due(NOT_BEFORE, end, renewal_interval) <= end


class TestSchedule:
    """What is told at which moment."""

    def test_nothing_is_said_before_a_renewal_is_due(self) -> None:
        warnings = schedule()
        assert warnings.poll(NOT_BEFORE) is None
        assert warnings.poll(ISSUED + 40 * MINUTE - SECOND) is None
        assert warnings.until_next(ISSUED) == 40 * MINUTE

    def test_each_warning_comes_at_half_of_the_remaining_time(self) -> None:
        warnings, now = schedule(), ISSUED
        remaining = []
        while (pause := warnings.until_next(now)) is not None:
            now += pause
            match warnings.poll(now):
                case Overdue(due, left):
                    assert due == ISSUED + 40 * MINUTE
                    remaining.append(left)
                case Expired():
                    assert now > END
                case None:
                    pytest.fail(f"nothing to say at {now}")
        assert remaining == [20 * MINUTE / 2**halvings for halvings in range(MOST_WARNINGS)]
        assert warnings.poll(now + timedelta(days=1)) is None

    @pytest.mark.parametrize(
        ("remaining", "told"),
        [(3600, 6), (960, 6), (959, 5), (240, 4), (60, 2), (59, 1), (10, 1), (1, 1)],
    )
    def test_no_two_come_within_half_a_minute(self, remaining: int, told: int) -> None:
        """Nor does one come so close to the end, except for the first."""
        end = ISSUED + 3 * remaining * SECOND
        warnings, now = ExpirySchedule(NOT_BEFORE, end), ISSUED
        moments = []
        while (pause := warnings.until_next(now)) is not None:
            now += pause
            assert warnings.poll(now) is not None
            moments.append(now)
        assert moments[0] == ISSUED + 2 * remaining * SECOND
        assert len(moments) == told + 1  # the last one is the end
        pauses = [later - earlier for earlier, later in itertools.pairwise(moments)]
        assert all(pause >= SHORTEST_SPACING for pause in pauses[1:])
        assert told == 1 or pauses[0] >= SHORTEST_SPACING

    def test_each_is_said_once(self) -> None:
        warnings = schedule()
        assert warnings.poll(ISSUED + 41 * MINUTE) == Overdue(ISSUED + 40 * MINUTE, 19 * MINUTE)
        assert warnings.poll(ISSUED + 41 * MINUTE) is None
        assert warnings.poll(ISSUED + 49 * MINUTE) is None
        assert warnings.poll(ISSUED + 50 * MINUTE) == Overdue(ISSUED + 40 * MINUTE, 10 * MINUTE)

    def test_of_several_that_were_slept_through_only_the_last_is_said(self) -> None:
        warnings = schedule()
        assert warnings.poll(ISSUED + 58 * MINUTE) == Overdue(ISSUED + 40 * MINUTE, 2 * MINUTE)
        assert warnings.poll(ISSUED + 58 * MINUTE + SECOND) is None
        assert schedule().poll(END + SECOND) == Expired()

    def test_the_last_moment_of_validity_is_valid(self) -> None:
        warnings = schedule()
        assert warnings.poll(END) == Overdue(ISSUED + 40 * MINUTE, timedelta())
        assert warnings.poll(END + timedelta(microseconds=1)) == Expired()

    def test_a_clock_that_is_set_back_brings_the_warnings_again(self) -> None:
        warnings = schedule()
        assert warnings.poll(END + MINUTE) == Expired()
        assert warnings.poll(ISSUED) is None
        assert warnings.poll(ISSUED + 40 * MINUTE) is not None
        assert warnings.poll(END + MINUTE) == Expired()

    def test_a_renewal_interval_brings_the_first_warning_forward(self) -> None:
        assert schedule(20 * MINUTE).poll(ISSUED + 22 * MINUTE) == Overdue(
            ISSUED + 22 * MINUTE, 38 * MINUTE
        )

    @given(st.lists(st.integers(-120, 4000), max_size=40), st.none() | st.integers(1, 4000))
    def test_whatever_the_clock_does_the_next_moment_is_never_past(
        self, seconds: list[int], interval: int | None
    ) -> None:
        warnings = schedule(None if interval is None else interval * SECOND)
        for second in seconds:
            now = ISSUED + second * SECOND
            expired = warnings.poll(now) == Expired()
            assert not expired or now > END
            pause = warnings.until_next(now)
            assert (pause is None) == (now > END)
            assert pause is None or pause > timedelta()


class TestClockComparison:
    """The system's clock against one that never jumps."""

    def test_clocks_that_go_on_together_have_not_jumped(self) -> None:
        comparison = ClockComparison(1_000_000.0, 5.0)
        for second in range(1, 100):
            assert comparison.jump(1_000_000.0 + second, 5.0 + second) is None

    @pytest.mark.parametrize("gained", [3600.0, -3600.0, 1.5, -1.5])
    def test_a_jump_is_told_once(self, gained: float) -> None:
        comparison = ClockComparison(1_000_000.0, 5.0)
        assert comparison.jump(1_000_010.0 + gained, 15.0) == pytest.approx(gained)
        assert comparison.jump(1_000_020.0 + gained, 25.0) is None

    def test_a_slow_drift_is_no_jump(self) -> None:
        """NTP slews by half a millisecond a second at most."""
        comparison = ClockComparison(1_000_000.0, 0.0)
        for look in range(1, 10_000):
            assert comparison.jump(1_000_000.0 + look * 5 * 1.0005, look * 5.0) is None
