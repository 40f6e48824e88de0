"""How a Proxy talks to SQL Server clients before the database service takes over.

A stand-in for lib/srv/db/sqlserver/proxy.go: the client's PRELOGIN is read, not looked at, and
answered with constants. That these say that there is no encryption is UNVERIFIED.
"""

from __future__ import annotations

import trio

from dbproxy.lab.errors import LabError
from dbproxy.lab.streams import READ_SIZE
from dbproxy.lab.tdswire import PRELOGIN, RequestBuffer, prelogin_answer


class SQLServerRefused(LabError):
    """The client did not follow the protocol."""


async def agree_on_no_encryption(stream: trio.abc.Stream) -> bytes:
    """Answers the PRELOGIN; returns what the client has sent behind it.

    Raises:
        LabError: the client says something else.
    """
    buffer = RequestBuffer()
    while (request := buffer.pop()) is None:
        data = await stream.receive_some(READ_SIZE)
        if not data:
            raise SQLServerRefused("the client ended the connection before PRELOGIN")
        buffer.feed(data)
    if request.kind != PRELOGIN:
        raise SQLServerRefused(f"expected Pre-Login packet, got type {request.kind}")
    await stream.send_all(prelogin_answer())
    return buffer.pop_rest()
