"""A stand-in for Cassandra behind the database service: a few tables with one column of text.

Drivers ask for a version of the protocol and go down until the server has it, then for the cluster
that they are connected to; that much it knows, of one node. Everybody may log in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

import trio

from dbproxy.lab.cassandrawire import (
    INVALID,
    NEWEST,
    OLDEST,
    OPTIONS,
    PROTOCOL_ERROR,
    QUERY,
    READY,
    REGISTER,
    STARTUP,
    SUPPORTED,
    SYNTAX_ERROR,
    CassandraWireError,
    Frame,
    FrameBuffer,
    identifier,
    supported,
    text,
    texts,
)
from dbproxy.lab.streams import READ_SIZE

SELECT: Final = re.compile(r"SELECT\s+(?P<columns>.+?)\s+FROM\s+(?P<table>[\w.]+)", re.IGNORECASE)
CQL_VERSION: Final = "3.4.4"
HOST_ID: Final = UUID("4c414220-0000-4000-8000-000000000001")
LOCAL: Final = (
    text("key", "local"),
    text("cluster_name", "dbproxy lab"),
    text("data_center", "lab"),
    text("rack", "one"),
    text("release_version", "3.11.17"),
    text("cql_version", CQL_VERSION),
    text("partitioner", "org.apache.cassandra.dht.Murmur3Partitioner"),
    texts("tokens", ["0"]),
    identifier("host_id", HOST_ID),
    identifier("schema_version", HOST_ID),
)
"""What drivers want to know of the node that they are connected to."""
WORDS: Final = "words"
"""The column that every table of the stand-in has."""


class Cassandra:
    """A node with tables.

    Args:
        tables: the rows of each table, by its name.
    """

    def __init__(self, tables: Mapping[str, Sequence[str]]) -> None:
        self._tables = tables

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serves one connection to its end and closes it."""
        buffer = FrameBuffer()
        async with stream:
            try:
                while data := await stream.receive_some(READ_SIZE):
                    buffer.feed(data)
                    while (frame := buffer.pop()) is not None:
                        await stream.send_all(self.answer(frame))
            except (trio.BrokenResourceError, CassandraWireError):
                return  # the client is gone, or none of Cassandra's

    def answer(self, frame: Frame) -> bytes:
        """Returns the answer to a message."""
        if not OLDEST <= frame.version <= NEWEST:
            return frame.error(
                PROTOCOL_ERROR,
                f"Invalid or unsupported protocol version ({frame.version}); the lowest supported"
                f" version is {OLDEST} and the greatest is {NEWEST}",
            )
        if frame.opcode == OPTIONS:
            options = {"CQL_VERSION": [CQL_VERSION], "COMPRESSION": []}
            return frame.answer(SUPPORTED, supported(options))
        if frame.opcode in {STARTUP, REGISTER}:
            return frame.answer(READY)
        if frame.opcode == QUERY:
            return self._select(frame)
        return frame.error(PROTOCOL_ERROR, f"the stand-in has no answer to opcode {frame.opcode}")

    def _select(self, frame: Frame) -> bytes:
        select = SELECT.match(frame.query().strip())
        if select is None:
            return frame.error(SYNTAX_ERROR, "the stand-in knows SELECT … FROM … only")
        table = select["table"]
        if table == "system.local":
            return frame.rows(table, LOCAL)
        if table.startswith(("system.", "system_")):
            return frame.rows(table, [text("key")])
        if table not in self._tables:
            return frame.error(INVALID, f"unconfigured table {table}")
        return frame.rows(table, [text(WORDS, *self._tables[table])])
