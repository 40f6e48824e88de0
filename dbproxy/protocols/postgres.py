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
port gets a TLS alert, which is what it understands, and a client of another protocol is told in its
own words, where it is recognised.

Tested in `tests/unit/protocols/test_postgres.py`, split at every byte, and with real clients in
`tests/integration/`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum, auto
from typing import Final

from dbproxy.errors import ClientError, Code, DBProxyError
from dbproxy.protocols.base import (
    Carry,
    DatabaseProtocol,
    PrologueEvent,
    Reply,
    StartTLS,
    UpstreamGreeting,
)
from dbproxy.protocols.client_command import ClientCommand
from dbproxy.protocols.connection_facts import ConnectionFacts
from dbproxy.protocols.first_words import FirstWords, begins_tls
from dbproxy.protocols.libpq import libpq_conninfo, libpq_uris, libpq_variables
from dbproxy.protocols.misuse import foreign, tls_declined, tls_missing
from dbproxy.protocols.postgres_verdict import PostgresVerdictReader
from dbproxy.protocols.uris import URI
from dbproxy.protocols.wire.postgres import GSSENC_REQUEST, SSL_REQUEST, error_message
from dbproxy.settings import Mode

__all__ = ["Postgres", "PostgresPrologue"]

_CANCEL_REQUEST: Final = 1234 << 16 | 5678
_PROTOCOL_3: Final = 3

_SSL_REQUEST_PACKET: Final = (8).to_bytes(4, "big") + SSL_REQUEST.to_bytes(4, "big")
_HEADER_SIZE: Final = 8
_BEGINNINGS: Final = (b"", b"\0", b"\0\0", b"\x16")
"""How a packet's length begins, whose upper half is always 0; the last one begins a ClientHello."""
_CANCEL_SIZES: Final = range(16, 268 + 1)
"""Process id and a secret key of 4 to 256 bytes (protocol 3.2)."""
_MAX_STARTUP_SIZE: Final = 10_000
"""MAX_STARTUP_PACKET_LENGTH of the PostgreSQL server (`src/include/libpq/pqcomm.h`)."""

_SOCKET_PREFIX: Final = ".s.PGSQL."
"""libpq finds a Unix socket by directory and port (PostgreSQL documentation, 32.1.2, `host`)."""
_SOCKET_NAME: Final = re.compile(rf"{re.escape(_SOCKET_PREFIX)}([1-9][0-9]{{0,4}})")
_HIGHEST_PORT: Final = 65535


class _State(Enum):
    OPEN = auto()
    """The first packet, or the next one after an `N`, is awaited."""
    DONE = auto()
    """An event said what to do; nothing more is read here."""
    CANCELLING = auto()
    """The client sent a CancelRequest, which is never answered."""


class PostgresPrologue(FirstWords):
    """Reads the first packets of one client."""

    def __init__(
        self, mode: Mode, *, inside_tls: bool = False, readable_name: str = "PostgreSQL"
    ) -> None:
        super().__init__(readable_name, mode, inside_tls=inside_tls)
        self._buffer = b""
        self._state = _State.OPEN
        self._declined: set[int] = set()

    def _read(self, data: bytes) -> Sequence[PrologueEvent]:
        self._buffer += data
        return list(self._events())

    def _events(self) -> Iterator[PrologueEvent]:
        while self._state is _State.OPEN and (packet := self._next_packet()) is not None:
            yield from self._on_packet(packet)

    def _next_packet(self) -> bytes | None:
        """The next whole packet, or None while it is incomplete; a ClientHello is cut nowhere."""
        if begins_tls(self._buffer):
            packet, self._buffer = self._buffer, b""
            return packet
        if self._buffer[:2] not in _BEGINNINGS:
            self._check_foreign(self._buffer)
            return None
        if len(self._buffer) < _HEADER_SIZE:
            return None
        length = int.from_bytes(self._buffer[:4], "big")
        if not _HEADER_SIZE <= length <= _MAX_STARTUP_SIZE:
            raise foreign(self._readable_name, None, self._buffer)
        if len(self._buffer) < length:
            return None
        packet, self._buffer = self._buffer[:length], self._buffer[length:]
        return packet

    def _on_packet(self, packet: bytes) -> Sequence[PrologueEvent]:
        if begins_tls(packet):
            return [self._on_client_hello(packet)]
        code = int.from_bytes(packet[4:8], "big")
        if code in (SSL_REQUEST, GSSENC_REQUEST) and len(packet) == _HEADER_SIZE:
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

    def _on_client_hello(self, received: bytes) -> PrologueEvent:
        self._state = _State.DONE
        event = super()._on_client_hello(received)
        if isinstance(event, Carry):
            # Teleport's handler waits for an SSLRequest, which such a client never sends.
            return replace(event, greeting=Postgres.starttls)
        return event

    def _on_encryption_request(self, code: int) -> Sequence[PrologueEvent]:
        name = "SSLRequest" if code == SSL_REQUEST else "GSSENCRequest"
        if code in self._declined or self._inside_tls:
            raise ClientError(
                Code.CLIENT_PROTOCOL_ERROR,
                f"the client sent {name} where it is not allowed"
                + (" (inside TLS)" if self._inside_tls else " (a second time)"),
            )
        if code == SSL_REQUEST and self._mode is Mode.PASSTHROUGH:
            self._state = _State.DONE
            first_flight, self._buffer = _SSL_REQUEST_PACKET + self._buffer, b""
            return [Carry(first_flight, authenticate=False)]
        if code == SSL_REQUEST and self._mode is Mode.TERMINATE:
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
            raise tls_missing()
        first_flight, self._buffer = packet + self._buffer, b""
        user, database = _user_and_database(packet)
        return [Carry(first_flight, authenticate=True, user=user, database=database)]

    @property
    def parting(self) -> ClientError | None:
        return tls_declined() if SSL_REQUEST in self._declined else None

    @property
    def _kept(self) -> bytes:
        return self._buffer

    def _refusal_in_own_words(self, error: DBProxyError) -> bytes:
        return b"" if self._state is _State.CANCELLING else error_message(error)


def _user_and_database(startup_message: bytes) -> tuple[str | None, str | None]:
    """The parameters `user` and `database`; without the second it is the first."""
    words = startup_message[_HEADER_SIZE:].split(b"\0")
    parameters = dict(zip(words[::2], words[1::2], strict=False))
    user = parameters.get(b"user")
    database = parameters.get(b"database") or user
    return _text(user), _text(database)


def _text(name: bytes | None) -> str | None:
    return name.decode(errors="replace") if name else None


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
        return PostgresPrologue(mode, inside_tls=inside_tls, readable_name=self.readable_name)

    def verdict_reader(self, *, rewrite: bool) -> PostgresVerdictReader:
        return PostgresVerdictReader(rewrite=rewrite)

    def server_alpn(self) -> bytes | None:
        return b"postgresql"

    def socket_name(self, port: int | str) -> str:
        return f"{_SOCKET_PREFIX}{port}"

    def port_of_socket(self, name: str) -> int | None:
        found = _SOCKET_NAME.fullmatch(name)
        return int(found[1]) if found is not None and int(found[1]) <= _HIGHEST_PORT else None

    def client(self, facts: ConnectionFacts) -> ClientCommand:
        return ClientCommand(("psql", libpq_conninfo(facts)))

    def variables(self, facts: ConnectionFacts) -> Mapping[str, str | None]:
        return libpq_variables(facts)

    def uris(self, facts: ConnectionFacts) -> Mapping[str, URI]:
        return libpq_uris(facts, dialect="postgresql")
