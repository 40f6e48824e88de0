"""What a database protocol must tell the rest of dbproxy.

The prologue of a connection, everything before bytes are just relayed, is a state machine per
protocol and mode: the client's bytes in, events out. It never touches a socket.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from dbproxy.errors import ClientError, DBProxyError
from dbproxy.settings import Mode

__all__ = [
    "Carry",
    "ConnectionFacts",
    "DatabaseProtocol",
    "Prologue",
    "PrologueEvent",
    "Reply",
    "StartTLS",
    "UpstreamGreeting",
]


@dataclass(frozen=True, slots=True)
class Reply:
    """Send these bytes to the client and go on reading."""

    data: bytes


@dataclass(frozen=True, slots=True)
class StartTLS:
    """The client begins a TLS handshake, which ends here; then a new prologue reads inside it.

    Attributes:
        received: The first bytes of the handshake, when they came already.
    """

    received: bytes = b""


@dataclass(frozen=True, slots=True)
class UpstreamGreeting:
    """An exchange with the upstream that the client knows nothing about.

    Attributes:
        request: What is sent to the upstream before anything of the client's.
        answer: What the upstream must answer; not passed on.
    """

    request: bytes
    answer: bytes


@dataclass(frozen=True, slots=True)
class Carry:
    """The prologue is over: connect to the upstream, send `first_flight`, then relay.

    Attributes:
        first_flight: The client's bytes so far that the upstream must see.
        authenticate: Whether dbproxy presents the identity's certificate on the outer TLS.
        reply_expected: Whether an upstream that ends without a byte is a failure. False for a
            PostgreSQL CancelRequest, which is never answered.
        greeting: What dbproxy has to say to the upstream first, on its own account.
        user: The database user that the client asks for, where its first message shows it.
        database: The database name that it asks for, likewise.
    """

    first_flight: bytes
    authenticate: bool
    reply_expected: bool = True
    greeting: UpstreamGreeting | None = None
    user: str | None = None
    database: str | None = None


PrologueEvent: TypeAlias = Reply | StartTLS | Carry


class Prologue(ABC):
    """Reads a client's first packets. After `StartTLS` or `Carry` it is finished."""

    @abstractmethod
    def receive(self, data: bytes) -> Sequence[PrologueEvent]:
        """Take the client's bytes, however they are split, and say what to do.

        Raises:
            ClientError: The client cannot be served; it gets a refusal.
        """

    @property
    @abstractmethod
    def started(self) -> bool:
        """Whether the client has sent anything."""

    @property
    def parting(self) -> ClientError | None:
        """What a client disliked that goes away now, where the protocol can tell."""
        return None

    @abstractmethod
    def refusal(self, error: DBProxyError) -> bytes:
        """What to send so that the client prints `error`, given what it has sent so far.

        Empty where the protocol expects no answer.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFacts:
    """What a client needs to know to connect to our listener.

    Attributes:
        host: A name that the certificates cover, or the directory of a Unix socket.
        hostaddr: The IP address to connect to, where the name would not lead there; or None.
        port: The TCP port, or the number in the Unix socket's name.
        mode: Decides whether TLS is on.
        user: The database user, if known.
        database: The database name, if known.
        ca_file: What the client trusts; None in tunnel mode, and where its own roots must do.
        certificate_file: The client's certificate; None in tunnel mode.
        key_file: The client's key; None in tunnel mode.
    """

    host: str
    hostaddr: str | None = None
    port: int
    mode: Mode
    user: str | None
    database: str | None
    ca_file: Path | None
    certificate_file: Path | None
    key_file: Path | None


class DatabaseProtocol(ABC):
    """One database wire protocol, as Teleport carries it."""

    name: str
    """As in a certificate's route."""
    readable_name: str
    """As in text for people."""
    alpn: Sequence[str]
    """The ALPN values to offer, the preferred one first."""
    default_port: int
    """The TCP port that clients take without one, which may stand in a Unix socket's name too."""
    starttls: UpstreamGreeting | None = None
    """How a server of the protocol is asked for TLS, where TLS begins inside of the protocol."""
    session_awaits_client: bool = False
    """Whether Teleport begins the database session with the client's first message, in each mode.

    For most protocols it does so as soon as a connection with our certificate stands, so that one
    without a client would be a session (`lib/srv/db/proxyserver.go`)."""

    @abstractmethod
    def prologue(self, mode: Mode, *, inside_tls: bool = False) -> Prologue:
        """A new state machine for one client.

        Args:
            mode: The listener's mode.
            inside_tls: Whether the bytes come out of TLS that ends here.
        """

    @abstractmethod
    def server_alpn(self) -> bytes | None:
        """The ALPN value to agree to when a client's TLS ends here, if the protocol has one."""

    @abstractmethod
    def socket_name(self, port: int | str) -> str:
        """The name that the usual clients expect a Unix socket to have, in a directory of choice.

        Args:
            port: The port that they are given, or a placeholder for it.
        """

    @abstractmethod
    def port_of_socket(self, name: str) -> int | None:
        """The port to give the usual clients for a Unix socket; `None` if they cannot find it."""

    @abstractmethod
    def connect_command(self, facts: ConnectionFacts) -> str:
        """A command line for the protocol's usual client, ready to paste."""
