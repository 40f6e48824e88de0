"""Who is replaced, when, and when all of it ends."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.backoff import Backoff
from dbproxy.errors import Code, DBProxyError
from dbproxy.workers.roster import End, How, Roster, Verdict

CRASH = DBProxyError(Code.WORKER_LOST, "worker 1 was ended by SIGKILL")
MISTAKE = DBProxyError(Code.CERTIFICATE_EXPIRED, "it is over")

ASKED = End(How.ASKED)
CRASHED = End(How.CRASHED, CRASH)
MISTAKEN = End(How.MISTAKEN, MISTAKE)
EVERY_END = (ASKED, CRASHED, MISTAKEN)


def roster(size: int) -> Roster:
    return Roster(size, lambda: Backoff(1.0, 10.0, draw=lambda: 1.0))


def serving(size: int) -> Roster:
    """All places are filled, and all serve."""
    full = roster(size)
    for place in range(size):
        full.begins(place, 0.0)
        full.ready(place)
    return full


def test_numbers_count_from_one_and_none_is_given_twice() -> None:
    two = roster(2)
    assert [two.begins(place, 0.0) for place in (0, 1)] == [1, 2]
    two.ready(0)
    two.ready(1)
    two.ended(1, CRASHED, 1.0)
    assert two.begins(1, 2.0) == 3


@pytest.mark.parametrize(("end", "problem"), [(CRASHED, CRASH), (MISTAKEN, MISTAKE)])
def test_who_fails_before_anybody_is_ready_ends_all(end: End, problem: DBProxyError) -> None:
    two = roster(2)
    two.begins(0, 0.0)
    two.begins(1, 0.0)
    assert two.ended(0, end, 1.0) == Verdict(fatal=problem)
    assert two.ended(1, end, 1.0).fatal is None, "it would be told twice"
    assert two.begins(0, 2.0) is None


def test_who_is_asked_to_end_before_anybody_is_ready_is_replaced() -> None:
    one = roster(1)
    one.begins(0, 0.0)
    assert one.ended(0, ASKED, 0.5) == Verdict(pause=1.0)


def test_a_crash_is_told_and_the_place_filled_again() -> None:
    assert serving(2).ended(0, CRASHED, 3.0) == Verdict(pause=1.0, told=CRASH)


def test_the_last_worker_that_crashes_is_replaced_too() -> None:
    one = serving(1)
    assert one.ended(0, CRASHED, 3.0) == Verdict(pause=1.0, told=CRASH)
    one.begins(0, 4.0)
    assert one.ended(0, CRASHED, 4.5) == Verdict(pause=2.0, told=CRASH), "before it was ready"


def test_who_was_asked_is_replaced_without_a_word() -> None:
    assert serving(2).ended(0, ASKED, 3.0) == Verdict(pause=1.0)


def test_a_mistake_is_waited_for_while_another_one_serves() -> None:
    two = serving(2)
    two.ended(0, CRASHED, 3.0)
    two.begins(0, 4.0)
    assert two.ended(0, MISTAKEN, 4.5) == Verdict(pause=2.0, told=MISTAKE)


def test_a_mistake_is_waited_for_while_another_one_begins() -> None:
    two = serving(2)
    for place in (0, 1):
        two.ended(place, CRASHED, 3.0)
        two.begins(place, 4.0)
    assert two.ended(0, MISTAKEN, 4.5).pause is not None
    assert two.ended(1, MISTAKEN, 4.5) == Verdict(fatal=MISTAKE), "clients would wait for nothing"


def test_pauses_grow_for_each_place_alone() -> None:
    two = serving(2)
    pauses = []
    for _ in range(6):
        pauses.append(two.ended(0, CRASHED, 0.5).pause)
        two.begins(0, 0.5)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert two.ended(1, CRASHED, 0.5).pause == 1.0


def test_after_a_good_time_the_pause_is_short_again() -> None:
    one = serving(1)
    for _ in range(3):
        one.ended(0, CRASHED, 0.5)
        one.begins(0, 0.5)
    assert one.ended(0, CRASHED, 11.0).pause == 1.0


@pytest.mark.parametrize(
    ("end", "verdict"),
    [(ASKED, Verdict()), (CRASHED, Verdict(told=CRASH)), (MISTAKEN, Verdict())],
)
def test_nobody_is_replaced_once_all_are_to_end(end: End, verdict: Verdict) -> None:
    one = serving(1)
    one.stop()
    assert one.ended(0, end, 1.0) == verdict
    assert one.begins(0, 2.0) is None


@given(
    size=st.integers(1, 4),
    steps=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["ready", "stop", *EVERY_END]))),
)
def test_whatever_happens_places_are_filled_until_the_end_and_no_longer(
    size: int, steps: list[tuple[int, End | str]]
) -> None:
    subject = roster(size)
    filled = {place: subject.begins(place, 0.0) for place in range(size)}
    numbers = [number for number in filled.values() if number is not None]
    over = False
    for now, (chosen, step) in enumerate(steps):
        place = chosen % size
        if step == "stop":
            subject.stop()
            over = True
        elif filled[place] is None:
            continue
        elif isinstance(step, End):
            verdict = subject.ended(place, step, float(now))
            assert (verdict.pause is None) is (over or verdict.fatal is not None)
            assert not (over and verdict.fatal)
            over |= verdict.fatal is not None
            filled[place] = subject.begins(place, float(now))
            assert (filled[place] is None) is over
            numbers += [number for number in [filled[place]] if number is not None]
        else:
            subject.ready(place)
    assert all(one < other for one, other in pairwise(numbers))
