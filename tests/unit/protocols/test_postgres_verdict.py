"""Teleport's ErrorResponse reaches the client whole; all else reaches it as it came."""

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from teleports_refusals import DENIED, KNOWN, OTHER

from dbproxy.errors import PROBLEMS, Code
from dbproxy.protocols import protocol_named
from dbproxy.protocols.postgres_verdict import PostgresVerdictReader
from dbproxy.protocols.verdict import LONGEST_READ

LONGEST = 30_000

AUTHENTICATION_OK = b"R\0\0\0\x08\0\0\0\0"
READY = b"Z\0\0\0\x05I"


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def error(**fields: str | bytes) -> bytes:
    """An ErrorResponse with these fields, in this order."""
    values = {key: v if isinstance(v, bytes) else v.encode() for key, v in fields.items()}
    body = b"".join(key.encode() + value + b"\0" for key, value in values.items())
    return message(b"E", body + b"\0")


def fields_of(response: bytes) -> list[tuple[str, bytes]]:
    """The fields of an ErrorResponse, which must be all that there is."""
    assert response[:1] == b"E"
    assert struct.unpack_from("!I", response, 1) == (len(response) - 1,)
    *fields, last, end = response[5:].split(b"\0")
    assert (last, end) == (b"", b"")
    return [(field[:1].decode(), field[1:]) for field in fields]


def read(pieces: Sequence[bytes], *, rewrite: bool = True) -> tuple[bytes, PostgresVerdictReader]:
    """What the client gets of an upstream that says these and then no more."""
    reader = PostgresVerdictReader(rewrite=rewrite)
    return b"".join(map(reader.receive, pieces)) + reader.end(), reader


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


notices = st.builds(message, st.sampled_from([b"N", b"v"]), st.binary(max_size=40))
texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=300)
field_kinds = st.sampled_from("DWPqFLRstc")
upstreams = st.lists(
    st.one_of(
        notices,
        texts.map(lambda text: error(M=text)),
        st.just(AUTHENTICATION_OK),
        st.just(error(S="FATAL", C="28P01", M="no")),
        st.builds(message, st.sampled_from([b"E", b"N", b"R"]), st.binary(max_size=40)),
        st.binary(max_size=12),
    ),
    max_size=5,
).map(b"".join)


class TestTeleportsRefusals:
    """An error that has a message and nothing else is Teleport's own."""

    @pytest.mark.parametrize(("text", "code", "sqlstate"), KNOWN)
    def test_the_text_tells_sqlstate_and_hint(self, text: str, code: Code, sqlstate: str) -> None:
        got, reader = read([error(M=text)])
        hint = f"{PROBLEMS[code].client_hint} [{code}]".encode()
        assert fields_of(got) == [
            ("S", b"FATAL"),
            ("V", b"FATAL"),
            ("C", sqlstate.encode()),
            ("M", text.encode()),
            ("H", hint),
        ]
        assert reader.code is code

    def test_other_words_are_a_refusal_all_the_same(self) -> None:
        got, reader = read([error(M=OTHER)])
        fields = dict(fields_of(got))
        assert (fields["S"], fields["C"], fields["M"]) == (b"FATAL", b"28000", OTHER.encode())
        assert fields["H"].endswith(b"[refused-by-teleport]")
        assert reader.code is Code.REFUSED_BY_TELEPORT

    def test_fields_that_are_there_and_empty_count_as_missing(self) -> None:
        got, reader = read([error(S="", V="", C="", M=DENIED)])
        assert [kind for kind, _ in fields_of(got)] == ["S", "V", "C", "M", "H"]
        assert dict(fields_of(got))["C"] == b"28000"
        assert reader.code is Code.ACCESS_DENIED

    def test_a_message_in_no_encoding_stays_what_it_is(self) -> None:
        text = b"access to db denied \xff\xfe\x80"
        assert dict(fields_of(read([error(M=text)])[0]))["M"] == text

    def test_other_fields_and_a_hint_of_teleports_stay(self) -> None:
        got, _ = read([error(M=DENIED, D="detail", H="Ask them.", L="12")])
        fields = dict(fields_of(got))
        assert (fields["D"], fields["L"]) == (b"detail", b"12")
        assert fields["H"].startswith(b"Ask them. ")
        assert fields["H"].endswith(b"[access-denied]")

    def test_it_may_come_behind_notices_and_a_negotiation_of_the_version(self) -> None:
        before = message(b"v", bytes(8)) + message(b"N", b"SNOTICE\0Mhello\0\0")
        got, reader = read([before + error(M=DENIED)])
        assert got.startswith(before)
        assert dict(fields_of(got[len(before) :]))["C"] == b"28000"
        assert reader.code is Code.ACCESS_DENIED

    def test_what_follows_it_follows_it(self) -> None:
        got, _ = read([error(M=DENIED) + b"more", b" and more"])
        assert got.endswith(b"\0\0more and more")

    @given(texts, st.lists(st.tuples(field_kinds, texts), max_size=4, unique_by=lambda f: f[0]))
    def test_what_is_completed_can_be_read_and_keeps_what_there_was(
        self, text: str, more: list[tuple[str, str]]
    ) -> None:
        got, _ = read([error(M=text, **dict(more))])
        fields = fields_of(got)
        assert len(dict(fields)) == len(fields), "a field came twice"
        kept = [(kind, value) for kind, value in fields if kind not in "SVCH"]
        assert kept == [("M", text.encode()), *((kind, v.encode()) for kind, v in more)]
        assert {"S", "V", "C", "M", "H"} <= dict(fields).keys()

    def test_an_error_as_long_as_clients_read_passes_as_it_is(self) -> None:
        for size in range(LONGEST - 300, LONGEST - 3):
            sent = error(M=b"x" * (size - 3))
            got, reader = read([sent])
            assert len(got) - 1 <= max(LONGEST, len(sent) - 1)
            assert got == sent or dict(fields_of(got))["C"] == b"28000"
            assert reader.code is Code.REFUSED_BY_TELEPORT


