"""PostgreSQL: the upstream's first messages, and Teleport's ErrorResponse made whole.

A message is one byte of type, four of length (themselves included), and the body (PostgreSQL
documentation, "Message Formats"):

| type | message                  | here                                                      |
|------|--------------------------|-----------------------------------------------------------|
| `N`  | NoticeResponse           | passes; the next one is looked at                         |
| `v`  | NegotiateProtocolVersion | likewise                                                  |
| `E`  | ErrorResponse            | completed if severity and SQLSTATE are empty; then over   |
| else | `R`, Authentication…     | the client is let in, or asked to prove who it is: over   |

Teleport's database agent fills in the message alone, unless the error is the database's own
(`toErrorResponse` in `lib/srv/db/postgres/engine.go`). PostgreSQL's drivers take severity and
SQLSTATE for granted, as the protocol's documentation does ("always present").

Tested in `tests/unit/protocols/test_postgres_verdict.py`, split at every byte.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

from dbproxy.protocols.teleport_words import code_of, hint_for
from dbproxy.protocols.verdict import VerdictReader
from dbproxy.protocols.wire.postgres import sqlstate_of

__all__ = ["PostgresVerdictReader"]

_HEADER_SIZE: Final = 5
_ERROR: Final = ord("E")
_PASSED_OVER: Final = frozenset(b"Nv")
_LENGTHS: Final = range(4, 30_000 + 1)
"""libpq takes an error that is longer for one of protocol 2 (`MAX_ERRLEN`, `fe-connect.c`)."""

_SEVERITY: Final = (b"S", b"V")
_SQLSTATE: Final = b"C"
_MESSAGE: Final = b"M"
_HINT: Final = b"H"
_FILLED_IN: Final = frozenset({*_SEVERITY, _SQLSTATE, _HINT})

_Fields: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Types and values, in order."""


class PostgresVerdictReader(VerdictReader):
    """Reads until an ErrorResponse, or anything that is no notice."""

    __slots__ = ()

    def _next_message(self) -> bytes | None:
        if not self._buffer:
            return None
        kind = self._buffer[0]
        if kind != _ERROR and kind not in _PASSED_OVER:
            return self._let_pass()
        if len(self._buffer) < _HEADER_SIZE:
            return None
        length = int.from_bytes(self._buffer[1:_HEADER_SIZE], "big")
        if length not in _LENGTHS:
            return self._let_pass()
        if len(self._buffer) < 1 + length:
            return None
        message = self._take(1 + length)
        return self._on_error(message) if kind == _ERROR else message

    def _on_error(self, message: bytes) -> bytes:
        self.over = True
        fields = _parse(message[_HEADER_SIZE:])
        text = dict(fields).get(_MESSAGE)
        if text is None or any(kind in (*_SEVERITY, _SQLSTATE) and value for kind, value in fields):
            return message
        self.code = code_of(text)
        completed = _encode(
            [
                *((kind, b"FATAL") for kind in _SEVERITY),
                (_SQLSTATE, sqlstate_of(self.code).encode()),
                *((kind, value) for kind, value in fields if kind not in _FILLED_IN),
                (_HINT, _with_ours(dict(fields).get(_HINT, b""), hint_for(self.code))),
            ]
        )
        return completed if len(completed) - 1 in _LENGTHS else message


def _with_ours(theirs: bytes, ours: str) -> bytes:
    return b" ".join(filter(None, (theirs, ours.encode())))


def _parse(body: bytes) -> _Fields:
    """The fields of an ErrorResponse; none where it is malformed."""
    fields = body.removesuffix(b"\0\0").split(b"\0")
    if not body.endswith(b"\0\0") or not all(fields):
        return ()
    return [(field[:1], field[1:]) for field in fields]


def _encode(fields: _Fields) -> bytes:
    body = b"".join(kind + value + b"\0" for kind, value in fields) + b"\0"
    return b"E" + (len(body) + 4).to_bytes(4, "big") + body
