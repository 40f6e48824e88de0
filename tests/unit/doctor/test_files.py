"""What the file system says about files, without reading them."""

import os
import struct
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from access_lists import set_acl

from dbproxy.doctor.files import FileFacts, Reader, inspect_file, user_name

NOBODY = 0xFFFFFFFF
READERS = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in (
        (0x01, 6, NOBODY),
        (0x02, 6, 4_000_001),
        (0x04, 0, NOBODY),
        (0x08, 6, 4_000_002),
        (0x10, 4, NOBODY),
        (0x20, 0, NOBODY),
    )
)


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that everybody may enter; pytest's own are private."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def write(path: Path, mode: int = 0o600) -> Path:
    path.write_bytes(b"secret")
    path.chmod(mode)
    return path


def facts_of(path: Path) -> FileFacts:
    facts = inspect_file(path)
    assert facts is not None
    return facts


def test_a_file_of_ours_is_described(tmp_path: Path) -> None:
    path = write(tmp_path / "key")
    os.utime(path, (0, 1_700_000_000))
    facts = facts_of(path)
    assert facts.mode == 0o600
    assert facts.owner == user_name(os.geteuid())
    assert facts.size == len(b"secret")
    assert facts.modified == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert facts.target is None
    assert facts.readers is None
    assert facts.readable
    assert not facts.exposed


def test_an_absent_file_has_no_facts(tmp_path: Path) -> None:
    assert inspect_file(tmp_path / "key") is None
    assert inspect_file(tmp_path / "no" / "key") is None
    assert inspect_file(Path("\0")) is None


def test_a_dangling_link_and_a_loop_have_no_facts(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    assert inspect_file(tmp_path / "dangling") is None
    assert inspect_file(tmp_path / "loop") is None


def test_a_link_is_followed_and_its_end_told(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    write(tmp_path / "..2026" / "key", 0o640)
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "key").symlink_to("..data/key")
    facts = facts_of(tmp_path / "key")
    assert facts.mode == 0o640
    assert facts.target == tmp_path.resolve() / "..2026" / "key"


def test_a_user_without_a_name_is_a_number() -> None:
    assert user_name(4_000_000_000) == "4000000000"
    assert user_name(0) == "root"


def test_the_readers_of_an_access_list_are_told_with_what_they_are_really_granted(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "key")
    set_acl(path, READERS)
    facts = facts_of(path)
    assert facts.readers == (Reader("user", "4000001", "r--"), Reader("group", "4000002", "r--"))
    assert facts.mode == 0o640


def test_an_access_list_that_makes_no_sense_counts_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "key")
    monkeypatch.setattr(os, "getxattr", lambda *_: READERS[:-1])
    assert facts_of(path).readers is None


@pytest.mark.parametrize(
    ("mode", "exposed"),
    [(0o600, False), (0o660, False), (0o640, False), (0o604, True), (0o644, True)],
)
def test_a_file_that_others_may_read_in_an_open_directory_is_exposed(
    public: Path, mode: int, exposed: bool
) -> None:
    assert facts_of(write(public / "key", mode)).exposed is exposed


def test_a_directory_that_others_may_not_enter_protects_what_is_in_it(public: Path) -> None:
    inner = public / "machine-id"
    inner.mkdir(mode=0o750)
    assert not facts_of(write(inner / "key", 0o644)).exposed


def test_the_directory_that_counts_is_where_the_link_leads(public: Path, tmp_path: Path) -> None:
    write(tmp_path / "key", 0o644)
    (public / "key").symlink_to(tmp_path / "key")
    assert not facts_of(public / "key").exposed


def test_a_mask_is_not_everybody(public: Path) -> None:
    path = write(public / "key")
    set_acl(path, READERS)
    facts = facts_of(path)
    assert facts.mode & 0o060
    assert not facts.exposed


def test_looking_never_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")
    (tmp_path / "directory").mkdir()
    assert inspect_file(tmp_path / "key") is not None
    assert inspect_file(tmp_path / "directory") is not None