class TestEverythingElse:
    """Bytes pass as they came, and nobody waits for more than an error needs."""

    @pytest.mark.parametrize(
        "sent",
        [
            AUTHENTICATION_OK + READY,
            error(S="FATAL", V="FATAL", C="28P01", M="password authentication failed"),
            error(S="FATAL", M=DENIED),
            error(C="28000", M=DENIED),
            error(V="FATAL", M=DENIED),
            error(),
            error(D="no message"),
            message(b"E", b""),
            message(b"E", b"Mno end"),
            message(b"E", b"Mone end\0"),
            message(b"E", b"Mgap\0\0Cgap\0\0"),
            b"E\0\0\0\0",
            b"E\0\0\0\x03",
            b"E\xff\xff\xff\xff",
            b"E\0\x01\0\0" + bytes(70_000),
            b"EFATAL:  an error of protocol 2\n\0",
            b"\x15\x03\x03\0\x02\x02\x28",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            error(M=DENIED)[:-1],
            error(M=DENIED)[:3],
        ],
    )
    def test_it_is_not_touched_however_it_is_split(self, sent: bytes) -> None:
        for pieces in ([sent], [*bytewise(sent[:2000]), sent[2000:]]):
            got, reader = read(pieces)
            assert got == sent
            assert reader.code is None
            assert reader.over

    def test_a_first_byte_of_something_else_ends_it_at_once(self) -> None:
        reader = PostgresVerdictReader()
        assert reader.receive(b"R") == b"R"
        assert reader.over
        assert reader.receive(error(M=DENIED)) == error(M=DENIED)

    def test_errors_of_an_open_connection_are_not_looked_at(self) -> None:
        sent = AUTHENTICATION_OK + READY + error(M=DENIED)
        assert read([sent])[0] == sent

    def test_an_impossible_length_is_not_waited_for(self) -> None:
        reader = PostgresVerdictReader()
        assert reader.receive(b"E\0\0\x75\x31") == b"E\0\0\x75\x31"  # one more than 30,000
        assert reader.over

    def test_without_rewriting_each_byte_passes_at_once_and_the_code_is_known(self) -> None:
        reader = PostgresVerdictReader(rewrite=False)
        for byte in bytewise(error(M=DENIED)):
            assert reader.receive(byte) == byte
        assert reader.over
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

    @given(st.integers(0, 2**32 - 1), st.sampled_from([b"E", b"N", b"v"]), st.binary(max_size=99))
    def test_any_length_that_is_claimed_is_lived_with(
        self, length: int, kind: bytes, body: bytes
    ) -> None:
        sent = kind + struct.pack("!I", length) + body
        got, reader = read(bytewise(sent))
        assert got == sent or reader.code is not None

    def test_little_is_held_of_one_that_never_decides(self) -> None:
        reader = PostgresVerdictReader()
        notice = message(b"N", bytes(999))
        passed = fed = 0
        while not reader.over:
            for piece in (notice[:500], notice[500:]):
                passed += len(reader.receive(piece))
                fed += len(piece)
                assert fed - passed <= LONGEST + 1
            assert fed <= LONGEST_READ + len(notice)
        assert passed == fed
        assert not reader._buffer

    def test_a_long_error_byte_by_byte_is_held_until_it_is_whole(self) -> None:
        sent = error(M=b"x" * 20_000)
        reader = PostgresVerdictReader()
        assert not any(map(reader.receive, bytewise(sent[:-1])))
        assert dict(fields_of(reader.receive(sent[-1:])))["M"] == b"x" * 20_000


def test_cockroachdbs_clients_are_told_like_postgresqls() -> None:
    reader = protocol_named("cockroachdb").verdict_reader(rewrite=True)
    assert isinstance(reader, PostgresVerdictReader)


@pytest.mark.parametrize("name", ["mongodb", "redis", "sqlserver", "cassandra", "elasticsearch"])
def test_where_teleports_errors_are_not_known_nothing_is_read(name: str) -> None:
    assert protocol_named(name).verdict_reader(rewrite=True) is None
