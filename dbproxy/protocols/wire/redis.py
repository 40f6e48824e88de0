r"""Redis (RESP2 and RESP3): commands in, one line of error out.

A client's commands are arrays of bulk strings, `*2\r\n$5\r\nHELLO…`; people at a terminal send
plain lines, which servers take too ("inline commands"). An error is one line, `-ERR text\r\n`, in
every version of the protocol, so it may answer `HELLO 3` as well. The first word is what clients
tell errors apart by (Redis documentation, "Redis serialization protocol specification").

Each command gets an answer. Many clients begin with `CLIENT SETINFO` and the like, and pass over
the errors of those; so they must be given one for each command until they come to one of their
user's.
"""

import re
from typing import Final

from dbproxy.errors import DBProxyError
from dbproxy.protocols.wire.base import Answering, Sort, Wire, one_line, sort_of

__all__ = ["RedisWire"]

_DIGITS: Final = b"0123456789"
_PRINTABLE: Final = range(0x21, 0x7F)
_ARRAY: Final = re.compile(rb"\*([0-9]{1,9})\r\n")
_BULK_STRING: Final = re.compile(rb"\$([0-9]{1,9})\r\n")
_MOST_ANSWERS: Final = 1000
_MOST_WORDS: Final = 100_000
"""Limits for what hostile clients make us do with one piece of what they say."""
_DENIED: Final = "NOPERM"
"""Not WRONGPASS or NOAUTH: clients would ask for another password."""


class RedisWire(Wire):
    """Redis."""

    beginning = "a Redis command"

    def begins(self, data: bytes) -> bool | None:
        if data[:1] != b"*":
            return None if not data else False
        return None if len(data) == 1 else data[1] in _DIGITS

    def may_begin(self, data: bytes) -> bool:
        return data[0] in _PRINTABLE

    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        return _line(error) * max(1, _commands_in(received))

    def further(self, received: bytes, error: DBProxyError) -> Answering:
        del received
        line = _line(error)
        return lambda data: line * _commands_in(data)


def _line(error: DBProxyError) -> bytes:
    word = _DENIED if sort_of(error) is Sort.DENIED else "ERR"
    return f"-{word} {one_line(error)}\r\n".encode()


def _commands_in(data: bytes) -> int:
    """How many commands begin in `data`, which clients write whole; one too many does no harm."""
    count = position = 0
    while position < len(data) and count < _MOST_ANSWERS:
        count += 1
        position = _end_of_command(data, position)
    return count


def _end_of_command(data: bytes, position: int) -> int:
    head = _ARRAY.match(data, position)
    if head is None:  # an inline command, or the rest of a long value
        return len(data)
    position = head.end()
    for _ in range(min(int(head[1]), _MOST_WORDS)):
        word = _BULK_STRING.match(data, position)
        if word is None:
            return len(data)
        position = word.end() + int(word[1]) + len(b"\r\n")
    return position
