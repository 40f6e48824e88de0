"""MySQL: the ERR packet in place of a server's greeting.

A MySQL client says nothing until it has been greeted, so what it speaks cannot be recognised by
what it sends; it is by its silence. Before the greeting an ERR packet has no SQLSTATE (MySQL
internals, "ERR_Packet"):

    length, 3 bytes, little-endian | sequence number 0 | 0xff | number, 2 bytes | text
"""

from typing import Final

from dbproxy.errors import ClientError, Code, DBProxyError
from dbproxy.protocols.wire.base import one_line

__all__ = ["refused_greeting", "told_to_the_silent"]

_HANDSHAKE_ERROR: Final = 1043
"""ER_HANDSHAKE_ERROR, "Bad handshake"."""


def refused_greeting(error: DBProxyError) -> bytes:
    """What a MySQL client that waits for the greeting prints."""
    body = b"\xff" + _HANDSHAKE_ERROR.to_bytes(2, "little") + one_line(error).encode()
    return len(body).to_bytes(3, "little") + b"\0" + body


def told_to_the_silent(error: DBProxyError, readable_name: str) -> bytes:
    """What a client is told that said nothing on a port whose clients speak first.

    Nothing, unless its time is over: only a MySQL client says nothing for so long, and nobody else
    has asked for anything that this could be taken for the answer to.
    """
    if error.code is not Code.CLIENT_STALLED:
        return b""
    carried = f"this port carries {readable_name}, and the client said nothing"
    return refused_greeting(ClientError(error.code, carried))
