"""Waiting at start for tbot's first usable identity."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing
from identities import Cluster, write_destination
from virtual_time import run_threads_inline

from dbproxy.errors import Code, IdentityError
from dbproxy.events import Event, IdentityAwaited
from dbproxy.identity import DestinationSource, IdentityStore
from dbproxy.identity.waiting import load_within

EXPIRED = datetime.now(UTC) - timedelta(minutes=1)


class Bench:
    """A store whose destination does not exist yet."""

    def __init__(self, directory: Path, cluster: Cluster) -> None:
        self.directory = directory
        self.cluster = cluster
        self.events: list[Event] = []
        self.store = IdentityStore(DestinationSource(directory), service="example-server")

    async def load_within(self, patience: float) -> float:
        """Wait, and return how long that took."""
        begin = trio.current_time()
        await load_within(self.store, patience, publish=self.events.append)
        return trio.current_time() - begin

    def awaited(self) -> list[IdentityAwaited]:
        return [event for event in self.events if isinstance(event, IdentityAwaited)]

    async def after(self, seconds: float, act: Callable[[], object]) -> None:
        await trio.sleep(seconds)
        act()

    def write(self) -> None:
        write_destination(self.directory, self.cluster)


@pytest.fixture
async def bench(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Bench:
    run_threads_inline(monkeypatch)
    return Bench(tmp_path / "not" / "yet", cluster)


async def test_what_is_there_is_not_waited_for(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.write()
    assert await bench.load_within(60) == 0
    assert bench.events == []


async def test_a_directory_that_appears_later_is_waited_for(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.after, 30, bench.write)
        assert 30 <= await bench.load_within(60) < 32
    assert bench.store.current.generation == 1
    assert bench.awaited()[0].code is Code.IDENTITY_MISSING
    assert str(bench.directory) in bench.awaited()[0].reason


async def test_progress_is_told_every_ten_seconds_and_when_the_reason_changes(
    bench: Bench,
    autojump_clock: trio.testing.MockClock,
) -> None:
    def write_half() -> None:
        bench.write()
        (bench.directory / "tlscert").write_bytes(b"")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.after, 25, write_half)
        nursery.start_soon(bench.after, 30, bench.write)
        await bench.load_within(60)
    told = [(event.code, round(event.remaining)) for event in bench.awaited()]
    missing = Code.IDENTITY_MISSING
    assert [remaining for _, remaining in told[:3]] == [60, 50, 40]
    assert [code for code, _ in told] == [missing] * 3 + [Code.IDENTITY_MALFORMED]


async def test_an_expired_certificate_of_an_earlier_run_is_waited_for(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    write_destination(
        bench.directory,
        bench.cluster,
        not_before=EXPIRED - timedelta(hours=1),
        not_after=EXPIRED,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.after, 5, bench.write)
        assert 5 <= await bench.load_within(60) < 7
    assert [event.code for event in bench.awaited()] == [Code.CERTIFICATE_EXPIRED]


async def test_when_the_time_is_over_the_last_error_is_raised(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    begin = trio.current_time()
    with pytest.raises(IdentityError, match="does not exist") as caught:
        await bench.load_within(20)
    assert caught.value.code is Code.IDENTITY_MISSING
    assert trio.current_time() - begin == pytest.approx(20)


async def test_without_patience_it_fails_at_once(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    begin = trio.current_time()
    with pytest.raises(IdentityError):
        await bench.load_within(0)
    assert trio.current_time() == begin
    assert bench.events == []


async def test_it_can_be_cancelled(bench: Bench, autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(10) as scope:
        await bench.load_within(60)
    assert scope.cancelled_caught
    with pytest.raises(RuntimeError):
        _ = bench.store.current
