"""Access control lists from the bytes that the kernel hands out."""

import os
import struct
from pathlib import Path

import pytest
from access_lists import set_acl
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.doctor.acl import ACL_ATTRIBUTE, AccessList, Entry, Permission, Tag, parse_acl

R, W, X = Permission.READ, Permission.WRITE, Permission.EXECUTE
NOTHING = Permission(0)
NOBODY = 0xFFFFFFFF


def encode(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


OWNER = (0x01, 6, NOBODY)
GROUP_OF_FILE = (0x04, 0, NOBODY)
MASK = (0x10, 6, NOBODY)
OTHERS = (0x20, 0, NOBODY)
PLAIN = (OWNER, GROUP_OF_FILE, OTHERS)


def test_what_tbot_init_leaves_behind_names_bot_and_reader() -> None:
    access_list = parse_acl(
        encode(OWNER, (0x02, 6, 1001), (0x02, 6, 1002), GROUP_OF_FILE, MASK, OTHERS)
    )
    assert access_list.named == (Entry(Tag.USER, R | W, 1001), Entry(Tag.USER, R | W, 1002))
    assert access_list.mask == R | W


def test_a_list_as_the_kernel_writes_it_is_understood_byte_by_byte() -> None:
    data = bytes.fromhex(
        "02000000"  # version 2
        "01000600ffffffff"  # user::rw-
        "02000400e9030000"  # user:1001:r--
        "04000000ffffffff"  # group::---
        "08000400ea030000"  # group:1002:r--
        "10000400ffffffff"  # mask::r--
        "20000000ffffffff"  # other::---
    )
    assert parse_acl(data) == AccessList(
        (
            Entry(Tag.OWNER, R | W),
            Entry(Tag.USER, R, 1001),
            Entry(Tag.GROUP_OF_FILE, NOTHING),
            Entry(Tag.GROUP, R, 1002),
            Entry(Tag.MASK, R),
            Entry(Tag.OTHERS, NOTHING),
        )
    )


def test_the_mask_limits_those_who_are_named_and_the_group() -> None:
    access_list = parse_acl(
        encode(OWNER, (0x02, 7, 1), (0x04, 7, NOBODY), (0x08, 5, 2), (0x10, 4, NOBODY), OTHERS)
    )
    assert access_list.named == (Entry(Tag.USER, R, 1), Entry(Tag.GROUP, R, 2))
    assert [access_list.effective(entry) for entry in access_list.entries if not entry.id] == [
        R | W,
        R,
        R,
        NOTHING,
    ]


def test_the_mask_limits_neither_owner_nor_others() -> None:
    access_list = parse_acl(encode(OWNER, GROUP_OF_FILE, (0x10, 0, NOBODY), (0x20, 4, NOBODY)))
    effective = {entry.tag: access_list.effective(entry) for entry in access_list.entries}
    assert effective[Tag.OWNER] == R | W
    assert effective[Tag.OTHERS] == R


def test_a_list_without_names_needs_no_mask() -> None:
    access_list = parse_acl(encode(*PLAIN))
    assert access_list.named == ()
    assert access_list.mask == R | W | X


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (encode(*PLAIN, version=1), "version 1"),
        (encode((0x40, 4, 1), *PLAIN), "64"),
        (encode((0x02, 8, 1), *PLAIN, MASK), "permissions 0o10"),
        (encode(OWNER, *PLAIN), "twice"),
        (encode((0x02, 4, 7), (0x02, 6, 7), *PLAIN, MASK), "twice"),
        (encode((0x02, 4, 7), *PLAIN), "lacks"),
        (encode(OWNER, GROUP_OF_FILE), "lacks"),
        (encode(), "lacks"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_acl(data)


def test_a_list_cut_off_anywhere_is_refused() -> None:
    data = encode(OWNER, (0x02, 6, 1001), GROUP_OF_FILE, MASK, OTHERS)
    for end in range(len(data)):
        with pytest.raises(ValueError, match="list"):
            parse_acl(data[:end])


@given(st.binary(max_size=80))
def test_any_bytes_are_a_list_or_refused(data: bytes) -> None:
    try:
        access_list = parse_acl(data)
    except ValueError:
        return
    assert len(data) == 4 + 8 * len(access_list.entries)


permissions = st.integers(0, 7)
names = st.dictionaries(
    st.tuples(st.sampled_from([0x02, 0x08]), st.integers(0, 2**32 - 1)), permissions, min_size=1
)


@given(permissions, permissions, permissions, permissions, names)
def test_nobody_who_is_named_gets_more_than_the_mask(
    owner: int, group: int, mask: int, others: int, named: dict[tuple[int, int], int]
) -> None:
    access_list = parse_acl(
        encode(
            (0x01, owner, NOBODY),
            *((tag, granted, identifier) for (tag, identifier), granted in named.items()),
            (0x04, group, NOBODY),
            (0x10, mask, NOBODY),
            (0x20, others, NOBODY),
        )
    )
    assert {(entry.tag, entry.id): entry.permissions for entry in access_list.named} == {
        whom: granted & mask for whom, granted in named.items()
    }


def test_what_the_kernel_hands_out_is_what_was_set(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"")
    data = encode(OWNER, (0x02, 4, 1001), GROUP_OF_FILE, MASK, OTHERS)
    set_acl(path, data)
    assert parse_acl(os.getxattr(path, ACL_ATTRIBUTE)).named == (Entry(Tag.USER, R, 1001),)
    assert path.stat().st_mode & 0o777 == 0o660, "the group's bits show the mask"
