"""Being told of changes, by a real system in real time."""

import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from dbproxy.identity import notices
from dbproxy.identity.notices import NoticesUnavailableError, watch_directory

PATIENCE = 20.0
"""Seconds: far more than a notice takes, even on a busy machine."""


class Calls:
    """Counts the calls of `changed`."""

    def __init__(self) -> None:
        self.count = 0
        self._called = trio.Event()

    async def changed(self) -> None:
        self.count += 1
        self._called.set()
        self._called = trio.Event()

    async def more_than(self, count: int) -> None:
        with trio.fail_after(PATIENCE):
            while self.count <= count:
                await self._called.wait()


@asynccontextmanager
async def watching(directory: Path) -> AsyncIterator[Calls]:
    calls = Calls()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_directory, directory, calls.changed)
        yield calls
        nursery.cancel_scope.cancel()


def create(directory: Path) -> None:
    (directory / "new").write_bytes(b"content")


def overwrite(directory: Path) -> None:
    (directory / "file").write_bytes(b"other content")


def remove(directory: Path) -> None:
    (directory / "file").unlink()


def permit(directory: Path) -> None:
    (directory / "file").chmod(0o640)


def swap_links(directory: Path) -> None:
    """As Kubernetes replaces the content of a mounted secret."""
    (directory / "..2").mkdir()
    (directory / "..data_tmp").symlink_to("..2")
    (directory / "..data_tmp").rename(directory / "..data")


def make(directory: Path) -> None:
    directory.mkdir()


def replace(directory: Path) -> None:
    directory.rename(directory.with_name("old"))
    directory.mkdir()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "machine-id"
    directory.mkdir()
    (directory / "file").write_bytes(b"content")
    (directory / "..1").mkdir()
    (directory / "..data").symlink_to("..1")
    return directory


@pytest.mark.parametrize("change", [create, overwrite, remove, permit, swap_links])
async def test_a_change_is_told(directory: Path, change: Callable[[Path], None]) -> None:
    async with watching(directory) as calls:
        await calls.more_than(0)
        change(directory)
        await calls.more_than(1)


def read(directory: Path) -> None:
    (directory / "file").read_bytes()
    list(directory.iterdir())


async def test_reading_is_no_change(directory: Path) -> None:
    async with watching(directory) as calls:
        await calls.more_than(0)
        for _ in range(5):
            read(directory)
            await trio.sleep(0.05)
        assert calls.count == 1
        create(directory)
        await calls.more_than(1)


async def test_many_changes_lead_to_few_calls(directory: Path) -> None:
    async with watching(directory) as calls:
        await calls.more_than(0)
        for number in range(200):
            (directory / f"file-{number}").write_bytes(b"content")
        await calls.more_than(1)
        await trio.sleep(0.5)
        assert calls.count < 10


async def test_a_directory_that_appears_later_is_told(tmp_path: Path) -> None:
    directory = tmp_path / "not" / "yet"
    async with watching(directory) as calls:
        await trio.sleep(0.1)
        assert calls.count == 0
        directory.mkdir(parents=True)
        await calls.more_than(0)
        create(directory)
        await calls.more_than(1)


async def test_a_directory_that_is_removed_and_made_again_is_followed(directory: Path) -> None:
    async with watching(directory) as calls:
        await calls.more_than(0)
        shutil.rmtree(directory)
        await calls.more_than(1)
        before = calls.count
        make(directory)
        await calls.more_than(before)
        before = calls.count
        create(directory)
        await calls.more_than(before)


async def test_a_directory_that_is_replaced_is_followed(directory: Path) -> None:
    async with watching(directory) as calls:
        await calls.more_than(0)
        replace(directory)
        await calls.more_than(1)
        await until_watched(calls, directory)


async def test_a_link_to_a_directory_that_is_turned_is_followed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "machine-id"
    link.symlink_to("one")
    async with watching(link) as calls:
        await calls.more_than(0)
        (tmp_path / "temporary").symlink_to("two")
        (tmp_path / "temporary").rename(link)
        await calls.more_than(1)
        await until_watched(calls, link)


async def until_watched(calls: Calls, directory: Path) -> None:
    """Until a change in the present directory has been told, twice in a row."""
    for number in range(2):
        before = calls.count
        (directory / f"new-{number}").write_bytes(b"content")
        await calls.more_than(before)


async def test_cancelled_it_takes_no_time_and_leaves_no_descriptor(directory: Path) -> None:
    before = open_descriptors()
    for _ in range(3):
        async with watching(directory) as calls:
            await calls.more_than(0)
            begin = time.monotonic()
        assert time.monotonic() - begin < 1
    with trio.fail_after(PATIENCE):
        while open_descriptors() > before:  # noqa: ASYNC110 - threads end without telling
            await trio.sleep(0.05)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_many_directories_do_not_use_up_trios_threads(tmp_path: Path) -> None:
    limit = trio.to_thread.current_default_thread_limiter().total_tokens
    directories = [tmp_path / str(number) for number in range(int(limit) + 5)]
    calls = Calls()
    async with trio.open_nursery() as nursery:
        for directory in directories:
            directory.mkdir()
            nursery.start_soon(watch_directory, directory, calls.changed)
        await calls.more_than(len(directories) - 1)
        with trio.fail_after(PATIENCE):
            await trio.to_thread.run_sync(lambda: None)
        nursery.cancel_scope.cancel()


async def test_a_system_that_cannot_watch_says_so(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_directory: Path) -> None:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr(notices, "_new_watcher", fail)
    with pytest.raises(NoticesUnavailableError, match="watch limit"):
        await watch_directory(directory, Calls().changed)
