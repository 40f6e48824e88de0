r"""Redis (RESP2 and RESP3): commands in, one line of error out.

A client's commands are arrays of bulk strings, `*2\r\n$5\r\nHELLO…`; people at a terminal send
plain lines, which servers take too ("inline commands"). An error is one line, `-ERR text\r\n`, in
every version of the protocol, so it may answer `HELLO 3` as well. The first word is what clients
tell errors apart by (Redis documentation, "Redis serialization protocol specification").
"""

from typing import Final

from dbproxy.errors import DBProxyError
from dbproxy.protocols.wire.base import Sort, Wire, one_line, sort_of

__all__ = ["RedisWire"]

_DIGITS: Final = b"0123456789"
_PRINTABLE: Final = range(0x21, 0x7F)
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
        return data[0] in _PRINTABLE or data[0] in b"\r\n"

    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        del received
        word = _DENIED if sort_of(error) is Sort.DENIED else "ERR"
        return f"-{word} {one_line(error)}\r\n".encode()
