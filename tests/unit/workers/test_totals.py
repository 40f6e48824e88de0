"""Numbers of all workers together."""

from hypothesis import given
from hypothesis import strategies as st

from dbproxy.workers.totals import Totals


def test_open_connections_are_known_once_every_worker_has_answered() -> None:
    totals = Totals()
    assert totals.open_connections is None
    totals.drain({1, 2})
    totals.draining(1, 3)
    assert totals.open_connections is None
    totals.draining(2, 4)
    assert totals.open_connections == 7


def test_nobody_has_no_connections() -> None:
    totals = Totals()
    totals.drain(set())
    assert totals.open_connections == 0


def test_a_worker_that_ends_without_an_answer_is_not_waited_for() -> None:
    totals = Totals()
    totals.drain({1, 2})
    totals.draining(1, 3)
    totals.gone(2)
    assert totals.open_connections == 3


def test_the_end_of_a_worker_that_has_answered_changes_nothing() -> None:
    totals = Totals()
    totals.drain({1, 2})
    totals.draining(1, 3)
    totals.gone(1)
    totals.draining(2, 4)
    assert totals.open_connections == 7


def test_a_worker_that_drains_already_has_answered() -> None:
    totals = Totals()
    totals.draining(1, 3)
    totals.drain({1, 2})
    totals.draining(2, 0)
    assert totals.open_connections == 3


def test_a_worker_that_drained_alone_and_is_gone_does_not_count() -> None:
    totals = Totals()
    totals.draining(1, 3)
    totals.gone(1)
    totals.drain({2})
    totals.draining(2, 4)
    assert totals.open_connections == 4


@given(counts=st.lists(st.integers(0, 1000)))
def test_what_was_ended_early_is_added_up(counts: list[int]) -> None:
    totals = Totals()
    for count in counts:
        totals.stopped(count)
    assert totals.ended_early == sum(counts)
