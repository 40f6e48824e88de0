"""PostgreSQL: the first packets of a connection and the ErrorResponse that says no.

A client opens with one of these (PostgreSQL documentation, "Message Formats"); the first four bytes
are the length, itself included, and the next four a code:

| packet           | length  | code      | answer                                              |
|------------------|---------|-----------|-----------------------------------------------------|
| SSLRequest       | 8       | 1234.5679 | one byte, `S` (the client starts TLS now) or `N`    |
| GSSENCRequest    | 8       | 1234.5680 | one byte, `G` or `N`                                |
| CancelRequest    | 16+     | 1234.5678 | none; the server closes                             |
| StartupMessage   | ≥ 9     | 3.x       | the authentication begins                           |
| TLS ClientHello  |         |           | "direct" TLS (PostgreSQL 17), ALPN `postgresql`     |

What each means depends on the mode:

| packet         | passthrough                      | terminate            | tunnel              |
|----------------|----------------------------------|----------------------|---------------------|
| SSLRequest     | carried; Teleport answers        | `S`, TLS ends here   | `N`, once           |
| GSSENCRequest  | `N`, once                        | `N`, once            | `N`, once           |
| CancelRequest  | carried with our certificate     | the same             | the same            |
| StartupMessage | refused: this port needs TLS     | carried, within TLS  | carried             |
| ClientHello    | SSLRequest made up, then carried | TLS ends here        | refused: plain port |

The refusal is an ErrorResponse. Before TLS libpq hides its text (CVE-2024-10977) and says "server
sent an error response during SSL exchange"; the log has the reason then. A TLS client on a tunnel
port gets a TLS alert, which is what it understands.

Tested in `tests/unit/protocols/test_postgres.py`, split at every byte, and with real clients in
`tests/integration/`.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import Final

from dbproxy.errors import ClientError, Code, DBProxyError
from dbproxy.protocols.base import (
    Carry,
    ConnectionFacts,
    DatabaseProtocol,
    Prologue,
    PrologueEvent,
    Reply,
    StartTLS,
    UpstreamGreeting,
)
from dbproxy.settings import Mode

__all__ = ["Postgres", "PostgresPrologue", "error_response", "sqlstate_of"]

_SSL_REQUEST: Final = 1234 << 16 | 5679
_GSSENC_REQUEST: Final = 1234 << 16 | 5680
_CANCEL_REQUEST: Final = 1234 << 16 | 5678
_PROTOCOL_3: Final = 3

_SSL_REQUEST_PACKET: Final = (8).to_bytes(4, "big") + _SSL_REQUEST.to_bytes(4, "big")
_HEADER_SIZE: Final = 8
_CANCEL_SIZES: Final = range(16, 268 + 1)
"""Process id and a secret key of 4 to 256 bytes (protocol 3.2)."""
_MAX_STARTUP_SIZE: Final = 10_000
"""MAX_STARTUP_PACKET_LENGTH of the PostgreSQL server (`src/include/libpq/pqcomm.h`)."""

_TLS_HANDSHAKE: Final = b"\x16\x03"
"""A TLS record of type handshake, any version 3.x (RFC 8446 §5.1)."""
_TLS_ALERT_HANDSHAKE_FAILURE: Final = b"\x15\x03\x03\x00\x02\x02\x28"
"""A fatal handshake_failure alert in the clear (RFC 8446 §6): a TLS client reports it."""

_SOCKET_PREFIX: Final = ".s.PGSQL."
"""libpq finds a Unix socket by directory and port (PostgreSQL documentation, 32.1.2, `host`)."""
_SOCKET_NAME: Final = re.compile(rf"{re.escape(_SOCKET_PREFIX)}([1-9][0-9]{{0,4}})")
_HIGHEST_PORT: Final = 65535

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
    Code.CLIENT_PROTOCOL_ERROR: "08P01",
    Code.CLIENT_TLS_ON_TUNNEL: "08P01",
    Code.CLIENT_STALLED: "08P01",
    Code.INTERNAL_ERROR: "XX000",
}
_SQLSTATE_NOT_AUTHORIZED: Final = "28000"
"""invalid_authorization_specification: all that is wrong with an identity, ours or the client's."""


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


class _State(Enum):
    OPEN = auto()
    """The first packet, or the next one after an `N`, is awaited."""
    DONE = auto()
    """An event said what to do; nothing more is read here."""
    CANCELLING = auto()
    """The client sent a CancelRequest, which is never answered."""
    SPEAKS_TLS = auto()
    """The client sent a ClientHello, so it understands alerts only."""


