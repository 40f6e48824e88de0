"""When looking for events pays, and when sleeping does."""

import pytest

from dbproxy.relay.spinning import MOMENT, SHORT_WAITS, Spinning

SHORT = MOMENT / 2


def after(*waits: tuple[float, int], processors: int = 2, worked: float = SHORT) -> Spinning:
    spinning = Spinning(processors)
    for waited, events in waits:
        spinning.note(worked, waited, events)
    return spinning


def test_nothing_is_expected_at_first() -> None:
    assert not after().pays
    assert not after(*[(SHORT, 1)] * (SHORT_WAITS - 1)).pays


def test_it_pays_after_short_waits_for_one_event_each() -> None:
    assert after(*[(SHORT, 1)] * SHORT_WAITS).pays
    assert after(*[(SHORT, 1)] * 1000).pays


@pytest.mark.parametrize(
    "last",
    [(MOMENT, 1), (1.0, 1), (SHORT, 0), (SHORT, 2), (SHORT, 256)],
    ids=["just too long", "long", "in vain", "two events", "many events"],
)
def test_one_other_wait_ends_it(last: tuple[float, int]) -> None:
    spinning = after(*[(SHORT, 1)] * 1000, last)
    assert not spinning.pays
    spinning.note(SHORT, SHORT, 1)
    assert not spinning.pays


def test_a_slow_database_and_a_quick_client_are_no_reason() -> None:
    assert not after(*[(SHORT, 1), (0.001, 1)] * 100, (SHORT, 1)).pays


def test_large_batches_are_no_reason() -> None:
    assert not after(*[(SHORT, 1)] * 1000, worked=MOMENT).pays


def test_with_one_processor_it_never_pays() -> None:
    assert not after(*[(SHORT, 1)] * 1000, processors=1).pays


def test_the_system_says_how_many_processors_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {3}, raising=False)
    spinning = Spinning()
    for _ in range(SHORT_WAITS):
        spinning.note(SHORT, SHORT, 1)
    assert not spinning.pays
