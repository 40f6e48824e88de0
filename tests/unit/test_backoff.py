"""Growing pauses."""

from hypothesis import given
from hypothesis import strategies as st

from dbproxy.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(1.0, 10.0, draw=lambda: 1.0)
    assert [backoff.next() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_chance_takes_half_at_most() -> None:
    backoff = Backoff(1.0, 10.0, draw=lambda: 0.0)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 4.0, 5.0]


@given(draws=st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_every_pause_is_within_its_bounds(draws: list[float]) -> None:
    backoff = Backoff(1.0, 10.0, draw=iter(draws).__next__)
    for number in range(len(draws)):
        full = min(2.0**number, 10.0)
        assert full / 2 <= backoff.next() <= full


def test_two_that_failed_together_do_not_wait_equally_long() -> None:
    assert len({Backoff(1.0, 10.0).next() for _ in range(10)}) > 1


def test_after_a_good_time_pauses_are_short_again() -> None:
    backoff = Backoff(1.0, 10.0, draw=lambda: 1.0)
    assert [backoff.next() for _ in range(3)] == [1.0, 2.0, 4.0]
    backoff.worked_for(9.0)
    assert backoff.next() == 8.0
    backoff.worked_for(11.0)
    assert backoff.next() == 1.0
