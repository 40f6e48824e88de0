"""HTTP/1.1: request lines, and a response that says no (RFC 9112).

Each protocol on top of HTTP has its own way to put an error into the body, so that its clients
print the text and not just the status.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from dbproxy.errors import DBProxyError
from dbproxy.protocols.wire.base import Sort, Wire, one_line, sort_of, starts

__all__ = ["Body", "HTTPWire", "as_json", "plain_text", "status_of"]

_METHODS: Final = (b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT")
_SCHEMES: Final = (b"http://", b"https://")
"""How targets begin: with a path, or with these in a whole URL. A person who talks with Redis at a
terminal may type `GET hello`."""
_LONGEST_START: Final = len(b"OPTIONS https://")

_STATUSES: Final = {
    Sort.DENIED: (403, "Forbidden"),
    Sort.NOT_READY: (503, "Service Unavailable"),
    Sort.UNREACHABLE: (502, "Bad Gateway"),
    Sort.MISUSE: (400, "Bad Request"),
    Sort.STALLED: (408, "Request Timeout"),
    Sort.INTERNAL: (500, "Internal Server Error"),
}

Body: TypeAlias = Callable[[DBProxyError, int], tuple[str, str, Mapping[str, str]]]
"""From the error and the status: content type, text, and further headers."""


def plain_text(error: DBProxyError, status: int) -> tuple[str, str, Mapping[str, str]]:
    """The body for whoever reads it."""
    del status
    return "text/plain; charset=utf-8", one_line(error) + "\n", {}


def status_of(error: DBProxyError) -> tuple[int, str]:
    """The status code and its reason phrase."""
    return _STATUSES[sort_of(error)]


class HTTPWire(Wire):
    """HTTP/1.1.

    Args:
        body: Makes the body of a refusal.
    """

    beginning = "an HTTP request"

    def __init__(self, body: Body = plain_text) -> None:
        self._body = body

    def begins(self, data: bytes) -> bool | None:
        method, space, target = data[:_LONGEST_START].partition(b" ")
        if not space:
            return None if any(known.startswith(method) for known in _METHODS) else False
        if method not in _METHODS:
            return False
        if method == b"CONNECT" or target[:1] in (b"/", b"*"):
            return True
        verdicts = [starts(target.lower(), scheme) for scheme in _SCHEMES]
        return None if None in verdicts and True not in verdicts else True in verdicts

    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        status, reason = status_of(error)
        content_type, text, more = self._body(error, status)
        body = text.encode()
        headers = {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Connection": "close",
            "Cache-Control": "no-store",
            **more,
        }
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{key}: {v}" for key, v in headers.items())]
        head = "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"
        return head if received.startswith(b"HEAD ") else head + body


def as_json(document: object) -> str:
    """One line of JSON with an end."""
    return json.dumps(document) + "\n"