class PostgresPrologue(Prologue):
    """Reads the first packets of one client."""

    def __init__(self, mode: Mode, *, inside_tls: bool = False) -> None:
        self._mode = mode
        self._inside_tls = inside_tls
        self._buffer = b""
        self._state = _State.OPEN
        self._started = False
        self._declined: set[int] = set()

    @property
    def started(self) -> bool:
        return self._started

    def receive(self, data: bytes) -> Sequence[PrologueEvent]:
        self._started = self._started or bool(data)
        self._buffer += data
        return list(self._events())

    def _events(self) -> Iterator[PrologueEvent]:
        while self._state is _State.OPEN and (packet := self._next_packet()) is not None:
            yield from self._on_packet(packet)

    def _next_packet(self) -> bytes | None:
        """The next whole packet, or None while it is incomplete; a ClientHello is cut nowhere."""
        if self._buffer[:2] == _TLS_HANDSHAKE:
            packet, self._buffer = self._buffer, b""
            return packet
        if len(self._buffer) < _HEADER_SIZE:
            self._check_beginning()
            return None
        length = int.from_bytes(self._buffer[:4], "big")
        if not _HEADER_SIZE <= length <= _MAX_STARTUP_SIZE:
            raise self._not_postgres()
        if len(self._buffer) < length:
            return None
        packet, self._buffer = self._buffer[:length], self._buffer[length:]
        return packet

    def _check_beginning(self) -> None:
        """Recognise a foreign protocol by its first bytes: the length's upper half is always 0."""
        beginning = self._buffer[:2]
        if beginning not in (b"", b"\0", b"\0\0", _TLS_HANDSHAKE[:1]):
            raise self._not_postgres()

    def _not_postgres(self) -> ClientError:
        return ClientError(
            Code.CLIENT_PROTOCOL_ERROR,
            f"this port carries PostgreSQL, and the client began with {_what(self._buffer)}",
        )

    def _on_packet(self, packet: bytes) -> Sequence[PrologueEvent]:
        if packet[:2] == _TLS_HANDSHAKE:
            return self._on_client_hello(packet)
        code = int.from_bytes(packet[4:8], "big")
        if code in (_SSL_REQUEST, _GSSENC_REQUEST) and len(packet) == _HEADER_SIZE:
            return self._on_encryption_request(code)
        if code == _CANCEL_REQUEST and len(packet) in _CANCEL_SIZES:
            self._state = _State.CANCELLING
            return [Carry(packet, authenticate=True, reply_expected=False)]
        if code >> 16 == _PROTOCOL_3:
            return self._on_startup_message(packet)
        raise ClientError(
            Code.CLIENT_PROTOCOL_ERROR,
            f"the client asked for PostgreSQL protocol {code >> 16}.{code & 0xFFFF}, which is"
            " neither version 3 nor a known request",
        )

    def _on_client_hello(self, packet: bytes) -> Sequence[PrologueEvent]:
        self._state = _State.SPEAKS_TLS
        if self._inside_tls:
            raise ClientError(Code.CLIENT_PROTOCOL_ERROR, "the client began TLS inside TLS")
        if self._mode is Mode.TUNNEL:
            raise ClientError(
                Code.CLIENT_TLS_ON_TUNNEL,
                "the client began a TLS handshake, and this port takes plaintext (--tunnel)",
            )
        if self._mode is Mode.TERMINATE:
            self._state = _State.DONE
            return [StartTLS(packet)]
        # Teleport's PostgreSQL handler waits for an SSLRequest, which such a client never sends.
        return [Carry(packet, authenticate=False, greeting=Postgres.starttls)]

    def _on_encryption_request(self, code: int) -> Sequence[PrologueEvent]:
        name = "SSLRequest" if code == _SSL_REQUEST else "GSSENCRequest"
        if code in self._declined or self._inside_tls:
            raise ClientError(
                Code.CLIENT_PROTOCOL_ERROR,
                f"the client sent {name} where it is not allowed"
                + (" (inside TLS)" if self._inside_tls else " (a second time)"),
            )
        if code == _SSL_REQUEST and self._mode is Mode.PASSTHROUGH:
            self._state = _State.DONE
            first_flight, self._buffer = _SSL_REQUEST_PACKET + self._buffer, b""
            return [Carry(first_flight, authenticate=False)]
        if code == _SSL_REQUEST and self._mode is Mode.TERMINATE:
            return self._accept_tls()
        self._declined.add(code)
        return [Reply(b"N")]

    def _accept_tls(self) -> Sequence[PrologueEvent]:
        if self._buffer:
            # Bytes slipped in before TLS could otherwise pass for protected ones (CVE-2021-23214).
            raise ClientError(
                Code.CLIENT_PROTOCOL_ERROR,
                "the client sent unencrypted bytes behind its SSLRequest",
            )
        self._state = _State.DONE
        return [Reply(b"S"), StartTLS()]

    def _on_startup_message(self, packet: bytes) -> Sequence[PrologueEvent]:
        self._state = _State.DONE
        if self._mode is not Mode.TUNNEL and not self._inside_tls:
            raise ClientError(
                Code.CLIENT_NOT_TLS, "the client connected without TLS, and this port requires it"
            )
        first_flight, self._buffer = packet + self._buffer, b""
        user, database = _user_and_database(packet)
        return [Carry(first_flight, authenticate=True, user=user, database=database)]

    @property
    def parting(self) -> ClientError | None:
        if _SSL_REQUEST not in self._declined:
            return None
        return ClientError(
            Code.CLIENT_TLS_ON_TUNNEL,
            "the client asked for TLS, which this port declines (--tunnel), and went away",
        )

    def refusal(self, error: DBProxyError) -> bytes:
        if self._state is _State.CANCELLING or not self._started:
            return b""
        if self._state is _State.SPEAKS_TLS:
            return _TLS_ALERT_HANDSHAKE_FAILURE
        message = f"dbproxy: {error.message} [{error.code}]"
        return error_response(sqlstate_of(error.code), message, error.problem.client_hint)


