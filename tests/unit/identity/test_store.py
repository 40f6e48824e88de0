"""How one generation of the identity takes the place of another.

Most tests give the store a scripted reader, so that what it meets is exact; the files then only
have to look changed. The last ones use real files, and a writer that does what tbot does.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st
from identities import (
    MINUTE,
    Cluster,
    certificate_pem,
    destination_files,
    key_pem,
    make_authority,
    make_certificate,
    make_cluster,
    make_key,
    subject_attributes,
    write_destination,
)
from virtual_time import Wall, run_threads_inline

from dbproxy.errors import Code, IdentityError
from dbproxy.events import Event, IdentityLoaded, IdentityReloadFailed
from dbproxy.identity import (
    DestinationSource,
    Identity,
    IdentitySource,
    IdentityStore,
    NamedFilesSource,
    read_destination,
)
from dbproxy.identity.destination import LEFT_OVER_AFTER
from dbproxy.identity.rewrite import PATIENCE, PAUSE, QUIET, RECHECK_INTERVAL
from dbproxy.identity.store import MOST_REMEMBERED

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RECHECK_LATER = RECHECK_INTERVAL * 1.1
LONG_AGO = (NOW - timedelta(days=1)).timestamp()

TORN = IdentityError(Code.KEY_MISMATCH, "the key does not match")
EMPTY = IdentityError(Code.IDENTITY_MALFORMED, "tlscert is empty")
MISSING = IdentityError(Code.IDENTITY_MISSING, "key does not exist")
UNREADABLE = IdentityError(Code.IDENTITY_UNREADABLE, "key cannot be read")


class Source(DestinationSource):
    """A destination whose files only have to look changed: `reader` tells what is in them."""

    def __init__(self, directory: Path, reader: Callable[[], Identity]) -> None:
        super().__init__(directory)
        self.reader = reader

    def read(self) -> Identity:
        return self.reader()


class Reader:
    """Returns or raises one outcome after another, the last one forever."""

    def __init__(self, *outcomes: Identity | IdentityError) -> None:
        self.outcomes = list(outcomes)
        self.calls = 0

    def __call__(self) -> Identity:
        self.calls += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, IdentityError):
            raise IdentityError(outcome.code, outcome.message)
        return outcome


class Bench:
    """A store with a scripted reader, and the events that it published."""

    def __init__(self, directory: Path, *outcomes: Identity | IdentityError) -> None:
        directory.mkdir(exist_ok=True)
        self.file = directory / "tlscert"
        self.reader = Reader(*outcomes)
        self.events: list[Event] = []
        self.now = NOW
        self.writes = 0
        self.touch()
        self.store = self.make_store(directory)

    def make_store(self, directory: Path, service: str | None = None) -> IdentityStore:
        return IdentityStore(
            Source(directory, self.reader),
            service=service,
            publish=self.events.append,
            clock=lambda: self.now,
        )

    def touch(self) -> None:
        """Make the files look changed, and long settled."""
        self.writes += 1
        self.file.write_bytes(b"x" * self.writes)
        os.utime(self.file, (LONG_AGO, LONG_AGO))
        # The change time cannot be set, so the clock is moved past it instead.
        self.now = max(self.now, datetime.now(UTC) + timedelta(minutes=1))

    def script(self, *outcomes: Identity | IdentityError) -> None:
        self.reader.outcomes = list(outcomes)
        self.reader.calls = 0

    def failures(self) -> list[IdentityReloadFailed]:
        return [event for event in self.events if isinstance(event, IdentityReloadFailed)]

    def loaded(self) -> list[IdentityLoaded]:
        return [event for event in self.events if isinstance(event, IdentityLoaded)]


MakeIdentity = Callable[..., Identity]


@pytest.fixture
def make_identity(tmp_path: Path, cluster: Cluster) -> MakeIdentity:
    def make(
        service: str = "example-server",
        begin: datetime = NOW - timedelta(minutes=1),
        end: datetime = NOW + timedelta(days=36500),
    ) -> Identity:
        directory = tmp_path / "source"
        write_destination(
            directory,
            cluster,
            attributes=subject_attributes(service=service),
            not_before=begin,
            not_after=end,
        )
        return read_destination(directory)

    return make


@pytest.fixture
def first(make_identity: MakeIdentity) -> Identity:
    return make_identity()


@pytest.fixture
def second(make_identity: MakeIdentity) -> Identity:
    return make_identity()


@pytest.fixture
def bench(tmp_path: Path, first: Identity) -> Bench:
    return Bench(tmp_path / "machine-id", first)


async def test_the_first_load_gives_generation_one(bench: Bench, first: Identity) -> None:
    assert await bench.store.load() is first
    assert bench.store.current is first
    assert bench.events == [
        IdentityLoaded(
            generation=1, service="example-server", not_valid_after=first.not_valid_after
        )
    ]


async def test_before_the_first_load_there_is_no_identity(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="has not been loaded"):
        _ = bench.store.current
    with pytest.raises(RuntimeError, match="has not been loaded"):
        await bench.store.fresh()
    with pytest.raises(RuntimeError, match="has not been loaded"):
        await bench.store.reload()


@pytest.mark.parametrize("error", [TORN, EMPTY, MISSING], ids=lambda error: error.code)
async def test_the_first_load_waits_for_a_write_to_end(
    bench: Bench, first: Identity, error: IdentityError, autojump_clock: trio.testing.MockClock
) -> None:
    bench.script(error, error, first)
    assert await bench.store.load() is first
    assert bench.reader.calls == 3
    assert bench.failures() == []


@pytest.mark.parametrize("error", [TORN, EMPTY, MISSING], ids=lambda error: error.code)
async def test_the_first_load_gives_up_after_a_second(
    bench: Bench, error: IdentityError, autojump_clock: trio.testing.MockClock
) -> None:
    bench.script(error)
    begin = trio.current_time()
    with pytest.raises(IdentityError) as caught:
        await bench.store.load()
    assert caught.value.code is error.code
    assert PATIENCE <= trio.current_time() - begin <= PATIENCE + 0.1
    assert bench.events == []


async def test_a_missing_directory_is_not_waited_for(bench: Bench, tmp_path: Path) -> None:
    bench.script(MISSING)
    with pytest.raises(IdentityError):
        await bench.make_store(tmp_path / "absent").load()
    assert bench.reader.calls == 1


async def test_a_file_without_permission_is_not_waited_for(bench: Bench) -> None:
    bench.script(UNREADABLE)
    with pytest.raises(IdentityError):
        await bench.store.load()
    assert bench.reader.calls == 1


async def test_the_first_load_refuses_another_service(bench: Bench) -> None:
    store = bench.make_store(bench.file.parent, service="other-server")
    with pytest.raises(IdentityError) as caught:
        await store.load()
    assert caught.value.code is Code.SERVICE_MISMATCH


async def test_the_first_load_refuses_an_expired_certificate(bench: Bench, first: Identity) -> None:
    bench.now = first.not_valid_after + timedelta(seconds=1)
    with pytest.raises(IdentityError) as caught:
        await bench.store.load()
    assert caught.value.code is Code.CERTIFICATE_EXPIRED


async def test_the_first_load_refuses_a_certificate_of_the_future(
    bench: Bench, first: Identity
) -> None:
    bench.now = first.not_valid_before - timedelta(seconds=1)
    with pytest.raises(IdentityError) as caught:
        await bench.store.load()
    assert caught.value.code is Code.CERTIFICATE_NOT_YET_VALID


async def test_a_failed_first_load_can_be_repeated(bench: Bench, first: Identity) -> None:
    bench.script(UNREADABLE, first)
    with pytest.raises(IdentityError):
        await bench.store.load()
    assert await bench.store.load() is first


async def test_a_reload_takes_a_new_certificate(bench: Bench, second: Identity) -> None:
    await bench.store.load()
    bench.script(second)
    current = await bench.store.reload()
    assert current.certificate == second.certificate
    assert current.generation == 2
    assert bench.store.current is current
    assert [event.generation for event in bench.loaded()] == [1, 2]


@pytest.mark.parametrize("name", ["host_cas", "user_cas", "database_cas"])
async def test_a_reload_takes_new_authorities(bench: Bench, first: Identity, name: str) -> None:
    await bench.store.load()
    authorities = (*first.host_cas, make_authority().certificate)
    match name:
        case "host_cas":
            bench.script(replace(first, host_cas=authorities))
        case "user_cas":
            bench.script(replace(first, user_cas=authorities))
        case _:
            bench.script(replace(first, database_cas=authorities))
    assert (await bench.store.reload()).generation == 2
    assert bench.store.current.certificate == first.certificate


async def test_a_reload_of_the_same_files_changes_nothing(bench: Bench, first: Identity) -> None:
    await bench.store.load()
    bench.script(read_destination(first.files.directory))
    assert await bench.store.reload() is first
    assert len(bench.events) == 1


async def test_it_knows_each_certificate_that_was_current(
    bench: Bench, make_identity: MakeIdentity
) -> None:
    await bench.store.load()
    held = [bench.store.current]
    for _ in range(3):
        bench.script(make_identity())
        held.append(await bench.store.reload())
    assert bench.store.current.generation == 4
    assert all(bench.store.has_held(identity.certificate_der) for identity in held)
    assert not bench.store.has_held(make_identity().certificate_der)


async def test_what_it_remembers_of_earlier_certificates_is_bounded(
    bench: Bench, first: Identity, second: Identity
) -> None:
    """Of a certificate that comes back, as when a file is restored, one memory is kept."""
    await bench.store.load()
    for number in range(MOST_REMEMBERED + 10):
        bench.script((second, first)[number % 2])
        await bench.store.reload()
    assert bench.store.has_held(first.certificate_der)
    assert len(bench.store._known) == 2
    bench.store._known.extend(bytes([number % 256]) for number in range(MOST_REMEMBERED - 1))
    assert not bench.store.has_held(first.certificate_der)
    assert bench.store.has_held(second.certificate_der)


@pytest.mark.parametrize("error", [TORN, EMPTY, MISSING, UNREADABLE], ids=lambda error: error.code)
async def test_a_failed_reload_keeps_the_last_good_generation(
    bench: Bench, first: Identity, error: IdentityError, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.store.load()
    bench.script(error)
    assert await bench.store.reload() is first
    assert bench.failures() == [
        IdentityReloadFailed(
            generation=1, code=error.code, reason=error.message, next_step=error.next_step
        )
    ]


async def test_a_certificate_for_another_service_is_kept_out(
    bench: Bench, first: Identity, make_identity: MakeIdentity
) -> None:
    await bench.store.load()
    bench.script(make_identity("other-server"))
    assert await bench.store.reload() is first
    assert [failure.code for failure in bench.failures()] == [Code.SERVICE_MISMATCH]


async def test_an_expired_certificate_is_kept_out(
    bench: Bench, first: Identity, make_identity: MakeIdentity
) -> None:
    await bench.store.load()
    bench.script(make_identity(end=NOW))
    assert await bench.store.reload() is first
    assert [failure.code for failure in bench.failures()] == [Code.CERTIFICATE_EXPIRED]


async def test_a_reload_waits_for_a_write_to_end(
    bench: Bench, second: Identity, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.store.load()
    bench.script(EMPTY, TORN, second)
    assert (await bench.store.reload()).certificate == second.certificate
    assert bench.failures() == []


async def test_reloads_at_the_same_time_share_one_read(bench: Bench, second: Identity) -> None:
    await bench.store.load()
    bench.script(second)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(bench.store.reload)
    assert bench.reader.calls == 1
    assert bench.store.current.generation == 2


async def test_every_reload_that_is_asked_for_reports_its_failure(bench: Bench) -> None:
    await bench.store.load()
    bench.script(UNREADABLE)
    await bench.store.reload()
    await bench.store.reload()
    assert len(bench.failures()) == 2


async def test_a_look_reads_nothing_when_nothing_has_changed(
    bench: Bench, first: Identity, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.store.load()
    for _ in range(10):
        assert await bench.store.fresh() is first
        await trio.sleep(RECHECK_LATER)
    assert bench.reader.calls == 1


async def test_a_look_that_finds_nothing_new_waits_for_nothing(bench: Bench) -> None:
    await bench.store.load()
    with trio.testing.assert_no_checkpoints():
        await bench.store.fresh()


async def test_a_look_takes_what_was_written(bench: Bench, second: Identity) -> None:
    await bench.store.load()
    bench.script(second)
    bench.touch()
    assert (await bench.store.fresh()).generation == 2
    assert (await bench.store.fresh()).generation == 2
    assert bench.reader.calls == 1


async def test_looks_at_the_same_time_share_one_read(bench: Bench, second: Identity) -> None:
    await bench.store.load()
    bench.script(second)
    bench.touch()
    generations = []

    async def look() -> None:
        generations.append((await bench.store.fresh()).generation)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(look)
    assert generations == [2] * 10
    assert bench.reader.calls == 1


async def test_a_broken_renewal_holds_no_look_up(
    bench: Bench, first: Identity, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.store.load()
    bench.script(EMPTY)
    bench.touch()
    begin = trio.current_time()
    for _ in range(10):
        assert await bench.store.fresh() is first
    assert trio.current_time() == begin
    assert bench.reader.calls == 1


async def test_a_broken_renewal_is_tried_often_for_a_second_and_then_once_a_second(
    bench: Bench, first: Identity, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.store.load()
    bench.script(EMPTY)
    bench.touch()
    begin = trio.current_time()
    while trio.current_time() - begin < PATIENCE + 0.1:
        await bench.store.fresh()
        await trio.sleep(0.01)
    assert 10 < bench.reader.calls <= PATIENCE / PAUSE + 1
    assert len(bench.failures()) == 1
    bench.reader.calls = 0
    for _ in range(30):
        await bench.store.fresh()
        await trio.sleep(0.1)
    assert 2 <= bench.reader.calls <= 4
    assert len(bench.failures()) == 1


async def test_a_broken_renewal_is_reported_once_for_each_state_of_the_files(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.store.load()
    bench.script(EMPTY)
    for number in range(1, 3):
        bench.touch()
        for _ in range(5):
            await bench.store.settled()
            await trio.sleep(RECHECK_LATER)
        assert len(bench.failures()) == number


async def test_an_invalid_identity_makes_a_look_wait_for_a_write_to_end(
    bench: Bench,
    first: Identity,
    make_identity: MakeIdentity,
    autojump_clock: trio.testing.MockClock,
) -> None:
    await bench.store.load()
    bench.now = first.not_valid_after + timedelta(seconds=1)
    third = make_identity(begin=bench.now, end=bench.now + timedelta(hours=1))
    bench.touch()
    bench.script(EMPTY, TORN, third)
    assert (await bench.store.fresh()).certificate == third.certificate
    assert bench.failures() == []


async def test_an_expired_identity_that_is_still_there_is_not_a_failed_reload(
    bench: Bench, first: Identity
) -> None:
    """That it has expired is told where the time is watched, and to each client."""
    await bench.store.load()
    bench.now = first.not_valid_after + timedelta(seconds=1)
    assert await bench.store.reload() is first
    assert bench.failures() == []


async def test_a_broken_renewal_heals_although_the_files_look_the_same(
    bench: Bench, second: Identity, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.store.load()
    bench.script(UNREADABLE, second)
    bench.touch()
    assert (await bench.store.fresh()).generation == 1
    await trio.sleep(RECHECK_LATER)
    assert (await bench.store.fresh()).generation == 2


async def test_a_certificate_of_the_future_is_taken_once_its_time_has_come(
    bench: Bench, make_identity: MakeIdentity, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.store.load()
    begin = bench.now + timedelta(days=1)
    bench.script(make_identity(begin=begin))
    bench.touch()
    assert (await bench.store.fresh()).generation == 1
    assert [failure.code for failure in bench.failures()] == [Code.CERTIFICATE_NOT_YET_VALID]
    bench.now = begin + timedelta(seconds=1)
    await trio.sleep(RECHECK_LATER)
    assert (await bench.store.fresh()).generation == 2


async def test_files_written_a_moment_ago_are_read_once_more(
    bench: Bench, second: Identity, autojump_clock: trio.testing.MockClock
) -> None:
    """A second write may leave the same size and, on a coarse file system, the same time."""
    bench.now = datetime.now(UTC)
    await bench.store.load()
    bench.script(second)
    assert (await bench.store.fresh()).generation == 1
    await trio.sleep(RECHECK_LATER)
    bench.now += timedelta(minutes=1)
    assert (await bench.store.fresh()).generation == 2
    await trio.sleep(RECHECK_LATER)
    await bench.store.fresh()
    assert bench.reader.calls == 1


async def test_an_unexpected_exception_is_not_swallowed(bench: Bench) -> None:
    def fail() -> Identity:
        raise ZeroDivisionError

    await bench.store.load()
    store = IdentityStore(Source(bench.file.parent, fail))
    with pytest.raises(ZeroDivisionError):
        await store.load()


class HeldReader:
    """A reader that a test can hold up inside its thread."""

    def __init__(self, *outcomes: Identity) -> None:
        self.outcomes = list(outcomes)
        self.hold = False
        self.entered = threading.Event()
        self.leave = threading.Event()

    def __call__(self) -> Identity:
        outcome = self.outcomes.pop(0)
        if self.hold:
            self.entered.set()
            self.leave.wait(10)
        return outcome

    async def wait_entered(self) -> None:
        await trio.to_thread.run_sync(self.entered.wait, 10)


async def test_a_cancelled_look_leaves_the_change_to_the_next_one(
    bench: Bench, first: Identity, second: Identity
) -> None:
    reader = HeldReader(first, first, second)
    store = IdentityStore(Source(bench.file.parent, reader), clock=lambda: bench.now)
    await store.load()
    bench.touch()
    reader.hold = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.fresh)
        await reader.wait_entered()
        nursery.cancel_scope.cancel()
    assert store.current is first
    reader.hold = False
    assert (await store.fresh()).certificate == second.certificate
    reader.leave.set()


async def test_a_cancelled_load_does_not_wait_for_a_slow_file_system(
    bench: Bench, first: Identity
) -> None:
    reader = HeldReader(first)
    reader.hold = True
    store = IdentityStore(Source(bench.file.parent, reader), clock=lambda: bench.now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.load)
        await reader.wait_entered()
        nursery.cancel_scope.cancel()
    assert not reader.leave.is_set()
    with pytest.raises(RuntimeError):
        _ = store.current
    reader.leave.set()


async def test_a_reload_asked_for_after_a_write_does_not_share_the_read_before_it(
    bench: Bench, first: Identity, second: Identity
) -> None:
    reader = HeldReader(first, first, second)
    store = IdentityStore(Source(bench.file.parent, reader), clock=lambda: bench.now)
    await store.load()
    reader.hold = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.reload)
        await reader.wait_entered()
        bench.touch()
        nursery.start_soon(store.reload)
        await trio.testing.wait_all_tasks_blocked()
        reader.leave.set()
    assert store.current.certificate == second.certificate


async def test_a_real_renewal_is_taken(tmp_path: Path, cluster: Cluster) -> None:
    write_destination(tmp_path, cluster)
    store = IdentityStore(DestinationSource(tmp_path))
    await store.load()
    certificate = write_destination(tmp_path, cluster)
    assert (await store.fresh()).certificate == certificate
    assert store.current.generation == 2


async def test_a_writer_between_two_files_is_waited_for(
    tmp_path: Path, cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    events: list[Event] = []
    write_destination(tmp_path, cluster)
    store = IdentityStore(DestinationSource(tmp_path), publish=events.append)
    await store.load()
    old_key = (tmp_path / "key").read_bytes()
    certificate = write_destination(tmp_path, cluster)
    new_key = (tmp_path / "key").read_bytes()
    (tmp_path / "key").write_bytes(old_key)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.settled)
        await trio.sleep(0.3)
        (tmp_path / "key").write_bytes(b"")
        await trio.sleep(0.3)
        (tmp_path / "key").write_bytes(new_key)
    assert store.current.certificate == certificate
    assert [event.name for event in events] == ["identity-loaded", "identity-loaded"]


async def test_a_rewrite_of_some_files_is_taken_when_it_has_come_to_rest(
    destination: Path, cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    """As when somebody else writes certificate and key, and leaves the authorities alone."""
    for name in ("teleport-host-ca.crt", "teleport-user-ca.crt", "teleport-database-ca.crt"):
        os.utime(destination / name, (LONG_AGO, LONG_AGO))
    store = IdentityStore(DestinationSource(destination))
    first = await store.load()
    key = make_key()
    (destination / "key").write_bytes(key_pem(key))
    certificate = make_certificate(cluster.user, key)
    (destination / "tlscert").write_bytes(certificate_pem(certificate))
    assert await store.fresh() is first
    await trio.sleep(QUIET)
    assert (await store.fresh()).certificate == certificate


async def test_an_expired_identity_is_not_used_while_a_rewrite_comes_to_rest(
    destination: Path, cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    for name in ("teleport-host-ca.crt", "teleport-user-ca.crt", "teleport-database-ca.crt"):
        os.utime(destination / name, (LONG_AGO, LONG_AGO))
    ahead = timedelta()
    store = IdentityStore(DestinationSource(destination), clock=lambda: datetime.now(UTC) + ahead)
    first = await store.load()
    ahead = first.not_valid_after - datetime.now(UTC) + timedelta(minutes=1)
    key = make_key()
    later = first.not_valid_after + timedelta(hours=1)
    certificate = make_certificate(cluster.user, key, not_after=later)
    (destination / "key").write_bytes(key_pem(key))
    (destination / "tlscert").write_bytes(certificate_pem(certificate))
    began = trio.current_time()
    assert (await store.fresh()).certificate == certificate
    assert trio.current_time() - began >= QUIET


FILES_IN_ORDER_OF_V14 = (
    "tlscert",
    "key",
    "teleport-host-ca.crt",
    "teleport-user-ca.crt",
    "teleport-database-ca.crt",
)
FILES_IN_ORDER_OF_V18 = (*FILES_IN_ORDER_OF_V14[2:], *FILES_IN_ORDER_OF_V14[:2])


def destination_source(directory: Path) -> IdentitySource:
    return DestinationSource(directory)


def named_files_source(directory: Path) -> IdentitySource:
    return NamedFilesSource(*(directory / name for name in FILES_IN_ORDER_OF_V14[:3]))


def renewal_in_rotation() -> dict[str, bytes]:
    """With authorities of its own, and two in each list, so that any mixture would show."""
    cluster, further = make_cluster(), make_cluster()
    key = make_key()
    files = destination_files(cluster, key, make_certificate(cluster.user, key))
    lists = zip(files, (further.host, further.user, further.database), strict=False)
    return files | {name: files[name] + authority.pem for name, authority in lists}


CUTS = st.none() | st.floats(0, 1)
"""Where a write stops for a moment: after so much of it, or (None) between two certificates."""


def cut(content: bytes, share: float | None) -> int:
    if share is not None:
        return int(share * len(content))
    return content.index(b"-----BEGIN", 1) if content.count(b"-----BEGIN") > 1 else len(content)


MOMENTS = st.sampled_from([0.0, 0.01, QUIET * 0.9])
"""Seconds between two looks while one file is written."""
PAUSES = st.sampled_from([0.0, 0.05, QUIET * 1.5, PATIENCE * 0.8])
"""Seconds between two files: five of them take less than a rewrite may at most."""


@pytest.mark.parametrize(
    ("make_source", "order"),
    [
        (destination_source, FILES_IN_ORDER_OF_V14),
        (destination_source, FILES_IN_ORDER_OF_V18),
        (named_files_source, FILES_IN_ORDER_OF_V14[:3]),
    ],
    ids=["version 14", "version 18", "named files"],
)
@given(data=st.data())
@settings(max_examples=25)
def test_between_any_two_steps_of_a_rewrite_the_identity_is_the_old_or_the_new_one(
    make_source: Callable[[Path], IdentitySource],
    order: tuple[str, ...],
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Also when tbot is held up between two files, or while it writes one."""
    directory = tmp_path_factory.mktemp("machine-id")
    old, new = renewal_in_rotation(), renewal_in_rotation()
    cuts = {name: data.draw(CUTS, label=f"cut of {name}") for name in order}
    pauses = {name: data.draw(PAUSES, label=f"pause after {name}") for name in order}
    moments = {name: data.draw(MOMENTS, label=f"pause in {name}") for name in order}

    async def rewrite(store: IdentityStore) -> None:
        for name in order:
            content, middle = new[name], cut(new[name], cuts[name])
            with (directory / name).open("wb", buffering=0) as file:
                await look(store, 0)
                file.write(content[:middle])
                await look(store, moments[name])
                file.write(content[middle:])
            await look(store, pauses[name])

    async def look(store: IdentityStore, span: float) -> None:
        """Look when something was written, and before the next write."""
        seen.append(await store.fresh())
        await trio.sleep(span)
        seen.append(await store.fresh())

    async def main() -> None:
        store = IdentityStore(make_source(directory))
        await store.load()
        await rewrite(store)
        await store.settled()
        assert store.current.generation == 2
        seen.append(store.current)

    for name, content in old.items():
        (directory / name).write_bytes(content)
    seen: list[Identity] = []
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    for identity in seen:
        expected = old if identity.generation == 1 else new
        parts = parts_of(identity)
        assert parts == {name: expected[name] for name in parts}


