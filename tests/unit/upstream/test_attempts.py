"""Which failures are worth another attempt, and when."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.backoff import Backoff
from dbproxy.errors import Prospect
from dbproxy.upstream import Attempts, Retry

GRACE = 5.0


def full_pauses() -> Backoff:
    return Backoff(0.1, 1.0, draw=lambda: 1.0)


def test_what_may_pass_is_tried_until_the_grace_is_over_with_growing_pauses() -> None:
    attempts, now, pauses = Attempts(GRACE, 0.0, full_pauses()), 0.0, []
    while (retry := attempts.after(Prospect.SOON, now)) is not None:
        pauses.append(retry.pause)
        now += retry.pause
    assert pauses[:5] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0])
    assert now == pytest.approx(GRACE), "the last attempt is at the end of the grace"
    assert attempts.made == len(pauses) + 1


def test_what_may_be_an_accident_is_tried_once_more() -> None:
    attempts = Attempts(GRACE, 0.0, full_pauses())
    assert attempts.after(Prospect.ONCE, 1.0) == Retry(0.1)
    assert attempts.after(Prospect.ONCE, 1.1) is None
    assert attempts.made == 2


def test_a_rejection_waits_for_a_newer_identity_for_what_is_left_and_once() -> None:
    attempts = Attempts(GRACE, 10.0)
    assert attempts.after(Prospect.RENEWED, 12.0) == Retry(3.0, renewed=True)
    assert attempts.after(Prospect.RENEWED, 12.5) is None


def test_a_restart_after_an_accident_is_still_waited_for() -> None:
    attempts = Attempts(GRACE, 0.0, full_pauses())
    assert attempts.after(Prospect.ONCE, 0.0) is not None
    assert attempts.after(Prospect.SOON, 0.5) is not None


def test_an_upstream_that_goes_twice_may_close_twice() -> None:
    attempts = Attempts(GRACE, 0.0, full_pauses())
    for prospect in (Prospect.ONCE, Prospect.SOON, Prospect.ONCE, Prospect.SOON):
        assert attempts.after(prospect, 0.5) is not None
    assert attempts.after(Prospect.ONCE, 1.0) is not None
    assert attempts.after(Prospect.ONCE, 1.0) is None


def test_an_accident_does_not_use_up_the_attempt_with_a_newer_identity() -> None:
    attempts = Attempts(GRACE, 0.0, full_pauses())
    assert attempts.after(Prospect.ONCE, 0.0) == Retry(0.1)
    assert attempts.after(Prospect.RENEWED, 1.0) == Retry(4.0, renewed=True)
    assert attempts.after(Prospect.ONCE, 2.0) is None


def test_those_that_failed_together_do_not_come_again_together() -> None:
    """Two hundred clients, ten attempts each: no hundredth of a second meets many of them."""
    moments: list[float] = []
    for _ in range(200):
        attempts, now = Attempts(GRACE, 0.0), 0.0
        for _ in range(10):
            retry = attempts.after(Prospect.SOON, now)
            if retry is None or now + retry.pause >= GRACE:
                break
            now += retry.pause
            moments.append(now)
    crowds = Counter(int(moment * 100) for moment in moments if moment > 1)
    assert max(crowds.values()) < 20


@pytest.mark.parametrize("prospect", Prospect)
def test_without_a_grace_there_is_one_attempt(prospect: Prospect) -> None:
    assert Attempts(0.0, 7.0).after(prospect, 7.0) is None


def test_what_stays_wrong_is_not_tried_again() -> None:
    assert Attempts(GRACE, 0.0).after(Prospect.NONE, 0.0) is None


@given(
    failures=st.lists(st.tuples(st.sampled_from(Prospect), st.floats(0, 3)), max_size=30),
    grace=st.floats(0, 20),
)
def test_no_attempt_begins_after_the_grace(
    failures: list[tuple[Prospect, float]], grace: float
) -> None:
    attempts, now = Attempts(grace, 0.0), 0.0
    for prospect, taken in failures:
        now += taken
        retry = attempts.after(prospect, now)
        if retry is None:
            return
        now += retry.pause
        assert now <= grace + 1e-6


def test_after_a_connection_that_was_ready_before_another_is_due_at_once_grace_or_not() -> None:
    attempts = Attempts(0.0, 0.0)
    assert attempts.afresh() == Retry(0)
    assert attempts.made == 2


def test_one_that_was_ready_uses_up_no_chance() -> None:
    attempts = Attempts(GRACE, 0.0, full_pauses())
    attempts.afresh()
    assert attempts.after(Prospect.ONCE, 1.0) == Retry(0.1)
