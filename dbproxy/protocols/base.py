"""What a database protocol must tell the rest of dbproxy.

The prologue of a connection, everything before bytes are just relayed, is a state machine per
protocol and mode: the client's bytes in, events out. It never touches a socket.

In most protocols the client speaks first. Where the server does (`greeting_reader`), what it says
is a `Greeting`, and the prologue reads the client's answer to that. Where client and upstream have
to be translated to each other for a while, that is a `Conversation`, between prologue and relay.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from dbproxy.errors import ClientError, DBProxyError
from dbproxy.protocols.wire import Answering
from dbproxy.settings import Mode

__all__ = [
    "LONGEST_ALPN",
    "Answering",
    "Carry",
    "ConnectionFacts",
    "Conversation",
    "DatabaseProtocol",
    "Greeting",
    "GreetingReader",
    "Prologue",
    "PrologueEvent",
    "Refuser",
    "Reply",
    "Say",
    "StartTLS",
    "UpstreamGreeting",
]

LONGEST_ALPN: Final = 255
"""Bytes that TLS has room for in one ALPN value (RFC 7301 §3.1)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Send these bytes to the client and go on reading."""

    data: bytes


@dataclass(frozen=True, slots=True)
class StartTLS:
    """The client begins a TLS handshake, which ends here; then a new prologue reads inside it.

    Attributes:
        received: The first bytes of the handshake, when they came already.
        in_tds_packets: Whether the handshake goes on inside of TDS packets.
    """

    received: bytes = b""
    in_tds_packets: bool = False


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
        conversation: Makes what client and upstream go through before the rest is relayed, anew
            for each upstream that is tried; the first flight follows it.
        user: The database user that the client asks for, where its first message shows it.
        database: The database name that it asks for, likewise.
    """

    first_flight: bytes
    authenticate: bool
    reply_expected: bool = True
    greeting: UpstreamGreeting | None = None
    conversation: "Callable[[], Conversation] | None" = None
    user: str | None = None
    database: str | None = None


PrologueEvent: TypeAlias = Reply | StartTLS | Carry


class Refuser(ABC):
    """Knows how to say no to a client, after what has been said so far."""

    @abstractmethod
    def refusal(self, error: DBProxyError) -> bytes:
        """What to send so that the client prints `error`, given what it has sent so far.

        Empty where the protocol expects no answer.
        """

    def further(self, error: DBProxyError) -> Answering | None:
        """What answers a refused client that goes on speaking; None: nothing need be answered."""
        del error
        return None


class Prologue(Refuser):
    """Reads a client's first packets. After `StartTLS` or `Carry` it is finished."""

    @property
    def opening(self) -> bytes:
        """What the client is sent before it has said anything; empty where it speaks first."""
        return b""

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


class Greeting(ABC):
    """What the upstream said first, in a protocol in which the server speaks first."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many bytes of the upstream it took."""

    @abstractmethod
    def prologue(self, mode: Mode, *, inside_tls: bool = False) -> Prologue:
        """A new state machine for the client's answer; its opening is this greeting."""


class GreetingReader(ABC):
    """Reads what the upstream says first."""

    @abstractmethod
    def receive(self, data: bytes) -> Greeting | None:
        """Take the upstream's bytes, however they are split; None while more are needed.

        Raises:
            UpstreamError: `upstream-protocol-error`: they are not this protocol's.
        """


@dataclass(frozen=True, slots=True)
class Say:
    """What a conversation has to say to either side."""

    to_client: bytes = b""
    to_upstream: bytes = b""


class Conversation(Refuser):
    """What client and upstream say until the rest can be relayed, translated for each other.

    Either may speak at any time. Once it is over nothing is held back, and bytes that are still
    given to it come out as they are.

    Attributes:
        hears_client: Whether it is with both. If not, the client knows nothing about it, and what
            it says meanwhile is relayed afterwards.
    """

    hears_client: bool = True

    def begin(self) -> Say:
        """What is said before anything has been heard."""
        return Say()

    @abstractmethod
    def from_client(self, data: bytes) -> Say:
        """Take the client's bytes, however they are split.

        Raises:
            ClientError: The client breaks the protocol.
        """

    @abstractmethod
    def from_upstream(self, data: bytes) -> Say:
        """Take the upstream's bytes, however they are split.

        Raises:
            UpstreamError: `upstream-protocol-error`: the upstream breaks the protocol.
        """

    @property
    @abstractmethod
    def over(self) -> bool:
        """Whether the rest can be relayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFacts:
    """What a client needs to know to connect to our listener.

    Attributes:
        host: A name that the certificates cover, or the directory of a Unix socket.
        hostaddr: The IP address to connect to, where the name would not lead there; or None.
        port: The TCP port, or the number in the Unix socket's name.
        socket: The Unix socket, where that is what we listen on; or None.
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
    socket: Path | None = None
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
    passthrough: bool = True
    """Whether Teleport lets clients authenticate to it themselves: its own tools make tunnels for
    the others (`tool/tsh/common/db.go`)."""
    starttls: UpstreamGreeting | None = None
    """How a server of the protocol is asked for TLS, where TLS begins inside of the protocol."""
    session_awaits_client: bool = False
    """Whether Teleport begins the database session with the client's first message, in each mode.

    For most protocols it does so as soon as a connection with our certificate stands, so that one
    without a client would be a session (`lib/srv/db/proxyserver.go`)."""

    @abstractmethod
    def prologue(self, mode: Mode, *, inside_tls: bool = False) -> Prologue:
        """A new state machine for one client, who has not been greeted where servers speak first.

        Args:
            mode: The listener's mode.
            inside_tls: Whether the bytes come out of TLS that ends here.
        """

    def greeting_reader(self) -> GreetingReader | None:
        """What reads the upstream's first words; None where the client speaks first."""
        return None

    @abstractmethod
    def server_alpn(self) -> bytes | None:
        """The ALPN value to agree to when a client's TLS ends here, if the protocol has one."""

    def socket_name(self, port: int | str) -> str:
        """The name that the usual clients expect a Unix socket to have, in a directory of choice.

        Args:
            port: The port that they are given, or a placeholder for it.
        """
        return f"{self.name}-{port}.sock"

    def port_of_socket(self, name: str) -> int | None:
        """The port to give the usual clients for a Unix socket; `None` if they cannot find it.

        Any name will do, unless a protocol says otherwise: most clients are given the whole path,
        and some have no sockets.
        """
        del name
        return self.default_port

    @abstractmethod
    def connect_command(self, facts: ConnectionFacts) -> str:
        """A command line for the protocol's usual client, ready to paste."""
