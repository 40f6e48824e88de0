"""What makes the files of an identity look changed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dbproxy.identity.stamp import stamp_files

SECOND = 10**9
Fields = dict[str, int]
BEFORE: Fields = {"st_mtime_ns": SECOND, "st_ctime_ns": SECOND, "st_size": 100, "st_ino": 7}


class Looks:
    """What a stand-in for `os.stat` tells: times and inodes of real files cannot be chosen."""

    def __init__(self, fields: Fields) -> None:
        vars(self).update(fields)


@pytest.fixture
def stat(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fields], None]:
    """Makes each file look as told."""

    def look(fields: Fields) -> None:
        monkeypatch.setattr(os, "stat", lambda _path: Looks(fields))

    return look


@pytest.mark.parametrize("changed", BEFORE)
def test_each_thing_that_stat_tells_can_show_a_change(
    changed: str, stat: Callable[[Fields], None]
) -> None:
    stat(BEFORE)
    before = stamp_files(["tlscert"])
    assert stamp_files(["tlscert"]) == before
    stat(BEFORE | {changed: BEFORE[changed] + 1})
    assert stamp_files(["tlscert"]) != before


def test_a_swapped_symbolic_link_shows(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"generation-{number}").mkdir()
        (tmp_path / f"generation-{number}" / "tlscert").write_bytes(b"x")
    link = tmp_path / "current"
    link.symlink_to("generation-1")
    before = stamp_files([str(link / "tlscert")])
    link.unlink()
    link.symlink_to("generation-2")
    assert stamp_files([str(link / "tlscert")]) != before


def test_a_file_that_is_absent_or_out_of_reach_is_none(tmp_path: Path) -> None:
    stamp = stamp_files([str(tmp_path / "absent"), "\0"])
    assert stamp.files == (None, None)
    assert stamp.age(5.0) == 5.0
