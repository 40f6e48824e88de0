"""PostgreSQL: the ErrorResponse, and how a client that asks another port is told.

libpq hides the text of an error that comes before TLS is agreed upon (CVE-2024-10977), and other
drivers make nothing of it at all. So a request for encryption is declined, and the StartupMessage
that follows gets the error. A client that insists on TLS goes away before.

What the first packets mean on PostgreSQL's own port is told by `dbproxy.protocols.postgres`.
"""

import struct
from typing import Final

from dbproxy.errors import Code, DBProxyError
from dbproxy.protocols.wire.base import Answering, Wire, shortened

__all__ = [
    "GSSENC_REQUEST",
    "SSL_REQUEST",
    "PostgresWire",
    "error_message",
    "error_response",
    "sqlstate_of",
]

SSL_REQUEST: Final = 1234 << 16 | 5679
GSSENC_REQUEST: Final = 1234 << 16 | 5680
"""Codes of packets that consist of nothing but their header."""
_REQUEST_SIZE: Final = 8
_REQUESTS: Final = tuple(
    struct.pack(">II", _REQUEST_SIZE, code) for code in (SSL_REQUEST, GSSENC_REQUEST)
)

_SIZES: Final = range(8, 10_000 + 1)
"""Of a client's first packet; MAX_STARTUP_PACKET_LENGTH (`src/include/libpq/pqcomm.h`)."""
_MAJOR_VERSIONS: Final = frozenset({2, 3, 1234})
"""In the upper half of the code; 1234 is for requests that are none."""

_SQLSTATES: Final = {
    Code.OUTBOUND_PROXY_UNREACHABLE: "08001",
    Code.OUTBOUND_PROXY_REFUSED: "08001",
    Code.UPSTREAM_UNREACHABLE: "08001",
    Code.UPSTREAM_UNTRUSTED: "08001",
    Code.UPSTREAM_CHAIN_INCOMPLETE: "08001",
    Code.UPSTREAM_SELF_SIGNED: "08001",
    Code.UPSTREAM_CERTIFICATE_EXPIRED: "08001",
    Code.UPSTREAM_CERTIFICATE_NOT_YET_VALID: "08001",
    Code.UPSTREAM_NAME_MISMATCH: "08001",
    Code.UPSTREAM_NAME_MISSING: "08001",
    Code.UPSTREAM_CERTIFICATE_PURPOSE: "08001",
    Code.UPSTREAM_SIGNATURE_WEAK: "08001",
    Code.UPSTREAM_KEY_WEAK: "08001",
    Code.UPSTREAM_PIN_MISMATCH: "08001",
    Code.UPSTREAM_TLS_TOO_OLD: "08001",
    Code.UPSTREAM_NOT_TELEPORT: "08001",
    Code.UPSTREAM_TLS_FAILED: "08001",
    Code.ALPN_NOT_SUPPORTED: "08001",
    Code.TLS_ROUTING_OFF: "08001",
    Code.UPGRADE_FAILED: "08001",
    Code.TOO_MANY_FILES: "53000",  # insufficient resources
    Code.UPSTREAM_CLOSED_EARLY: "08006",
    Code.UPSTREAM_PROTOCOL_ERROR: "08006",
    Code.UPSTREAM_LOST: "08006",
    Code.UPSTREAM_SILENT: "08006",
    Code.CERTIFICATE_EXPIRED: "57P03",  # cannot connect now: ours, until tbot has renewed it
    Code.CERTIFICATE_NOT_YET_VALID: "57P03",
    Code.SERVICE_NOT_FOUND: "3D000",
    Code.CONNECTION_LIMIT: "53300",
    Code.CLIENT_PROTOCOL_ERROR: "08P01",
    Code.CLIENT_TLS_ON_TUNNEL: "08P01",
    Code.CLIENT_STALLED: "08P01",
    Code.INTERNAL_ERROR: "XX000",
}
_SQLSTATE_NOT_AUTHORIZED: Final = "28000"
"""invalid_authorization_specification: who is not let in, and all that waiting does not mend."""


def sqlstate_of(code: Code) -> str:
    """The SQLSTATE that a client is told for a problem (PostgreSQL documentation, appendix A)."""
    return _SQLSTATES.get(code, _SQLSTATE_NOT_AUTHORIZED)


def error_response(sqlstate: str, message: str, hint: str) -> bytes:
    """An ErrorResponse with severity FATAL."""
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": message, "H": hint}
    body = b"".join(
        key.encode() + value.replace("\0", " ").encode() + b"\0" for key, value in fields.items()
    )
    body += b"\0"
    return b"E" + (len(body) + 4).to_bytes(4, "big") + body


def error_message(error: DBProxyError) -> bytes:
    """The ErrorResponse for a problem."""
    message = f"dbproxy: {shortened(error.message)} [{error.code}]"
    return error_response(sqlstate_of(error.code), message, error.problem.client_hint)


class PostgresWire(Wire):
    """PostgreSQL: the first packet of a client has no type, but length and code."""

    beginning = "a PostgreSQL packet"

    def begins(self, data: bytes) -> bool | None:
        if any(data[:2]):
            return False
        if len(data) >= 4 and int.from_bytes(data[:4], "big") not in _SIZES:
            return False
        if len(data) < 8:
            return None
        return int.from_bytes(data[4:6], "big") in _MAJOR_VERSIONS

    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        return _Refusing(error).answer(received)

    def further(self, received: bytes, error: DBProxyError) -> Answering:
        refusing = _Refusing(error)
        refusing.answer(received)  # the refusal has done so
        return refusing.answer


class _Refusing:
    """Declines encryption, until something else comes; that is the last thing that is answered."""

    def __init__(self, error: DBProxyError) -> None:
        self._error = error
        self._buffer = b""
        self._answered = False

    def answer(self, data: bytes) -> bytes:
        """What is said to these bytes."""
        if self._answered:
            return b""
        self._buffer += data
        declined = b""
        while self._buffer.startswith(_REQUESTS):
            self._buffer = self._buffer[_REQUEST_SIZE:]
            declined += b"N"
        if len(self._buffer) < _REQUEST_SIZE:
            return declined
        self._buffer, self._answered = b"", True
        return declined + error_message(self._error)
