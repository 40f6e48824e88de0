"""MySQL and MariaDB: the server's greeting, the client's answer to it, and the ERR packet.

The server speaks first, so Teleport is dialled before a client has said anything. What its answer
to the greeting means depends on the mode:

| the client's first packet | passthrough        | terminate          | tunnel              |
|---------------------------|--------------------|--------------------|---------------------|
| SSLRequest, then TLS      | carried            | TLS ends here      | refused: plain port |
| HandshakeResponse         | refused: needs TLS | refused: needs TLS | carried             |
| before the greeting       | refused            | refused            | refused             |

In passthrough the greeting, which offers TLS, is Teleport's. In the two other modes Teleport has
authenticated us already and offers none: with `--tunnel` its greeting is carried as it is, and with
`--terminate` TLS is added to what it offers; the login then goes on in `mysql_login.py`. In
`--tunnel` a client that requires TLS goes away by itself when it has read the greeting. Where an
upstream's greeting does offer TLS there, a client may take it.

Which version the greeting tells is Teleport's choice; in passthrough it can be told by one more
ALPN value (Teleport, lib/srv/alpnproxy/local_proxy_config_opt.go).

Tested in `tests/unit/protocols/test_mysql.py`, split at every byte, and with real clients in
`tests/integration/test_mysql.py`.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Final, Self

from dbproxy.errors import ClientError, Code, DBProxyError, UpstreamError
from dbproxy.protocols.base import (
    LONGEST_ALPN,
    Answering,
    Carry,
    DatabaseProtocol,
    Greeting,
    GreetingReader,
    Prologue,
    PrologueEvent,
    StartTLS,
)
from dbproxy.protocols.client_command import ClientCommand
from dbproxy.protocols.connection_facts import ConnectionFacts
from dbproxy.protocols.misuse import foreign, tls_inside_tls, tls_missing
from dbproxy.protocols.mysql_client import mysql_client, mysql_uris, mysql_variables
from dbproxy.protocols.mysql_login import MySQLLogin
from dbproxy.protocols.mysql_verdict import MySQLVerdictReader
from dbproxy.protocols.recognise import recognise_at_once
from dbproxy.protocols.uris import URI
from dbproxy.protocols.wire import Wire, shortened
from dbproxy.protocols.wire.mysql import refusal_packet
from dbproxy.protocols.wire.mysql_packets import (
    ERR,
    HEADER_SIZE,
    MalformedPacketError,
    Packet,
    PacketReader,
    encode_packet,
    error_text,
    greeting_offers_tls,
    is_tls_request,
    offering_tls,
    user_and_database,
)
from dbproxy.settings import Mode

__all__ = ["MySQL", "MySQLAnswer", "MySQLGreeting", "MySQLGreetingReader", "MySQLTooEarly"]

_ALPN: Final = "teleport-mysql"
_FIRST_ANSWER: Final = 1
"""The number of the client's first packet; the greeting has 0."""


class MySQLTooEarly(Prologue):
    """Takes what a client sends before it could have had a greeting: it speaks something else.

    The first bytes must do to recognise that: the client is not waited for.
    """

    def __init__(self) -> None:
        self._received = b""
        self._speaks: Wire | None = None

    @property
    def started(self) -> bool:
        return bool(self._received)

    def receive(self, data: bytes) -> Sequence[PrologueEvent]:
        self._received, self._speaks = data, recognise_at_once(data)
        raise foreign("MySQL, in which the server speaks first", self._speaks, data)

    def refusal(self, error: DBProxyError) -> bytes:
        if self._speaks is not None:
            return self._speaks.refusal(self._received, error)
        return refusal_packet(error, 0, greeted=False)

    def further(self, error: DBProxyError) -> Answering | None:
        return self._speaks.further(self._received, error) if self._speaks is not None else None


