"""Teleport's ERR packets get a number that says something; all else passes as it came."""

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mysql_packets import error, ok, packet
from teleports_refusals import DENIED, KNOWN, OTHER

from dbproxy.errors import PROBLEMS, Code
from dbproxy.protocols.mysql_verdict import MySQLVerdictReader
from dbproxy.protocols.verdict import LONGEST_READ

NUMBERS = {"28000": (1045, b"28000"), "3D000": (1049, b"42000"), "53300": (1040, b"08004")}
LONGEST_TEXT = 511
SWITCH = b"\xfemysql_native_password\0" + bytes(range(1, 21)) + b"\0"
MORE = b"\x01\x04"


def teleports(text: str | bytes, number: int = 2) -> bytes:
    """An ERR as Teleport's handler sends it."""
    encoded = text if isinstance(text, bytes) else text.encode()
    return packet(number, b"\xff" + struct.pack("<H", 1105) + b"#HY000" + encoded)


def read(pieces: Sequence[bytes], *, rewrite: bool = True) -> tuple[bytes, MySQLVerdictReader]:
    """What the client gets of an upstream that says these and then no more."""
    reader = MySQLVerdictReader(rewrite=rewrite)
    return b"".join(map(reader.receive, pieces)) + reader.end(), reader


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def parts(err: bytes) -> tuple[int, int, bytes, bytes]:
    """Sequence, number, SQLSTATE and text of an ERR, which must be all that there is."""
    size = int.from_bytes(err[:3], "little")
    assert len(err) == 4 + size
    assert (err[4], err[7:8]) == (0xFF, b"#")
    return err[3], int.from_bytes(err[5:7], "little"), err[8:13], err[13:]


upstreams = st.lists(
    st.one_of(
        st.builds(packet, st.integers(0, 255), st.binary(max_size=30)),
        st.builds(packet, st.integers(0, 255), st.sampled_from([SWITCH, MORE, b"\xff", b"\xffx"])),
        st.sampled_from([DENIED, OTHER]).map(teleports),
        st.binary(max_size=9),
    ),
    max_size=5,
).map(b"".join)


class TestTeleportsRefusals:
    """1105 is what Teleport gives to every refusal."""

    @pytest.mark.parametrize(("text", "code", "sqlstate"), KNOWN)
    def test_the_text_tells_number_sqlstate_and_hint(
        self, text: str, code: Code, sqlstate: str
    ) -> None:
        got, reader = read([teleports(text)])
        hint = f" {PROBLEMS[code].client_hint} [{code}]"
        assert parts(got) == (2, *NUMBERS[sqlstate], (text + hint).encode())
        assert len((text + hint).encode()) <= LONGEST_TEXT
        assert reader.code is code

    @pytest.mark.parametrize(("length", "ends_with"), [(495, b"[access-denied]"), (496, b"x")])
    def test_where_there_is_no_room_for_the_hint_the_message_comes_first(
        self, length: int, ends_with: bytes
    ) -> None:
        text = b"access to db denied".ljust(length, b"x")
        _, number, _, told = parts(read([teleports(text)])[0])
        assert number == 1045
        assert told.startswith(text)
        assert told.endswith(ends_with)

    def test_a_long_message_stays_whole(self) -> None:
        text = b"access to db denied".ljust(9000, b"x")
        assert parts(read([teleports(text)])[0])[3] == text

    def test_without_sqlstate_it_gets_none(self) -> None:
        sent = packet(2, b"\xff" + struct.pack("<H", 1105) + DENIED.encode())
        got, reader = read([sent])
        assert got[4:7] == b"\xff" + struct.pack("<H", 1045)
        assert got[7:].startswith(DENIED.encode())
        assert int.from_bytes(got[:3], "little") == len(got) - 4
        assert reader.code is Code.ACCESS_DENIED

    @pytest.mark.parametrize("steps", [[SWITCH], [SWITCH, MORE], [MORE] * 3])
    def test_it_may_come_in_the_course_of_a_login(self, steps: list[bytes]) -> None:
        before = b"".join(packet(2 * turn, step) for turn, step in enumerate(steps, 1))
        got, reader = read([before + teleports(DENIED, 8)])
        assert got.startswith(before)
        assert parts(got[len(before) :])[:2] == (8, 1045)
        assert reader.code is Code.ACCESS_DENIED


class TestEverythingElse:
    """Bytes pass as they came, and nobody waits for more than an ERR needs."""

    @pytest.mark.parametrize(
        "sent",
        [
            ok(2) + teleports(DENIED, 1),
            error(2),
            error(2, DENIED.encode()),
            packet(2, b""),
            packet(2, b"\xff"),
            packet(2, b"\xff\x51"),
            b"\0\0\0\2",
            b"\xff\xff\xff\2\xff" + bytes(70_000),
            b"\x16\x03\x03\0\x02\x02\x28" + bytes(40_000),
            teleports(DENIED)[:-1],
            teleports(DENIED)[:5],
            packet(2, SWITCH)[:9],
        ],
    )
    def test_it_is_not_touched_however_it_is_split(self, sent: bytes) -> None:
        for pieces in ([sent], [*bytewise(sent[:2000]), sent[2000:]]):
            got, reader = read(pieces)
            assert got == sent
            assert reader.code is None
            assert reader.over

    def test_words_that_are_not_known_may_be_the_databases(self) -> None:
        got, reader = read([teleports(OTHER)])
        assert got == teleports(OTHER)
        assert reader.code is Code.REFUSED_BY_TELEPORT

    def test_an_ok_ends_it_at_its_first_byte(self) -> None:
        reader = MySQLVerdictReader()
        assert reader.receive(ok(2)[:5]) == ok(2)[:5]
        assert reader.over

    def test_without_rewriting_each_byte_passes_at_once_and_the_code_is_known(self) -> None:
        reader = MySQLVerdictReader(rewrite=False)
        for byte in bytewise(teleports(DENIED)):
            assert reader.receive(byte) == byte
        assert reader.end() == b""
        assert reader.code is Code.ACCESS_DENIED


class TestHostileUpstreams:
    """Whatever comes, however it is cut."""

    @given(upstreams, st.booleans())
    def test_it_does_not_matter_where_it_is_cut(self, sent: bytes, rewrite: bool) -> None:
        whole, one = read([sent], rewrite=rewrite)
        for at in range(len(sent)):
            got, other = read([sent[:at], sent[at:]], rewrite=rewrite)
            assert (got, other.code) == (whole, one.code)
        assert read(bytewise(sent), rewrite=rewrite)[0] == whole

    @given(upstreams)
    def test_without_a_refusal_or_without_rewriting_the_bytes_are_the_same(
        self, sent: bytes
    ) -> None:
        got, reader = read([sent])
        assert got == sent or reader.code is not None
        assert read([sent], rewrite=False)[0] == sent

    @given(st.integers(0, 2**24 - 1), st.binary(max_size=99))
    def test_any_length_that_is_claimed_is_lived_with(self, length: int, body: bytes) -> None:
        sent = struct.pack("<I", length)[:3] + b"\2" + body
        got, reader = read(bytewise(sent))
        assert got == sent or reader.code is not None

    def test_little_is_held_of_one_that_never_decides(self) -> None:
        reader = MySQLVerdictReader()
        step = packet(2, MORE.ljust(16_000, b"x"))
        passed = fed = 0
        while not reader.over:
            for piece in (step[:9000], step[9000:]):
                passed += len(reader.receive(piece))
                fed += len(piece)
                assert fed - passed <= len(step)
            assert fed <= LONGEST_READ + len(step)
        assert passed == fed
        assert not reader._buffer
