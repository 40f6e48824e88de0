"""The server's side of one HTTP/1.1 connection, over any stream."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final, TypeAlias

import h11
import trio

from dbproxy.lab.errors import LabError
from dbproxy.lab.streams import READ_SIZE

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]
MAX_HEAD_SIZE: Final = 64 * 1024


class HttpError(LabError):
    """The peer does not speak HTTP/1.1; it has been told."""


class HttpConnection:
    """Reads requests and makes answers.

    Args:
        stream: where requests come from; not owned.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_SIZE)

    async def receive(self) -> h11.Request | None:
        """Returns the next request, whose body it drops; ``None`` at the end of the connection.

        Raises:
            HttpError: the bytes are not a request.
        """
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        if self._http.our_state is not h11.IDLE:
            return None
        request = await self._next_event()
        if not isinstance(request, h11.Request):
            return None
        while isinstance(await self._next_event(), h11.Data):
            pass
        return request

    def answer(self, status: int, headers: Headers = (), body: bytes = b"") -> bytes:
        """Returns a whole answer, with its length."""
        return (
            self.head(status, [*headers, (b"Content-Length", b"%d" % len(body))])
            + self.data(body)
            + self.end()
        )

    def head(self, status: int, headers: Headers = ()) -> bytes:
        """Returns the head of an answer; without a length the body is chunked."""
        response = h11.Response(status_code=status, headers=list(headers), reason=_reason(status))
        return self._http.send(response) or b""

    def data(self, body: bytes) -> bytes:
        """Returns a part of an answer's body as it goes over the wire."""
        return self._http.send(h11.Data(data=body)) or b""

    def end(self) -> bytes:
        """Returns what ends an answer's body."""
        return self._http.send(h11.EndOfMessage()) or b""

    def switch(self, headers: Headers) -> bytes:
        """Returns the answer 101, after which the connection is not HTTP any more."""
        response = h11.InformationalResponse(
            status_code=101, headers=list(headers), reason=_reason(101)
        )
        return self._http.send(response) or b""

    def rest(self) -> bytes:
        """Returns what the client sent after its request, once the connection is not HTTP."""
        return bytes(self._http.trailing_data[0])

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                await self._stream.send_all(self._refusal())
                raise HttpError(f"not HTTP/1.1: {error}") from error
            if isinstance(event, type) and issubclass(event, h11.NEED_DATA):
                self._http.receive_data(bytes(await self._stream.receive_some(READ_SIZE)))
            else:
                return event

    def _refusal(self) -> bytes:
        if self._http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return b""
        return self.answer(HTTPStatus.BAD_REQUEST, [(b"Connection", b"close")])


def header(request: h11.Request, name: str) -> bytes:
    """Returns a header's values joined by commas, empty when it is missing."""
    wanted = name.lower().encode()
    return b",".join(value for key, value in request.headers if key == wanted)


def headers_of(request: h11.Request) -> dict[str, str]:
    """Returns all headers, names in lower case, repeated ones joined by commas."""
    names = dict.fromkeys(key.decode("latin-1") for key, _ in request.headers)
    return {name: header(request, name).decode("latin-1") for name in names}


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
