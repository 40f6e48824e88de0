from __future__ import annotations

import stat
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from dbproxy.lab.destination_files import DestinationFile
from dbproxy.lab.destination_writer import write_destination, write_file

FILES = [
    DestinationFile("tlscert", b"new certificate"),
    DestinationFile("key", b"new key"),
    DestinationFile("cockroach/node.crt", b"new node"),
]


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_and_directories_are_private(tmp_path: Path) -> None:
    write_file(tmp_path / "a" / "b" / "key", b"x")
    assert mode(tmp_path / "a" / "b" / "key") == 0o600
    assert mode(tmp_path / "a" / "b") == 0o700


def test_a_file_is_overwritten_in_place(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_file(path, b"long old content")
    before = path.stat().st_ino
    with path.open("rb") as reader:
        write_file(path, b"new")
        assert reader.read() == b"new"
    assert path.stat().st_ino == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_of_an_existing_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch()
    path.chmod(0o640)
    write_file(path, b"new")
    assert mode(path) == 0o640


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"new"


def test_a_directory_in_the_way_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(IsADirectoryError):
        write_file(tmp_path / "key", b"x")


async def test_all_files_are_written_in_order(tmp_path: Path) -> None:
    order: list[Path] = []
    await write_destination(tmp_path / "d", FILES, before_write=order.append)
    assert order == [tmp_path / "d" / file.name for file in FILES]
    assert contents(tmp_path / "d") == {file.name: file.content for file in FILES}
    assert mode(tmp_path / "d") == 0o700


async def test_the_callback_sees_the_torn_state(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"old key")
    (tmp_path / "tlscert").write_bytes(b"old certificate")
    seen: list[dict[str, bytes]] = []
    await write_destination(
        tmp_path, FILES[:2], before_write=lambda _: seen.append(contents(tmp_path))
    )
    assert seen == [
        {"key": b"old key", "tlscert": b"old certificate"},
        {"key": b"old key", "tlscert": b"new certificate"},
    ]


async def test_the_gap_lies_between_files(tmp_path: Path, autojump_clock: MockClock) -> None:
    times: list[float] = []
    await write_destination(
        tmp_path, FILES, gap=10.0, before_write=lambda _: times.append(trio.current_time())
    )
    start = times[0]
    assert [moment - start for moment in times] == [0.0, 10.0, 20.0]
    assert trio.current_time() == times[-1]


async def test_cancelling_leaves_every_file_old_or_new(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    for file in FILES[:2]:
        (tmp_path / file.name).write_bytes(b"old")
    with trio.move_on_after(5.0) as scope:
        await write_destination(tmp_path, FILES, gap=10.0)
    assert scope.cancelled_caught
    assert contents(tmp_path) == {"tlscert": b"new certificate", "key": b"old"}


async def test_a_cancelled_call_writes_nothing(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await write_destination(tmp_path / "d", FILES)
    assert scope.cancelled_caught
    assert not (tmp_path / "d").exists()
