"""When files are worth reading."""

from collections.abc import Collection

import pytest

from dbproxy.identity.rewrite import (
    LONGEST_REWRITE,
    PATIENCE,
    PAUSE,
    QUIET,
    RECHECK_INTERVAL,
    TIMESTAMP_GRANULARITY,
    Rewrites,
    Verdict,
)
from dbproxy.identity.stamp import FileStamp, Stamp

OLD = 1e6
"""Seconds since the newest file was written: long ago."""


RENEWAL = 20 * 60 * 10**9
"""Nanoseconds between two versions of a file."""


def stamp(*versions: float | None) -> Stamp:
    """What files of these versions look like; `None` is an absent one."""
    return Stamp(tuple(None if version is None else file_stamp(version) for version in versions))


def file_stamp(version: float) -> FileStamp:
    moment = int(version * RENEWAL)
    return FileStamp(moment, moment, 100, moment)


def wall(age: float, *versions: float | None) -> float:
    """What the system's clock says when the newest of these files is so old."""
    return age - stamp(*versions).age(0)


class Looks:
    """Looks at files, at times that a test chooses; unless it says otherwise, just written."""

    def __init__(self, lists: Collection[int] = ()) -> None:
        self.rewrites = Rewrites(lambda stamp: stamp.was_written_last(lists))
        self.now = 1000.0

    def __call__(self, *versions: float | None, after: float = 0.0, age: float = 0.0) -> Verdict:
        self.now += after
        return self.rewrites.look(stamp(*versions), self.now, wall(age, *versions))

    def good(self, *versions: float | None, age: float = OLD) -> None:
        self.rewrites.read_good(stamp(*versions), self.now, wall(age, *versions))

    def torn(self, *versions: float | None) -> None:
        self.rewrites.read_torn(stamp(*versions), self.now)

    def failed(self, *versions: float | None) -> None:
        self.rewrites.read_failed(stamp(*versions), self.now)

    @property
    def patience_is_over(self) -> bool:
        return self.rewrites.is_patience_over(self.now)


@pytest.fixture
def look() -> Looks:
    return Looks()


@pytest.fixture
def loaded(look: Looks) -> Looks:
    """Three files were read, long after they were written."""
    look(1, 1, 1)
    look.good(1, 1, 1)
    return look


def test_the_first_look_is_for_reading(look: Looks) -> None:
    assert look(1, 1, 1) is Verdict.READ


def test_even_when_there_is_nothing_to_read(look: Looks) -> None:
    assert look(None, None) is Verdict.READ


def test_nothing_happens_until_something_is_written(loaded: Looks) -> None:
    assert loaded(1, 1, 1, after=1e6) is Verdict.UNCHANGED


def test_a_rewrite_is_under_way_until_each_file_has_changed(loaded: Looks) -> None:
    assert loaded(2, 1, 1) is Verdict.UNDER_WAY
    assert loaded(2, 2, 1, after=0.1) is Verdict.UNDER_WAY
    assert loaded(2, 2, 2, after=0.1) is Verdict.READ


def test_files_that_are_not_there_do_not_count(look: Looks) -> None:
    look.good(1, None, 1)
    assert look(2, None, 2) is Verdict.READ


def test_a_file_that_appears_or_goes_is_a_change(loaded: Looks) -> None:
    assert loaded(2, None, 2) is Verdict.READ
    loaded.good(2, None, 2)
    assert loaded(2, 3, 2) is Verdict.UNDER_WAY


def test_a_rewrite_of_some_files_is_complete_after_a_quiet_moment(look: Looks) -> None:
    """The third one has been left over for long."""
    look.good(2, 2, 1)
    assert look(3, 2, 1) is Verdict.UNDER_WAY
    assert look(3, 3, 1, after=QUIET * 0.9) is Verdict.UNDER_WAY
    assert look(3, 3, 1, after=QUIET * 0.9) is Verdict.UNDER_WAY
    assert look(3, 3, 1, after=QUIET * 0.2) is Verdict.READ


def test_a_file_that_the_last_renewal_wrote_is_waited_for_longer(loaded: Looks) -> None:
    assert loaded(2, 1, 1) is Verdict.UNDER_WAY
    assert loaded(2, 2, 1, after=PATIENCE * 0.9) is Verdict.UNDER_WAY
    assert loaded(2, 2, 1, after=PATIENCE * 0.9) is Verdict.UNDER_WAY
    assert loaded(2, 2, 2) is Verdict.READ


def test_a_file_that_no_renewal_writes_any_more_is_waited_for_once(loaded: Looks) -> None:
    loaded(2, 2, 1)
    assert loaded(2, 2, 1, after=PATIENCE * 0.9) is Verdict.UNDER_WAY
    assert loaded(2, 2, 1, after=PATIENCE * 0.2) is Verdict.READ
    loaded.good(2, 2, 1)
    assert loaded(3, 3, 1) is Verdict.UNDER_WAY
    assert loaded(3, 3, 1, after=QUIET * 1.1) is Verdict.READ


def test_the_last_renewal_may_have_taken_some_seconds(look: Looks) -> None:
    second = 10**9 / RENEWAL
    look.good(1, 1 + 2 * second, 1 + 4 * second)
    look(2, 2, 1 + 4 * second)
    assert look(2, 2, 1 + 4 * second, after=QUIET * 2) is Verdict.UNDER_WAY
    look.good(1, 1 + 3 * second, 1 + 6 * second)
    look(1, 2, 2)
    assert look(1, 2, 2, after=QUIET * 2) is Verdict.READ