async def test_a_list_that_is_being_written_at_the_start_is_read_whole(
    destination: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The first load has nothing to compare with; all that it has is the order of the times."""
    database_ca = destination / "teleport-database-ca.crt"
    whole = database_ca.read_bytes() + make_authority().pem
    a_moment_ago = datetime.now(UTC).timestamp() - 1
    for name in FILES_IN_ORDER_OF_V14[:-1]:
        os.utime(destination / name, (a_moment_ago, a_moment_ago))
    await trio.to_thread.run_sync(time.sleep, 0.02)  # a later change time than those have now
    database_ca.touch()
    store = IdentityStore(DestinationSource(destination))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.load)
        await trio.sleep(QUIET * 0.6)
        database_ca.write_bytes(whole)
    assert certificate_pem(*store.current.database_cas) == whole
    assert store.current.generation == 1


class VirtualDestination(DestinationSource):
    """Written and read at the times of a clock that goes with trio's."""

    def __init__(self, directory: Path, wall: Wall) -> None:
        super().__init__(directory)
        self._wall = wall

    def write(self, cluster: Cluster) -> x509.Certificate:
        certificate = write_destination(self.directory, cluster)
        for name in FILES_IN_ORDER_OF_V18:
            os.utime(self.directory / name, (self._wall().timestamp(),) * 2)
        return certificate

    def read(self) -> Identity:
        return read_destination(self.directory, clock=lambda: self._wall().timestamp())


async def test_a_left_over_identity_file_holds_a_renewal_up_for_half_a_second(
    tmp_path: Path,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It holds the certificate of a configuration that was given up long ago."""
    run_threads_inline(monkeypatch)
    wall = Wall(datetime.now(UTC) + 10 * MINUTE)
    source = VirtualDestination(tmp_path, wall)
    key, host = make_key(), cluster.host.pem
    left_over = certificate_pem(make_certificate(cluster.user, key))
    (tmp_path / "identity").write_bytes(key_pem(key) + left_over + host)
    source.write(cluster)
    await trio.sleep(MINUTE.total_seconds())
    events: list[Event] = []
    store = IdentityStore(source, publish=events.append, clock=wall)
    first = await store.load()
    for generation in (2, 3):
        await trio.sleep(20 * MINUTE.total_seconds())
        begin = trio.current_time()
        certificate = source.write(cluster)
        assert (await store.fresh()).generation == generation - 1
        assert (await store.settled()).certificate == certificate
        waited = trio.current_time() - begin
        assert waited == pytest.approx(LEFT_OVER_AFTER + PAUSE / 2, abs=PAUSE)
    assert first.certificate != store.current.certificate
    assert [event.name for event in events] == ["identity-loaded"] * 3


def parts_of(identity: Identity) -> dict[str, bytes]:
    """What an identity was read from, without the files that it has nothing from."""
    parts = {
        "tlscert": certificate_pem(identity.certificate),
        "key": key_pem(identity.private_key),
        "teleport-host-ca.crt": certificate_pem(*identity.host_cas),
        "teleport-user-ca.crt": certificate_pem(*identity.user_cas),
        "teleport-database-ca.crt": certificate_pem(*identity.database_cas),
    }
    return {name: content for name, content in parts.items() if content}


async def test_under_constant_renewals_every_identity_is_whole(
    tmp_path: Path, cluster: Cluster
) -> None:
    """Four readers at full speed beside a writer: no mixture gets out, no renewal is missed."""
    write_destination(tmp_path, cluster)
    store = IdentityStore(DestinationSource(tmp_path))
    await store.load()
    seen: list[Identity] = []

    async def look_constantly() -> None:
        while True:
            seen.append(await store.fresh())
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(look_constantly)
        for _ in range(10):
            certificate = await trio.to_thread.run_sync(write_destination, tmp_path, cluster)
            assert (await store.fresh()).certificate == certificate
            await trio.sleep(0.02)  # longer than the granularity of file times
        nursery.cancel_scope.cancel()
    assert len({identity.generation for identity in seen}) > 2
    for identity in seen:
        assert identity.private_key.public_key() == identity.certificate.public_key()


async def test_what_is_written_while_it_is_read_does_not_count(
    bench: Bench, first: Identity, second: Identity, autojump_clock: trio.testing.MockClock
) -> None:
    """The first read meets a mixture that nothing in it gives away."""
    mixture = replace(second, host_cas=first.host_cas, user_cas=(make_authority().certificate,))

    def read() -> Identity:
        if bench.writes == 1:
            bench.touch()
            return mixture
        return second

    await bench.store.load()
    bench.store.source = Source(bench.file.parent, read)
    assert (await bench.store.reload()).user_cas == second.user_cas
    assert [event.generation for event in bench.loaded()] == [1, 2]
    assert bench.failures() == []


async def test_what_is_written_while_a_broken_state_is_read_has_patience_of_its_own(
    bench: Bench, second: Identity, autojump_clock: trio.testing.MockClock
) -> None:
    await bench.store.load()
    bench.script(EMPTY)
    bench.touch()
    await bench.store.settled()
    assert len(bench.failures()) == 1

    def read() -> Identity:
        if bench.writes < 5:
            bench.touch()
            raise TORN
        return second

    bench.store.source = Source(bench.file.parent, read)
    assert (await bench.store.reload()).certificate == second.certificate
    assert len(bench.failures()) == 1