class MySQLAnswer(Prologue):
    """Reads a client's answer to the greeting.

    Args:
        greeting: What the upstream said.
        mode: The listener's mode.
        inside_tls: Whether the bytes come out of TLS that ends here.
    """

    def __init__(self, greeting: "MySQLGreeting", mode: Mode, *, inside_tls: bool = False) -> None:
        self._greeting = greeting
        self._mode = mode
        self._inside_tls = inside_tls
        self._reader = PacketReader()
        self._started = False
        self._last_sequence = _FIRST_ANSWER if inside_tls else 0
        self._in_tls_with_teleport = False

    @property
    def opening(self) -> bytes:
        if self._inside_tls:
            return b""  # the client has had it already
        packet = self._greeting.packet
        if self._mode is Mode.TERMINATE:
            packet = Packet(packet.sequence, offering_tls(packet.payload))
        return encode_packet(packet.sequence, packet.payload)

    @property
    def started(self) -> bool:
        return self._started

    @property
    def parting(self) -> ClientError | None:
        if self._started or self._greeting.offers_tls or self._mode is not Mode.TUNNEL:
            return None
        return ClientError(
            Code.CLIENT_TLS_ON_TUNNEL,
            "the client went away when it had read the greeting, as one does that requires TLS:"
            " this port offers none (--tunnel)",
        )

    def receive(self, data: bytes) -> Sequence[PrologueEvent]:
        self._started = self._started or bool(data)
        self._reader.feed(data)
        if self._reader.next_sequence not in (None, self._last_sequence + 1):
            raise self._not_mysql()
        try:
            packet = self._reader.next_packet()
        except MalformedPacketError as error:
            raise self._not_mysql() from error
        if packet is None:
            return ()
        self._last_sequence = packet.sequence
        if is_tls_request(packet.payload):
            return [self._on_tls_request(packet)]
        return [self._on_response(packet)]

    def _not_mysql(self) -> ClientError:
        beginning = self._reader.beginning
        wire = recognise_at_once(beginning)
        return foreign("MySQL", wire, beginning, did="answered the greeting with")

    def _on_tls_request(self, packet: Packet) -> PrologueEvent:
        if self._inside_tls:
            raise tls_inside_tls()
        if self._mode is Mode.TERMINATE:
            # What came behind it is the ClientHello: clients do not wait for an answer.
            return StartTLS(self._reader.take_rest())
        if self._mode is Mode.TUNNEL and not self._greeting.offers_tls:
            raise ClientError(
                Code.CLIENT_TLS_ON_TUNNEL,
                "the client began TLS, which this port does not offer (--tunnel)",
            )
        self._in_tls_with_teleport = True
        return self._carry(packet)

    def _on_response(self, packet: Packet) -> PrologueEvent:
        if self._inside_tls:
            user, database = user_and_database(packet.payload)
            rest = self._reader.take_rest()
            return Carry(
                b"",
                authenticate=True,
                conversation=lambda: MySQLLogin(packet, rest),
                user=user,
                database=database,
            )
        if self._mode is not Mode.TUNNEL:
            raise tls_missing()
        return self._carry(packet, *user_and_database(packet.payload))

    def _carry(self, packet: Packet, user: str | None = None, database: str | None = None) -> Carry:
        said = encode_packet(packet.sequence, packet.payload) + self._reader.take_rest()
        authenticate = self._mode is not Mode.PASSTHROUGH
        return Carry(said, authenticate=authenticate, user=user, database=database)

    def refusal(self, error: DBProxyError) -> bytes:
        if self._in_tls_with_teleport:
            return b""  # whatever we said now would break the client's handshake
        return refusal_packet(error, self._last_sequence + 1, greeted=True)


class MySQLGreeting(Greeting):
    """A server's greeting.

    Args:
        packet: As the upstream sent it.

    Attributes:
        packet: The same.
        offers_tls: Whether it says that clients may begin TLS.

    Raises:
        MalformedPacketError: It is none.
    """

    def __init__(self, packet: Packet) -> None:
        self.packet = packet
        self.offers_tls = greeting_offers_tls(packet.payload)

    @property
    def size(self) -> int:
        return HEADER_SIZE + len(self.packet.payload)

    def prologue(self, mode: Mode, *, inside_tls: bool = False) -> MySQLAnswer:
        return MySQLAnswer(self, mode, inside_tls=inside_tls)


class MySQLGreetingReader(GreetingReader):
    """Reads an upstream's greeting."""

    def __init__(self) -> None:
        self._reader = PacketReader()

    def receive(self, data: bytes) -> MySQLGreeting | None:
        self._reader.feed(data)
        try:
            packet = self._reader.next_packet()
            if packet is None:
                return None
            if rest := self._reader.take_rest():
                raise MalformedPacketError(f"{len(rest)} more bytes behind its greeting")
            if packet.payload[:1] == bytes([ERR]):
                raise _refused_by_upstream(packet)
            return MySQLGreeting(packet)
        except MalformedPacketError as error:
            raise UpstreamError(
                Code.UPSTREAM_PROTOCOL_ERROR,
                f"the Teleport Proxy began the MySQL protocol with {error}",
            ) from error


def _refused_by_upstream(packet: Packet) -> UpstreamError:
    text = shortened(error_text(packet.payload))
    return UpstreamError(
        Code.UPSTREAM_PROTOCOL_ERROR,
        f"the Teleport Proxy said in place of a greeting: {text}",
    )


class MySQL(DatabaseProtocol):
    """MySQL and MariaDB."""

    name = "mysql"
    readable_name = "MySQL"
    alpn: Sequence[str] = (f"{_ALPN}-ping", _ALPN)
    default_port = 3306

    def telling(self, version: str) -> Self:
        """The same, with a greeting that tells this version of the server, in passthrough.

        One that an ALPN value has no room for is not asked for.
        """
        value = f"{_ALPN}-{b64encode(version.encode()).decode()}"
        asking = copy(self)
        if len(value) <= LONGEST_ALPN:
            asking.alpn = (*self.alpn, value)
        return asking

    def prologue(self, mode: Mode, *, inside_tls: bool = False) -> MySQLTooEarly:
        return MySQLTooEarly()

    def greeting_reader(self) -> MySQLGreetingReader:
        return MySQLGreetingReader()

    def verdict_reader(self, *, rewrite: bool) -> MySQLVerdictReader:
        return MySQLVerdictReader(rewrite=rewrite)

    def server_alpn(self) -> bytes | None:
        return None

    def client(self, facts: ConnectionFacts) -> ClientCommand:
        return mysql_client(facts)

    def variables(self, facts: ConnectionFacts) -> Mapping[str, str | None]:
        return mysql_variables(facts)

    def uris(self, facts: ConnectionFacts) -> Mapping[str, URI]:
        return mysql_uris(facts)
