"""Reading what is a file, and refusing at once what is not."""

import os
import socket
from pathlib import Path

import pytest

from dbproxy.identity.files import UnusableFileError, read_regular_file


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    assert read_regular_file(path) == b"x" * 100_000


def test_a_file_of_just_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_regular_file(path, 10) == b"x" * 10


def test_a_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 11)
    with pytest.raises(UnusableFileError, match="more than 10 bytes"):
        read_regular_file(path, 10)


def test_an_endless_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableFileError, match="not a regular file"):
        read_regular_file(Path("/dev/zero"))


def test_a_fifo_without_a_writer_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with pytest.raises(UnusableFileError, match="not a regular file"):
        read_regular_file(path)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableFileError, match="not a regular file"):
        read_regular_file(tmp_path)


def test_a_socket_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        with pytest.raises(OSError, match="No such device"):
            read_regular_file(path)


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular_file(tmp_path / "link") == b"content"


def test_an_impossible_path_is_refused() -> None:
    with pytest.raises(UnusableFileError, match="not a valid path"):
        read_regular_file(Path("a\0b"))


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = open_descriptors()
    (tmp_path / "file").write_bytes(b"content")
    read_regular_file(tmp_path / "file")
    for path in (tmp_path, tmp_path / "absent", Path("/dev/zero")):
        with pytest.raises((OSError, UnusableFileError)):
            read_regular_file(path)
    assert open_descriptors() == before
