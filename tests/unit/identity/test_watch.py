"""What keeps an identity fresh between connections, and what is told about its time."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing
from identities import Cluster, write_destination
from virtual_time import Wall, run_threads_inline

from dbproxy.errors import Code
from dbproxy.events import (
    ChangeNoticesUnavailable,
    ClockJumped,
    Event,
    IdentityExpired,
    IdentityLoaded,
    IdentityNotRenewed,
)
from dbproxy.identity import DestinationSource, Identity, IdentityStore, watch
from dbproxy.identity.notices import NoticesUnavailableError

ISSUED = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=1)
"""Later than any file is written: what tests write looks as if it had been there for long."""
MINUTE = timedelta(minutes=1)
POLL = 5.0


class Bench:
    """A destination whose certificate begins at `ISSUED` and lasts an hour."""

    def __init__(self, directory: Path, cluster: Cluster) -> None:
        self.directory = directory
        self.cluster = cluster
        self.events: list[Event] = []
        self.wall = Wall(ISSUED)
        self.store = IdentityStore(
            DestinationSource(directory), publish=self.events.append, clock=self.wall
        )

    def renew(self) -> None:
        now = self.wall()
        write_destination(
            self.directory, self.cluster, not_before=now - MINUTE, not_after=now + 60 * MINUTE
        )

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if type(event) is kind]

    @asynccontextmanager
    async def watching(self, renewal_interval: timedelta | None = None) -> AsyncIterator[None]:
        await self.store.load()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: watch(
                    self.store,
                    publish=self.events.append,
                    clock=self.wall,
                    renewal_interval=renewal_interval,
                    interval=POLL,
                )
            )
            yield
            nursery.cancel_scope.cancel()

    async def sleep_until(self, minutes: float) -> None:
        """Until so many minutes after the issue of the first certificate."""
        await trio.sleep((ISSUED + minutes * MINUTE - self.wall()).total_seconds())


async def no_notices(_directory: Path, _changed: Callable[[], object]) -> None:
    await trio.sleep_forever()


@pytest.fixture
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run_threads_inline(monkeypatch)
    monkeypatch.setitem(watch.__globals__, "watch_directory", no_notices)


@pytest.fixture
async def bench(tmp_path: Path, cluster: Cluster, virtual_time: None) -> Bench:
    bench = Bench(tmp_path / "machine-id", cluster)
    bench.renew()
    return bench


async def test_a_renewal_is_noticed_without_a_connection(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    async with bench.watching():
        bench.renew()
        await trio.sleep(POLL * 2)
        assert bench.store.current.generation == 2
    assert len(bench.of(IdentityLoaded)) == 2


async def test_the_interval_can_be_chosen(
    destination: Path, autojump_clock: trio.testing.MockClock, virtual_time: None
) -> None:
    looks: list[float] = []

    class Observed(IdentityStore):
        async def settled(self) -> Identity:
            looks.append(trio.current_time() - begin)
            return self.current

    store = Observed(DestinationSource(destination))
    await store.load()
    begin, wall = trio.current_time(), Wall(ISSUED)
    with trio.move_on_after(7.5):
        await watch(store, interval=2, clock=wall)
    assert looks == [2, 4, 6]


class TestNotRenewed:
    """tbot does not renew."""

    async def test_it_is_told_when_a_renewal_is_due_and_then_ever_more_often(
        self,
        bench: Bench,
        autojump_clock: trio.testing.MockClock,
    ) -> None:
        async with bench.watching():
            await bench.sleep_until(39)
            assert bench.of(IdentityNotRenewed) == []
            counts = []
            for minutes in (41, 51, 56, 58):
                await bench.sleep_until(minutes)
                counts.append(len(bench.of(IdentityNotRenewed)))
        assert counts == [1, 2, 3, 4]
        event = bench.of(IdentityNotRenewed)[0]
        assert isinstance(event, IdentityNotRenewed)
        assert event.code is Code.IDENTITY_NOT_RENEWED
        assert event.generation == 1
        assert event.due == ISSUED + 40 * MINUTE
        assert event.not_valid_after == ISSUED + 60 * MINUTE
        assert str(bench.directory / "tlscert") in event.reason
        assert f"{event.due:%H:%M:%S} UTC" in event.reason
        assert event.next_step

    async def test_the_renewal_interval_brings_it_forward(
        self, bench: Bench, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with bench.watching(renewal_interval=20 * MINUTE):
            await bench.sleep_until(21)
            assert bench.of(IdentityNotRenewed) == []
            await bench.sleep_until(23)
            assert len(bench.of(IdentityNotRenewed)) == 1

    async def test_a_renewal_in_time_keeps_it_quiet(
        self, bench: Bench, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with bench.watching():
            for minutes in range(20, 200, 20):
                await bench.sleep_until(minutes)
                bench.renew()
        assert bench.of(IdentityNotRenewed) == []
        assert bench.of(IdentityExpired) == []

    async def test_a_late_renewal_ends_it(
        self, bench: Bench, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with bench.watching():
            await bench.sleep_until(45)
            bench.renew()
            await bench.sleep_until(80)
            assert len(bench.of(IdentityNotRenewed)) == 1
            await bench.sleep_until(86)
            assert len(bench.of(IdentityNotRenewed)) == 2

    async def test_at_a_late_start_it_is_told_at_once(
        self, bench: Bench, autojump_clock: trio.testing.MockClock
    ) -> None:
        bench.wall.jump(50 * MINUTE)
        async with bench.watching():
            await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            assert len(bench.of(IdentityNotRenewed)) == 1

    async def test_new_authorities_alone_are_no_renewal(
        self, bench: Bench, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with bench.watching():
            await bench.sleep_until(45)
            user_ca = bench.directory / "teleport-user-ca.crt"
            user_ca.write_bytes(user_ca.read_bytes() * 2)
            await bench.sleep_until(49)
            assert bench.store.current.generation == 2
            assert len(bench.of(IdentityNotRenewed)) == 1
            await bench.sleep_until(51)
            assert len(bench.of(IdentityNotRenewed)) == 2


class TestExpired:
    """tbot has not renewed."""

    async def test_it_is_told_once(
        self, bench: Bench, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with bench.watching():
            await bench.sleep_until(59.9)
            assert bench.of(IdentityExpired) == []
            await bench.sleep_until(90)
        (event,) = bench.of(IdentityExpired)
        assert isinstance(event, IdentityExpired)
        assert event.code is Code.CERTIFICATE_EXPIRED
        assert event.not_valid_after == ISSUED + 60 * MINUTE
        assert str(bench.directory / "tlscert") in event.reason

    async def test_it_recovers_when_tbot_writes_again(
        self, bench: Bench, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with bench.watching():
            await bench.sleep_until(90)
            bench.renew()
            await bench.sleep_until(91)
            assert bench.store.current.generation == 2
            await bench.sleep_until(90 + 39)
            assert len(bench.of(IdentityExpired)) == 1
            await bench.sleep_until(90 + 61)
            assert len(bench.of(IdentityExpired)) == 2


class TestClockJumps:
    """The machine was suspended, or its clock was corrected."""

    async def test_a_jump_leads_to_a_fresh_look_although_the_files_look_the_same(
        self,
        bench: Bench,
        monkeypatch: pytest.MonkeyPatch,
        autojump_clock: trio.testing.MockClock,
    ) -> None:
        reloads = []
        reload = bench.store.reload

        async def observed() -> Identity:
            reloads.append(trio.current_time())
            return await reload()

        monkeypatch.setattr(bench.store, "reload", observed)
        async with bench.watching():
            await trio.sleep(POLL * 3)
            assert reloads == []
            bench.wall.jump(10 * MINUTE)
            await trio.sleep(POLL * 1.5)
            assert len(reloads) == 1
            await trio.sleep(POLL * 3)
            assert len(reloads) == 1
        (event,) = bench.of(ClockJumped)
        assert isinstance(event, ClockJumped)
        assert event.seconds == pytest.approx(600)

    async def test_what_was_due_meanwhile_is_told(
        self, bench: Bench, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with bench.watching():
            await trio.sleep(POLL * 2)
            bench.wall.jump(50 * MINUTE)
            await trio.sleep(POLL * 2)
            assert len(bench.of(IdentityNotRenewed)) == 1
            bench.wall.jump(50 * MINUTE)
            await trio.sleep(POLL * 2)
            assert len(bench.of(IdentityExpired)) == 1

    async def test_what_tbot_wrote_meanwhile_counts_first(
        self, bench: Bench, autojump_clock: trio.testing.MockClock
    ) -> None:
        async with bench.watching():
            await trio.sleep(POLL * 2)
            bench.wall.jump(100 * MINUTE)
            bench.renew()
            await trio.sleep(POLL * 2)
            assert bench.store.current.generation == 2
        assert bench.of(IdentityNotRenewed) == []
        assert bench.of(IdentityExpired) == []


async def test_a_system_without_notices_is_told_about_once_and_polled(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def unavailable(_directory: Path, _changed: Callable[[], object]) -> None:
        raise NoticesUnavailableError("OS file watch limit reached")

    monkeypatch.setitem(watch.__globals__, "watch_directory", unavailable)
    async with bench.watching():
        await trio.sleep(200)
        bench.renew()
        await trio.sleep(POLL * 2)
        assert bench.store.current.generation == 2
    (event,) = bench.of(ChangeNoticesUnavailable)
    assert isinstance(event, ChangeNoticesUnavailable)
    assert (event.reason, event.interval) == ("OS file watch limit reached", POLL)
    assert event.next_step


async def test_a_notice_is_much_faster_than_the_poll(destination: Path, cluster: Cluster) -> None:
    """With real time and a real file system; a poll would take an hour."""
    events, loaded = trio.open_memory_channel[Event](10)
    store = IdentityStore(DestinationSource(destination), publish=events.send_nowait)
    await store.load()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: watch(store, interval=3600))
            await loaded.receive()
            for generation in (2, 3):
                write_destination(destination, cluster)
                event = await loaded.receive()
                assert isinstance(event, IdentityLoaded)
                assert event.generation == generation
            nursery.cancel_scope.cancel()
