"""A stand-in for SQL Server behind the database service: logs everybody in, and echoes batches.

The database service has its own PRELOGIN with a real server; here the connection begins with the
client's LOGIN7.
"""

from __future__ import annotations

import re
from typing import Final

import trio

from dbproxy.lab.streams import READ_SIZE
from dbproxy.lab.tdswire import (
    ATTENTION,
    LOGIN7,
    SQL_BATCH,
    Request,
    RequestBuffer,
    attention_acknowledged,
    login_accepted,
    login_names,
    nothing,
    one_value,
)

REPLICATE: Final = re.compile(r"SELECT REPLICATE\('(.)', (\d+)\)", re.IGNORECASE)
HEADERS_LENGTH: Final = 4
"""Bytes of the length in front of a batch's headers, itself included."""


async def serve_sql_server(stream: trio.abc.Stream) -> None:
    """Serves one connection to its end and closes it.

    ``SELECT REPLICATE('x', 1000)`` gives that, ``SET …`` nothing, any other batch its own text.
    """
    buffer = RequestBuffer()
    async with stream:
        try:
            while data := await stream.receive_some(READ_SIZE):
                buffer.feed(data)
                while (request := buffer.pop()) is not None:
                    await stream.send_all(_answer(request))
        except trio.BrokenResourceError:
            return  # the client is gone


def _answer(request: Request) -> bytes:
    if request.kind == LOGIN7:
        return login_accepted(login_names(request.payload)[1])
    if request.kind == ATTENTION:
        return attention_acknowledged()
    if request.kind != SQL_BATCH:
        return nothing()
    headers = int.from_bytes(request.payload[:HEADERS_LENGTH], "little")
    sql = request.payload[headers:].decode("utf-16-le")
    if sql.startswith("SET "):
        return nothing()
    replicate = REPLICATE.fullmatch(sql.strip())
    return one_value(replicate[1] * int(replicate[2]) if replicate else sql)