def test_a_change_that_is_noticed_long_after_it_happened_is_complete(loaded: Looks) -> None:
    assert loaded(2, 1, 1, after=10, age=TIMESTAMP_GRANULARITY) is Verdict.READ


def test_a_clock_that_is_wrong_makes_no_change_old(loaded: Looks) -> None:
    """As that of a file server may be; the look before saw nothing of this change."""
    loaded(1, 1, 1, after=10)
    assert loaded(2, 1, 1, after=0.1, age=OLD) is Verdict.UNDER_WAY
    assert loaded(2, 2, 1, after=0.5, age=OLD) is Verdict.UNDER_WAY
    assert loaded(2, 2, 2, after=0.5, age=OLD) is Verdict.READ


def test_a_list_that_was_written_last_has_to_come_to_rest() -> None:
    """It may be cut between two authorities; elsewhere a cut shows, or the writer has moved on."""
    second = 10**9 / RENEWAL
    look = Looks(lists=[0, 2])
    look.good(1, 1, 1)
    assert look(2, 2, 2 + second) is Verdict.UNDER_WAY
    assert look(2, 2, 2 + second, after=QUIET * 0.9) is Verdict.UNDER_WAY
    assert look(2, 2, 2 + 2 * second, after=QUIET * 0.9) is Verdict.UNDER_WAY
    assert look(2, 2, 2 + 2 * second, after=QUIET * 1.1) is Verdict.READ
    look.good(2, 2, 2)
    assert look(3, 3 + second, 3) is Verdict.READ


@pytest.mark.parametrize("age", [0.0, OLD])
def test_a_list_that_was_written_just_before_the_first_look_has_to_come_to_rest(age: float) -> None:
    look = Looks(lists=[1])
    fresh = age == 0
    assert look(1, 2, age=age) is (Verdict.UNDER_WAY if fresh else Verdict.READ)
    assert look(1, 2, after=QUIET * 1.1, age=age) is Verdict.READ


def test_a_change_that_takes_itself_back_was_none(loaded: Looks) -> None:
    assert loaded(2, 1, 1) is Verdict.UNDER_WAY
    assert loaded(1, 1, 1) is Verdict.UNCHANGED


def test_patience_with_a_rewrite_that_never_ends_is_over_some_time(loaded: Looks) -> None:
    for version in range(2, 12):
        assert loaded(version, 1, 1, after=QUIET / 2) is Verdict.UNDER_WAY
        assert not loaded.patience_is_over
    assert loaded(20, 1, 1, after=LONGEST_REWRITE - QUIET * 5) is Verdict.UNDER_WAY
    assert loaded(21, 1, 1, after=QUIET * 0.6) is Verdict.READ
    assert loaded.patience_is_over


def test_a_slow_writer_gets_more_patience_with_each_file(loaded: Looks) -> None:
    for version in range(2, 6):
        assert loaded(version, version, version, after=PATIENCE * 0.9) is Verdict.READ
        loaded.torn(version, version, version)
        assert not loaded.patience_is_over
    assert loaded(5, 5, 5, after=PATIENCE) is Verdict.READ
    assert loaded.patience_is_over


def test_what_was_torn_is_read_again_after_a_pause(loaded: Looks) -> None:
    assert loaded(2, 2, 2) is Verdict.READ
    loaded.torn(2, 2, 2)
    assert loaded(2, 2, 2) is Verdict.UNDER_WAY
    assert loaded(2, 2, 2, after=PAUSE * 1.1) is Verdict.READ
    loaded.torn(2, 2, 2)
    assert loaded(2, 2, 3) is Verdict.READ


def test_a_torn_read_of_unchanged_files_is_repeated_until_patience_is_over(loaded: Looks) -> None:
    loaded.torn(1, 1, 1)
    assert not loaded.patience_is_over
    assert loaded(1, 1, 1, after=PAUSE * 1.1) is Verdict.READ
    loaded.torn(1, 1, 1)
    assert loaded(1, 1, 1, after=PATIENCE) is Verdict.READ
    assert loaded.patience_is_over


def test_a_failure_for_good_is_looked_at_now_and_then(loaded: Looks) -> None:
    assert loaded(2, 2, 2) is Verdict.READ
    loaded.failed(2, 2, 2)
    assert loaded(2, 2, 2, after=RECHECK_INTERVAL * 0.9) is Verdict.UNCHANGED
    assert loaded(2, 2, 2, after=RECHECK_INTERVAL * 0.2) is Verdict.READ
    assert loaded.patience_is_over


def test_a_write_after_a_failure_has_patience_of_its_own(loaded: Looks) -> None:
    loaded(2, 1, 1)
    loaded.failed(2, 1, 1)
    assert loaded(3, 1, 1, after=1e6) is Verdict.UNDER_WAY
    assert not loaded.patience_is_over


def test_after_a_failure_each_file_has_to_change_since_the_last_good_read(loaded: Looks) -> None:
    """The failure may have met half of the rewrite."""
    loaded(2, 2, 1)
    loaded.failed(2, 2, 1)
    assert loaded(2, 2, 2) is Verdict.READ


def test_what_was_read_just_after_it_was_written_is_read_once_more(look: Looks) -> None:
    look(1, 1, 1)
    look.good(1, 1, 1, age=TIMESTAMP_GRANULARITY / 2)
    assert look(1, 1, 1, after=RECHECK_INTERVAL / 2) is Verdict.UNCHANGED
    assert look(1, 1, 1, after=RECHECK_INTERVAL / 2) is Verdict.READ
    look.good(1, 1, 1, age=TIMESTAMP_GRANULARITY)
    assert look(1, 1, 1, after=1e6) is Verdict.UNCHANGED
