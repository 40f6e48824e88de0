"""MongoDB's own driver, blocking and with asyncio, with the files of tbot's `mongo` template."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from pymongo import AsyncMongoClient, MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure

from drivers.base import TIMEOUT, Driver, Endpoint, Session

Document: TypeAlias = dict[str, Any]
PATIENCE = 1.0
"""Seconds in which it looks for a server; it goes on looking when it has been refused."""


def options(endpoint: Endpoint) -> dict[str, Any]:
    """What both kinds of clients are made with."""
    chosen: dict[str, Any] = {
        "host": "localhost",
        "port": endpoint.port,
        "directConnection": True,
        "serverSelectionTimeoutMS": int(1000 * PATIENCE),
        "socketTimeoutMS": 1000 * TIMEOUT,
        "tls": endpoint.has_tls,
    }
    if endpoint.has_tls:
        chosen["tlsCAFile"] = str(endpoint.ca_file)
    if endpoint.combined_file is not None:
        chosen["tlsCertificateKeyFile"] = str(endpoint.combined_file)
    return chosen


def joined(documents: list[Document]) -> str:
    """The words of documents, in the order of their numbers."""
    ordered = sorted(documents, key=lambda document: int(document["number"]))
    return "\n".join(document["words"] for document in ordered)


@dataclass(frozen=True)
class BlockingSession(Session):
    client: MongoClient[Document]
    database: str

    def greeting(self) -> str:
        document = self.client[self.database]["greetings"].find_one({"number": 1})
        assert document is not None
        return str(document["words"])

    def large(self) -> str:
        return joined(list(self.client[self.database]["large_lines"].find(batch_size=20)))


class PyMongo(Driver):
    name = "pymongo"
    protocol = "mongodb"
    errors = (ConnectionFailure, OperationFailure)
    note = (
        "Certificate and key are `mongo.crt` of tbot's `mongo` template or format. The authority is"
        " the file that dbproxy names, not `mongo.cas`, which has the Database CA."
    )
    reconnects = True

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[Session]:
        with MongoClient[Document](**options(endpoint)) as client:
            client.admin.command("ping")
            yield BlockingSession(client, endpoint.database)


@dataclass(frozen=True)
class AsyncSession(Session):
    client: AsyncMongoClient[Document]
    database: str
    runner: asyncio.Runner

    def greeting(self) -> str:
        return self.runner.run(self._greeting())

    def large(self) -> str:
        return self.runner.run(self._large())

    async def _greeting(self) -> str:
        document = await self.client[self.database]["greetings"].find_one({"number": 1})
        assert document is not None
        return str(document["words"])

    async def _large(self) -> str:
        cursor = self.client[self.database]["large_lines"].find(batch_size=20)
        return joined(await cursor.to_list())


class AsyncPyMongo(PyMongo):
    name = "pymongo (asyncio)"
    leaves_sockets = True
    note = ""

    @cached_property
    def version(self) -> str:
        return PyMongo().version

    @contextmanager
    def open(self, endpoint: Endpoint) -> Iterator[Session]:
        with asyncio.Runner() as runner:
            client = runner.run(self._connect(endpoint))
            yield AsyncSession(client, endpoint.database, runner)
            runner.run(client.close())

    async def _connect(self, endpoint: Endpoint) -> AsyncMongoClient[Document]:
        client: AsyncMongoClient[Document] = AsyncMongoClient(**options(endpoint))
        try:
            await client.admin.command("ping")
        except BaseException:
            await client.close()
            raise
        return client
