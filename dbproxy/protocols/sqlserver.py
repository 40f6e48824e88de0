"""SQL Server: PRELOGIN, where TLS is agreed upon, LOGIN7, and the error token that says no.

The client speaks first. What its messages mean depends on the mode; Teleport has no passthrough for
this protocol (`tool/tsh/common/db.go`):

| client's message            | terminate                           | tunnel                    |
|-----------------------------|-------------------------------------|---------------------------|
| PRELOGIN, TLS not supported | told that TLS is required           | told that there is no TLS |
| PRELOGIN, TLS off           | told that TLS is required; then TLS | told that there is no TLS |
| PRELOGIN, TLS on            | told that there is TLS; then TLS    | told so, and goes away    |
| ClientHello (TDS 8.0)       | TLS ends here, PRELOGIN inside      | refused with a TLS alert  |
| LOGIN7                      | carried, if inside TLS              | carried                   |

TLS begins inside of TDS packets, except in TDS 8.0, and covers the whole connection either way.

PRELOGIN is always answered here. Only a client that has sent its LOGIN7 prints an error, so
Teleport is dialled when that is here. Teleport's own handler reads a PRELOGIN, answers it with
constants, and leaves LOGIN7 to the database service (`lib/srv/db/sqlserver/proxy.go`); it gets a
PRELOGIN of our own making, since it does not look at what the client's says.

UNVERIFIED: which encryption Teleport's answer names (if it required TLS, that would be refused
here); what a TDS 8.0 client expects of that option, which has no meaning there: it is told `on` if
it said so itself, else that there is none.

Tested in `tests/unit/protocols/test_sqlserver.py`, split at every byte, and with python-tds in
`tests/integration/test_sqlserver.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Final

from dbproxy.errors import ClientError, Code, DBProxyError, UpstreamError
from dbproxy.protocols.base import (
    Carry,
    Conversation,
    DatabaseProtocol,
    PrologueEvent,
    Reply,
    Say,
    StartTLS,
)
from dbproxy.protocols.client_command import ClientCommand
from dbproxy.protocols.connection_facts import ConnectionFacts
from dbproxy.protocols.first_words import FirstWords, begins_tls
from dbproxy.protocols.misuse import foreign, tls_declined, tls_missing
from dbproxy.protocols.sqlserver_client import (
    sqlserver_client,
    sqlserver_uris,
    sqlserver_variables,
)
from dbproxy.protocols.uris import URI
from dbproxy.protocols.wire import one_line, shortened
from dbproxy.protocols.wire.tds_packets import (
    LOGIN7,
    PRELOGIN,
    SERVER_VERSION,
    TABULAR_RESULT,
    Encryption,
    MalformedTDSError,
    Message,
    MessageReader,
    encode_message,
    encryption_of,
    error_text,
    login_error,
    prelogin,
    tds_version,
    user_and_database,
)
from dbproxy.settings import Mode

__all__ = ["SQLServer", "SQLServerPrelogin", "SQLServerPrologue"]

_NAME: Final = "SQL Server"
_CLIENT_VERSION: Final = bytes(6)
_NEWEST: Final = 0x74000004
"""The TDS version (7.4) that a refusal is written in for a client that has not told its own."""
_WANTS_TLS: Final = (Encryption.ON, Encryption.REQUIRED)


class _State(Enum):
    OPEN = auto()
    """PRELOGIN, a ClientHello or LOGIN7 is awaited."""
    AGREED = auto()
    """PRELOGIN has been answered, LOGIN7 is awaited."""
    DONE = auto()
    """An event said what to do; nothing more is read here."""


class SQLServerPrologue(FirstWords):
    """Reads the first messages of one client."""

    def __init__(self, mode: Mode, *, inside_tls: bool = False) -> None:
        super().__init__(_NAME, mode, inside_tls=inside_tls)
        self._reader = MessageReader()
        self._state = _State.OPEN
        self._version = _NEWEST
        self._parting: ClientError | None = None

    @property
    def parting(self) -> ClientError | None:
        return self._parting

    def _read(self, data: bytes) -> Sequence[PrologueEvent]:
        self._reader.feed(data)
        return list(self._events())

    def _events(self) -> Iterator[PrologueEvent]:
        if self._state is _State.OPEN and begins_tls(self._kept):
            self._state = _State.DONE
            yield self._on_client_hello(self._reader.take_rest())
        while self._state in (_State.OPEN, _State.AGREED):
            message = self._next_message()
            if message is None:
                return
            yield from self._on_message(message)

    def _next_message(self) -> Message | None:
        beginning = self._kept
        if self._state is _State.AGREED and beginning and beginning[0] != LOGIN7:
            raise foreign(_NAME, None, beginning, did="went on with")
        if not beginning or beginning[0] in (PRELOGIN, LOGIN7):
            with suppress(MalformedTDSError):  # another protocol may begin like that, too
                return self._reader.next_message()
        self._check_foreign(beginning)
        return None

    def _on_message(self, message: Message) -> Sequence[PrologueEvent]:
        if message.kind == LOGIN7:
            return [self._on_login(message)]
        try:
            wanted = encryption_of(message.payload)
        except MalformedTDSError as error:
            raise ClientError(Code.CLIENT_PROTOCOL_ERROR, f"the client sent {error}") from error
        self._state = _State.AGREED
        if self._inside_tls:
            has_tls = wanted is Encryption.ON
            return [_answer(Encryption.ON if has_tls else Encryption.NOT_SUPPORTED)]
        if self._mode is Mode.TERMINATE:
            return self._agree_on_tls(wanted)
        if wanted in _WANTS_TLS:
            self._parting = tls_declined()
        return [_answer(Encryption.NOT_SUPPORTED)]

    def _agree_on_tls(self, wanted: Encryption) -> Sequence[PrologueEvent]:
        if wanted is Encryption.NOT_SUPPORTED:
            self._parting = ClientError(
                Code.CLIENT_NOT_TLS,
                "the client does not use TLS, was told that this port requires it, and went away",
            )
            return [_answer(Encryption.REQUIRED)]
        self._state = _State.DONE
        answer = Encryption.REQUIRED if wanted is Encryption.OFF else Encryption.ON
        return [_answer(answer), StartTLS(self._reader.take_rest(), in_tds_packets=True)]

    def _on_login(self, message: Message) -> PrologueEvent:
        self._state = _State.DONE
        self._version = tds_version(message.payload)
        if self._mode is not Mode.TUNNEL and not self._inside_tls:
            raise tls_missing()
        user, database = user_and_database(message.payload)
        return Carry(
            message.raw + self._reader.take_rest(),
            authenticate=True,
            conversation=SQLServerPrelogin,
            user=user,
            database=database,
        )

    @property
    def _kept(self) -> bytes:
        return self._reader.beginning

    def _refusal_in_own_words(self, error: DBProxyError) -> bytes:
        return login_error(one_line(error), self._version)


class SQLServerPrelogin(Conversation):
    """The PRELOGIN with an upstream that has authenticated us; the client knows nothing of it."""

    hears_client = False

    def __init__(self) -> None:
        self._reader = MessageReader()
        self._over = False

    def begin(self) -> Say:
        request = prelogin(_CLIENT_VERSION, Encryption.NOT_SUPPORTED)
        return Say(to_upstream=encode_message(PRELOGIN, request))

    def from_client(self, data: bytes) -> Say:
        return Say(to_upstream=data)

    def from_upstream(self, data: bytes) -> Say:
        if self._over:
            return Say(to_client=data)
        self._reader.feed(data)
        try:
            if (beginning := self._reader.beginning) and beginning[0] != TABULAR_RESULT:
                raise MalformedTDSError(f"a message of type {beginning[0]}")
            if (message := self._reader.next_message()) is None:
                return Say()
            _check(message)
        except MalformedTDSError as error:
            raise _broken(f"began the SQL Server protocol with {error}") from error
        self._over = True
        return Say(to_client=self._reader.take_rest())

    @property
    def over(self) -> bool:
        return self._over

    def refusal(self, error: DBProxyError) -> bytes:
        return b""  # the client does not hear this conversation


def _check(answer: Message) -> None:
    if (text := error_text(answer.payload)) is not None:
        raise _broken(f"said instead of an answer to PRELOGIN: {shortened(text)}")
    if encryption_of(answer.payload) in _WANTS_TLS:
        raise _broken(
            "wants TLS inside of the SQL Server protocol, though we have shown our certificate"
        )


def _broken(how: str) -> UpstreamError:
    return UpstreamError(Code.UPSTREAM_PROTOCOL_ERROR, f"the Teleport Proxy {how}")


def _answer(encryption: Encryption) -> Reply:
    return Reply(encode_message(TABULAR_RESULT, prelogin(SERVER_VERSION, encryption)))


class SQLServer(DatabaseProtocol):
    """Microsoft SQL Server."""

    name = "sqlserver"
    readable_name = _NAME
    alpn = ("teleport-sqlserver-ping", "teleport-sqlserver")
    default_port = 1433
    passthrough = False
    session_awaits_client = True  # Teleport, lib/srv/db/sqlserver/proxy.go

    def prologue(self, mode: Mode, *, inside_tls: bool = False) -> SQLServerPrologue:
        return SQLServerPrologue(mode, inside_tls=inside_tls)

    def server_alpn(self) -> bytes | None:
        return b"tds/8.0"

    def client(self, facts: ConnectionFacts) -> ClientCommand:
        return sqlserver_client(facts)

    def variables(self, facts: ConnectionFacts) -> Mapping[str, str | None]:
        return sqlserver_variables(facts)

    def uris(self, facts: ConnectionFacts) -> Mapping[str, URI]:
        return sqlserver_uris(facts)