def _user_and_database(startup_message: bytes) -> tuple[str | None, str | None]:
    """The parameters `user` and `database`; without the second it is the first."""
    words = startup_message[_HEADER_SIZE:].split(b"\0")
    parameters = dict(zip(words[::2], words[1::2], strict=False))
    user = parameters.get(b"user")
    database = parameters.get(b"database") or user
    return _text(user), _text(database)


def _text(name: bytes | None) -> str | None:
    return name.decode(errors="replace") if name else None


def _what(beginning: bytes) -> str:
    """The first bytes of a foreign protocol, in words."""
    if beginning.startswith((b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"CONN", b"PRI ")):
        return "an HTTP request"
    if beginning.startswith(b"SSH-"):
        return "an SSH greeting"
    return f"bytes of another protocol (0x{beginning[:8].hex()})"


class Postgres(DatabaseProtocol):
    """PostgreSQL (and what speaks its protocol)."""

    name = "postgres"
    readable_name = "PostgreSQL"
    # Teleport, lib/srv/alpnproxy/common/protocols.go; ping variants come first.
    alpn = ("teleport-postgres-ping", "teleport-postgres")
    default_port = 5432
    starttls = UpstreamGreeting(_SSL_REQUEST_PACKET, b"S")
    session_awaits_client = True  # Teleport, lib/srv/db/postgres/proxy.go

    def prologue(self, mode: Mode, *, inside_tls: bool = False) -> PostgresPrologue:
        return PostgresPrologue(mode, inside_tls=inside_tls)

    def server_alpn(self) -> bytes | None:
        return b"postgresql"

    def socket_name(self, port: int | str) -> str:
        return f"{_SOCKET_PREFIX}{port}"

    def port_of_socket(self, name: str) -> int | None:
        found = _SOCKET_NAME.fullmatch(name)
        return int(found[1]) if found is not None and int(found[1]) <= _HIGHEST_PORT else None

    def connect_command(self, facts: ConnectionFacts) -> str:
        parameters: dict[str, object] = {"host": facts.host}
        if facts.hostaddr is not None:
            parameters["hostaddr"] = facts.hostaddr
        parameters["port"] = facts.port
        if facts.user is not None:
            parameters["user"] = facts.user
        if facts.database is not None:
            parameters["dbname"] = facts.database
        if facts.mode is Mode.TUNNEL:
            parameters["sslmode"] = "disable"
        else:
            parameters["sslmode"] = "verify-full"
            # The system's roots, by this word since PostgreSQL 16.
            parameters["sslrootcert"] = "system" if facts.ca_file is None else facts.ca_file
            parameters["sslcert"] = facts.certificate_file
            parameters["sslkey"] = facts.key_file
        conninfo = " ".join(f"{key}={_conninfo_value(str(v))}" for key, v in parameters.items())
        return f"psql {shlex.quote(conninfo)}"


def _conninfo_value(value: str) -> str:
    """Quoted as libpq's connection strings want it (PostgreSQL documentation, 32.1.1.1)."""
    if value and not any(c.isspace() or c in "'\\" for c in value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
