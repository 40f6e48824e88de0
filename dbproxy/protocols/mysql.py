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

import shlex
from base64 import b64encode
from collections.abc import Sequence
from typing import Final

from dbproxy.errors import ClientError, Code, DBProxyError, UpstreamError
from dbproxy.protocols.base import (
    Carry,
    ConnectionFacts,
    DatabaseProtocol,
    Greeting,
    GreetingReader,
    Prologue,
    PrologueEvent,
    StartTLS,
)
from dbproxy.protocols.mysql_errors import refusal_packet
from dbproxy.protocols.mysql_login import MySQLLogin
from dbproxy.protocols.mysql_packets import (
    ERR,
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
_LONGEST_ALPN: Final = 255
"""Bytes that TLS has room for in one ALPN value (RFC 7301 §3.1)."""
_TLS_HANDSHAKE: Final = b"\x16\x03"
"""A TLS record of type handshake, any version 3.x (RFC 8446 §5.1)."""
_TLS_ALERT_HANDSHAKE_FAILURE: Final = b"\x15\x03\x03\x00\x02\x02\x28"
_SOCKET_NAME: Final = "mysql.sock"
_FIRST_ANSWER: Final = 1
"""The number of the client's first packet; the greeting has 0."""


class MySQLTooEarly(Prologue):
    """Takes what a client sends before it could have had a greeting: it speaks something else."""

    def __init__(self) -> None:
        self._received = b""

    @property
    def started(self) -> bool:
        return bool(self._received)

    def receive(self, data: bytes) -> Sequence[PrologueEvent]:
        self._received = data
        raise ClientError(
            Code.CLIENT_PROTOCOL_ERROR,
            "this port carries MySQL, in which the server speaks first, and the client began with"
            f" {_what(data)}",
        )

    def refusal(self, error: DBProxyError) -> bytes:
        if self._received.startswith(_TLS_HANDSHAKE):
            return _TLS_ALERT_HANDSHAKE_FAILURE
        return refusal_packet(error, 0, greeted=False)


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
        return ClientError(
            Code.CLIENT_PROTOCOL_ERROR,
            "this port carries MySQL, and the client answered the greeting with"
            f" {_what(self._reader.beginning)}",
        )

    def _on_tls_request(self, packet: Packet) -> PrologueEvent:
        if self._inside_tls:
            raise ClientError(Code.CLIENT_PROTOCOL_ERROR, "the client asked for TLS inside TLS")
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
            raise ClientError(
                Code.CLIENT_NOT_TLS, "the client logs in without TLS, and this port requires it"
            )
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
        offers_tls: Whether it says that clients may begin TLS.

    Raises:
        MalformedPacketError: It is none.
    """

    def __init__(self, packet: Packet) -> None:
        self.packet = packet
        self.offers_tls = greeting_offers_tls(packet.payload)

    @property
    def size(self) -> int:
        return len(self.packet.payload) + 4

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
    text = error_text(packet.payload)
    return UpstreamError(
        Code.UPSTREAM_PROTOCOL_ERROR,
        f"the Teleport Proxy said in place of a greeting: {text}",
    )


def _what(beginning: bytes) -> str:
    """The first bytes of a foreign protocol, in words."""
    if beginning.startswith(_TLS_HANDSHAKE):
        return "a TLS handshake, which MySQL clients begin only after its greeting"
    if beginning.startswith((b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"CONN", b"PRI ")):
        return "an HTTP request"
    if beginning.startswith(b"SSH-"):
        return "an SSH greeting"
    return f"bytes of another protocol (0x{beginning[:8].hex()})"


def _version_alpn(version: str | None) -> Sequence[str]:
    """The ALPN value that tells a version, if there is room for it."""
    if not version:
        return ()
    value = f"{_ALPN}-{b64encode(version.encode()).decode()}"
    return (value,) if len(value) <= _LONGEST_ALPN else ()


class MySQL(DatabaseProtocol):
    """MySQL and MariaDB.

    Args:
        version: What the greeting shall tell as the server's version, in passthrough.
    """

    name = "mysql"
    readable_name = "MySQL"
    default_port = 3306

    def __init__(self, version: str | None = None) -> None:
        self.alpn = (f"{_ALPN}-ping", _ALPN, *_version_alpn(version))

    def prologue(self, mode: Mode, *, inside_tls: bool = False) -> MySQLTooEarly:
        return MySQLTooEarly()

    def greeting_reader(self) -> MySQLGreetingReader:
        return MySQLGreetingReader()

    def server_alpn(self) -> bytes | None:
        return None

    def socket_name(self, port: int | str) -> str:
        return _SOCKET_NAME

    def port_of_socket(self, name: str) -> int | None:
        return self.default_port if name == _SOCKET_NAME else None

    def connect_command(self, facts: ConnectionFacts) -> str:
        words = ["mysql"]
        if facts.host.startswith("/"):
            words.append(f"--socket={facts.host}/{_SOCKET_NAME}")
        else:
            # These clients take `localhost` for a Unix socket, unless they are told.
            host = facts.hostaddr or facts.host
            words += [f"--host={host}", f"--port={facts.port}", "--protocol=tcp"]
        if facts.user is not None:
            words.append(f"--user={facts.user}")
        if facts.mode is Mode.TUNNEL:
            words.append("--loose-skip-ssl")
        else:
            if facts.ca_file is not None:
                words.append(f"--ssl-ca={facts.ca_file}")
            words += [f"--ssl-cert={facts.certificate_file}", f"--ssl-key={facts.key_file}"]
            # MariaDB's client calls it one way, MySQL's the other.
            words += ["--loose-ssl-verify-server-cert", "--loose-ssl-mode=VERIFY_IDENTITY"]
        if facts.database is not None:
            words.append(f"--database={facts.database}")
        return shlex.join(words)
