"""Each protocol is known by its first bytes, however few come at once."""

import beginnings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.protocols.recognise import Undecided, recognise

ENOUGH = 24
"""Bytes after which it is always decided."""

KNOWN = {
    "a TLS handshake": [beginnings.CLIENT_HELLO],
    "an HTTP request": [*beginnings.OF_PROTOCOL["dynamodb"], b"CONNECT db:5432 HTTP/1.1\r\n"],
    "an HTTP/2 preface": [beginnings.HTTP2],
    "an SSH greeting": [beginnings.SSH],
    "a SQL Server PRELOGIN packet": [beginnings.TDS],
    "a Redis command": [beginnings.REDIS, beginnings.REDIS_SETINFO],
    "a PostgreSQL packet": [beginnings.POSTGRES, beginnings.POSTGRES_SSL],
    "a ClickHouse Hello": beginnings.OF_PROTOCOL["clickhouse"],
    "an Oracle TNS packet": [beginnings.ORACLE],
    "a CQL frame": beginnings.OF_PROTOCOL["cassandra"],
    "a MongoDB message": [beginnings.MONGODB, beginnings.MONGODB_QUERY],
}
EACH = [(words, sent) for words, all_sent in KNOWN.items() for sent in all_sent]


def verdict(data: bytes) -> str | None:
    """What `data` is recognised as; empty while that is open."""
    try:
        wire = recognise(data)
    except Undecided:
        return ""
    return wire.beginning if wire is not None else None


@pytest.mark.parametrize(("words", "sent"), EACH, ids=lambda value: repr(value)[:30])
def test_each_is_recognised_at_once_and_never_taken_for_another(words: str, sent: bytes) -> None:
    seen = [verdict(sent[:size]) for size in range(len(sent) + 1)]
    decided = seen.index(words)
    assert set(seen[:decided]) <= {""}
    assert set(seen[decided:]) == {words}
    assert decided <= ENOUGH


@pytest.mark.parametrize(
    "sent",
    [
        b"\x12\x01\x00\x08" + bytes(12),
        b"PING\r\n",
        b"GETX /",
        b"GET key\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x02\x01\0\2",
        b"\x7fELF",
        b"\xff\xff\xff\xff",
        b"\x4a\0\0\1\x0a8.0.3",
        b"*x\r\n",
        b"\x83\0\0\0\5" + bytes(11),
        b"\4\0\0\0\7" + bytes(11),
        b"\0\0\0\7\0\3\0\0",
        b"\0\0\xff\xff\0\3\0\0",
        bytes(8),
    ],
    ids=repr,
)
def test_what_nobody_begins_with_is_nobodys(sent: bytes) -> None:
    assert verdict(sent) is None


@given(st.binary(min_size=ENOUGH, max_size=64))
def test_a_few_bytes_always_decide(data: bytes) -> None:
    assert verdict(data) != ""


@given(st.binary(max_size=64))
def test_more_bytes_do_not_change_a_verdict(data: bytes) -> None:
    seen = [verdict(data[:size]) for size in range(len(data) + 1)]
    assert len({verdict for verdict in seen if verdict}) <= 1
    assert None not in seen or set(seen[seen.index(None) :]) == {None}
