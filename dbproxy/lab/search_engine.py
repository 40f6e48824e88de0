"""A stand-in for a search engine behind the database service: documents, asked for by path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import trio

from dbproxy.lab.http_server import HttpConnection, HttpError

JSON: Final = [(b"Content-Type", b"application/json")]


class SearchEngine:
    """Answers GET requests, one after another on a connection.

    Args:
        documents: what each path has, as JSON would.
    """

    def __init__(self, documents: Mapping[str, object]) -> None:
        self._documents = documents

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serves one connection to its end and closes it."""
        async with stream:
            connection = HttpConnection(stream)
            try:
                while (request := await connection.receive()) is not None:
                    status, document = self._find(request.target.decode("ascii", "replace"))
                    body = json.dumps(document).encode()
                    await stream.send_all(connection.answer(status, JSON, body))
            except (trio.BrokenResourceError, HttpError):
                return  # the client is gone, or has been told

    def _find(self, target: str) -> tuple[int, object]:
        path = target.partition("?")[0]
        if path in self._documents:
            return HTTPStatus.OK, self._documents[path]
        reason = {"type": "resource_not_found_exception", "reason": f"no {path}"}
        return HTTPStatus.NOT_FOUND, {"error": reason, "status": HTTPStatus.NOT_FOUND}
