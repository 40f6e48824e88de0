"""SSH: a client's greeting. A server may send lines of text before its own (RFC 4253 §4.2)."""

from dbproxy.errors import DBProxyError
from dbproxy.protocols.wire.base import Wire, one_line, starts

__all__ = ["SSH"]


class SSH(Wire):
    """SSH."""

    beginning = "an SSH greeting"

    def begins(self, data: bytes) -> bool | None:
        return starts(data, b"SSH-")

    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        del received
        return one_line(error).encode() + b"\r\n"
