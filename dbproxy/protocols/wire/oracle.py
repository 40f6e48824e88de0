"""Oracle's TNS: the CONNECT packet, and the REFUSE packet of a listener.

Packets begin with (as the TNS dissector of Wireshark and python-oracledb read them):

    length, 2 bytes, big-endian | checksum, 2 bytes, 0 | type | flags | header checksum, 2 bytes, 0

A REFUSE has then a reason of the user and one of the system, a byte each, and text with its length
in front. In the text, `ERR=` is a number that clients print as `ORA-…`; they print none of our
words.
"""

from typing import Final

from dbproxy.errors import DBProxyError
from dbproxy.protocols.wire.base import Wire, one_line

__all__ = ["OracleWire"]

_HEADER_SIZE: Final = 8
_CONNECT: Final = 1
_REFUSE: Final = 4
_CONNECT_SIZES: Final = range(34, 65536)
"""The fields before the connect data take 26 bytes at least."""
_NUMBER: Final = 12564
"""ORA-12564, "connection refused": true in all cases, while others would name a wrong cause."""
_SPECIAL: Final = str.maketrans(dict.fromkeys("()='\"\\", " "))
"""What the parentheses of the text are made of."""


class OracleWire(Wire):
    """Oracle's TNS."""

    beginning = "an Oracle TNS packet"

    def begins(self, data: bytes) -> bool | None:
        if len(data) >= 2 and int.from_bytes(data[:2], "big") not in _CONNECT_SIZES:
            return False
        if any(data[2:4]) or (len(data) > 4 and data[4] != _CONNECT) or any(data[6:8]):
            return False
        return None if len(data) < _HEADER_SIZE else True

    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        del received
        words = one_line(error).translate(_SPECIAL)
        text = (
            f"(DESCRIPTION=(TMP={words})(VSNNUM=0)(ERR={_NUMBER})"
            f"(ERROR_STACK=(ERROR=(CODE={_NUMBER})(EMFI=4))))"
        ).encode()
        body = b"\0\0" + len(text).to_bytes(2, "big") + text
        length = _HEADER_SIZE + len(body)
        return length.to_bytes(2, "big") + b"\0\0" + bytes([_REFUSE, 0]) + b"\0\0" + body
