"""One HTTP/1.1 exchange: a request, and the answer to it.

It serves the questions to a Teleport Proxy, the CONNECT to an outbound proxy and the connection
upgrade. The grammar is h11's. Added to it is what a connection to the wrong port needs: an answer
that cannot be HTTP is noticed by its first bytes, not by a time-out, and named for what it looks
like. And after an answer that switches protocols, the bytes behind it belong to the next protocol:
they are handed out, never lost.

Memory is bounded: the header section by h11 (16 KiB), the body by the caller.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import h11

from dbproxy._version import __version__
from dbproxy.relay import LayeredStream
from dbproxy.upstream.recognise import recognise

__all__ = ["BrokenOffError", "HTTPError", "HTTPRequest", "HTTPResponse", "exchange", "looks_like"]

Headers = Sequence[tuple[str, str]]

_START: Final = b"HTTP/"
_MAX_BODY: Final = 64 * 1024
"""Bytes; enough for the page that comes with a refusal, none of which is shown."""
_MAX_REASON: Final = 100
"""Characters of a reason: it is quoted in messages."""
_MAX_INTERIM_ANSWERS: Final = 10
"""Answers such as `100 Continue` before the final one; more is an attempt to keep us busy."""
_BEGINNINGS: Final = (
    (b"\x15\x03", "a TLS server that was spoken to without TLS"),
    (b"\x16\x03", "a TLS server that was spoken to without TLS"),
    (b"\x05", "a SOCKS5 proxy"),
    (b"<", "a server that sends a web page without HTTP"),
)
"""What `recognise` does not name, since it looks at what answers where TLS is expected."""


class HTTPError(Exception):
    """The peer's answer is not one of HTTP/1.1, or is longer than we take."""


class BrokenOffError(HTTPError):
    """The peer ended before its answer was complete, as what is being restarted may do."""


@dataclass(frozen=True, slots=True)
class HTTPRequest:
    """A request without a body.

    Attributes:
        method: `GET` or `CONNECT`.
        target: The path; for CONNECT, host and port.
        host: What the `Host` header says: host and port.
        headers: All others, except `User-Agent`. Those that authenticate are kept out of `repr`.
    """

    method: str
    target: str
    host: str
    headers: Headers = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class HTTPResponse:
    """An answer.

    Attributes:
        status: Such as 200.
        reason: The words behind it, possibly none; cut off where they are too many.
        headers: In the order of arrival, the names in lower case.
        body: Empty when protocols were switched.
        trailing: The bytes behind the answer that have been received already.
    """

    status: int
    reason: str
    headers: Headers
    body: bytes
    trailing: bytes

    def values(self, name: str) -> list[str]:
        """The values of all headers called `name`, which is in lower case."""
        return [value for header, value in self.headers if header == name]

    def value(self, name: str) -> str | None:
        """The value of the first header called `name`, which is in lower case."""
        return next(iter(self.values(name)), None)

    def __str__(self) -> str:
        """Status and reason, as people know them: `404 Not Found`."""
        return f"{self.status} {self.reason}".strip()


async def exchange(
    stream: LayeredStream, request: HTTPRequest, *, max_body: int = _MAX_BODY
) -> HTTPResponse:
    """Send a request and receive the whole answer to it.

    The answer to a CONNECT that succeeds, and one with status 101, ends with its headers. Cancelled
    or failed, the stream is good for nothing but being closed. There is no time-out here.

    Args:
        stream: A connection on which no exchange is under way.
        request: What is asked.
        max_body: The most bytes of a body to take.

    Raises:
        HTTPError: The answer is not HTTP/1.1 or is too long; `BrokenOffError`: it has no end.
        LayerError: As for any use of the stream.
        trio.BrokenResourceError: The same.
    """
    connection = h11.Connection(h11.CLIENT)
    # h11 returns None only for a connection that is being closed, which this one is not.
    outgoing = [connection.send(event) or b"" for event in _request_events(request)]
    await stream.send_all(b"".join(outgoing))
    answer = _Answer(connection, max_body)
    while not answer.complete:
        answer.receive(await stream.receive_some())
    return answer.response()


def _request_events(request: HTTPRequest) -> Iterable[h11.Request | h11.EndOfMessage]:
    headers = [("Host", request.host), ("User-Agent", f"dbproxy/{__version__}"), *request.headers]
    yield h11.Request(method=request.method, target=request.target, headers=headers)
    yield h11.EndOfMessage()


class _Answer:
    """Reads the answer: bytes in, a response out."""

    def __init__(self, connection: h11.Connection, max_body: int) -> None:
        self._connection = connection
        self._max_body = max_body
        self._beginning = b""
        self._interim_answers = 0
        self._head: h11.Response | h11.InformationalResponse | None = None
        self._body = bytearray()
        self.complete = False

    def receive(self, data: bytes) -> None:
        if not data and self._head is None:
            raise BrokenOffError(self._broken_off())
        self._check_beginning(data)
        try:
            self._connection.receive_data(data)
            self._take_events()
        except h11.RemoteProtocolError as error:
            raise HTTPError(f"its answer is not valid HTTP/1.1: {error}") from error

    def _broken_off(self) -> str:
        when = "in the middle of its answer" if self._beginning else "without an answer"
        return f"it closed the connection {when}"

    def _check_beginning(self, data: bytes) -> None:
        """Notice at once what is not HTTP; h11 would wait for an empty line."""
        missing = len(_START) - len(self._beginning)
        if missing > 0:
            self._beginning += data[:missing]
            if not _START.startswith(self._beginning):
                kind = looks_like(self._beginning)
                raise HTTPError("it does not speak HTTP" + (f": it looks like {kind}" * bool(kind)))

    def _take_events(self) -> None:
        while not self.complete:
            event = self._connection.next_event()
            if event is h11.NEED_DATA:
                return
            self._take_event(event)

    def _take_event(self, event: object) -> None:
        if isinstance(event, h11.InformationalResponse):
            self._take_interim(event)
        elif isinstance(event, h11.Response):
            self._head = event
            self.complete = self._switched
        elif isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > self._max_body:
                raise HTTPError(f"its answer is longer than {self._max_body} bytes")
        else:
            self.complete = True

    def _take_interim(self, event: h11.InformationalResponse) -> None:
        if self._switched:
            self._head = event
            self.complete = True
            return
        self._interim_answers += 1
        if self._interim_answers > _MAX_INTERIM_ANSWERS:
            raise HTTPError("it sends one interim answer after the other")

    @property
    def _switched(self) -> bool:
        return self._connection.their_state is h11.SWITCHED_PROTOCOL

    def response(self) -> HTTPResponse:
        assert self._head is not None  # noqa: S101 - complete means that it has come
        trailing, _ended = self._connection.trailing_data
        return HTTPResponse(
            self._head.status_code,
            self._head.reason.decode("ascii", "replace")[:_MAX_REASON],
            [(name.decode("ascii"), value.decode("latin-1")) for name, value in self._head.headers],
            bytes(self._body),
            trailing,
        )


def looks_like(beginning: bytes) -> str | None:
    """What kind of server sends such bytes, or None when that is HTTP, or not known."""
    if beginning.startswith(_START):
        return None
    found = (kind for start, kind in _BEGINNINGS if beginning.startswith(start))
    return next(found, None) or recognise(beginning)
