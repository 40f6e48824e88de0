"""TLS: how a client begins a handshake, and the alert that ends it."""

from typing import Final

from dbproxy.errors import DBProxyError
from dbproxy.protocols.wire.base import Wire, starts

__all__ = ["TLS"]

_HANDSHAKE_FAILURE: Final = b"\x15\x03\x03\x00\x02\x02\x28"
"""A fatal handshake_failure alert in the clear (RFC 8446 §6): a TLS client reports it."""


class TLS(Wire):
    """A TLS handshake, any version 3.x (RFC 8446 §5.1)."""

    beginning = "a TLS handshake"

    def begins(self, data: bytes) -> bool | None:
        return starts(data, b"\x16\x03")

    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        del received, error
        return _HANDSHAKE_FAILURE
