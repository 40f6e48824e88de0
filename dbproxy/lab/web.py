"""The web server behind the Proxy's port: its API, and the connection upgrade."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import h11
import trio

from dbproxy.lab import webapi
from dbproxy.lab.http_server import Headers, HttpConnection
from dbproxy.lab.upgrade import UPGRADE_PATH, UpgradeEndpoint, record_of
from dbproxy.lab.upgrade_record import Upgrade
from dbproxy.lab.webapi import Answer, WebOptions

MAX_RECORDS: Final = 1000
"""How many requests are remembered."""


class WebServer:
    """Serves HTTP/1.1 connections.

    Args:
        cluster: the cluster's name.
        address: returns where the Proxy listens.
        options: what the API says.

    Attributes:
        options: what the API says from the next request on.
        requests: targets of the latest requests, oldest first.
        upgrades: the latest requests for a connection upgrade, oldest first.
    """

    def __init__(self, cluster: str, address: Callable[[], str], options: WebOptions) -> None:
        self._cluster = cluster
        self._address = address
        self.options = options
        self.requests: deque[str] = deque(maxlen=MAX_RECORDS)
        self.upgrades: deque[Upgrade] = deque(maxlen=MAX_RECORDS)

    async def serve(
        self,
        stream: trio.abc.HalfCloseableStream,
        connection: trio.SocketStream,
        peer: str,
        upgrades: UpgradeEndpoint | None,
    ) -> None:
        """Serves one connection to its end.

        Args:
            stream: where requests come from; not owned.
            connection: the TCP connection at the bottom.
            peer: the client's address.
            upgrades: serves upgrade requests; ``None`` inside of an upgraded connection.

        Raises:
            LabError: the client does not speak HTTP, or what it upgraded to has failed.
        """
        http = HttpConnection(stream)
        while (request := await http.receive()) is not None:
            path = self._note(request)
            if path == UPGRADE_PATH and upgrades is not None:
                record = record_of(request, peer)
                self.upgrades.append(record)
                await upgrades.serve(http, stream, connection, record)
                return
            await self._send(stream, http, self._answer(path))

    def _note(self, request: h11.Request) -> str:
        target = request.target.decode("latin-1")
        self.requests.append(target)
        return target.partition("?")[0]

    def _answer(self, path: str) -> Answer:
        if path == webapi.FIND_PATH:
            return webapi.find(self.options, cluster=self._cluster, address=self._address())
        if path == webapi.PING_PATH or path.startswith(webapi.PING_PATH + "/"):
            return webapi.ping(self.options, cluster=self._cluster, address=self._address())
        return Answer(HTTPStatus.NOT_FOUND, b"404 page not found\n", b"text/plain")

    async def _send(
        self, stream: trio.abc.SendStream, http: HttpConnection, answer: Answer
    ) -> None:
        headers: Headers = [
            (b"Content-Type", answer.content_type),
            (b"Date", webapi.date_header(self.options)),
        ]
        if not answer.endless:
            await stream.send_all(http.answer(answer.status, headers, answer.body))
            return
        await stream.send_all(http.head(answer.status, headers))
        while True:
            await stream.send_all(http.data(answer.body))
