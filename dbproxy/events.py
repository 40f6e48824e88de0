"""The one stream of named events.

Everything that an operator may want to know passes through here once, as a value with a name. Logs,
metrics, audit trails, status pages and tests are subscribers; nothing else in the program writes to
a log. An event never holds a key, a password or bytes of a client.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum, unique
from typing import ClassVar

from dbproxy.errors import Code

__all__ = [
    "AcceptFailed",
    "AuthoritiesPassedOver",
    "ChangeNoticesUnavailable",
    "ClockJumped",
    "ClosedBy",
    "ConnectionClosed",
    "ConnectionFailed",
    "ConnectionOpened",
    "ConnectionRecord",
    "DiscoveryFailed",
    "DrainingStarted",
    "Event",
    "EventStream",
    "IdentityAwaited",
    "IdentityExpired",
    "IdentityLoaded",
    "IdentityNotRenewed",
    "IdentityReloadFailed",
    "InsecureChoice",
    "Level",
    "Listening",
    "PrewarmFailed",
    "PrewarmUnavailable",
    "Stopped",
    "Subscriber",
    "SupervisorLost",
    "TunnelFailed",
    "UpstreamConnected",
    "UpstreamDiscovered",
    "UpstreamReady",
    "UpstreamRetried",
    "WorkerFailed",
    "WorkerStarted",
]


@unique
class Level(Enum):
    """How loud an event is; the names are those of the standard library's logging."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@unique
class ClosedBy(StrEnum):
    """Who ended a connection first."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    DBPROXY = "dbproxy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRecord:
    """The one record that each connection ends in.

    Attributes:
        id: Unique in this process, counting from 1; with several workers, in each of them.
        peer: The client: `127.0.0.1:54321`, or `unix pid=… uid=…`.
        mode: `passthrough`, `terminate` or `tunnel`.
        service: The Teleport database service.
        protocol: The database protocol.
        database_user: The database user that the client asked for; None where its own TLS hides
            it (`passthrough`), and before its first message.
        database_name: The database that it asked for, likewise.
        generation: Which generation of the identity the connection used; 0 when it used none.
        attempts: How many upstream connections were tried for it; 0 when none was.
        prewarmed: Whether the last of them was ready before the client came.
        bytes_up: Bytes of the database protocol from client to upstream.
        bytes_down: Bytes of the database protocol from upstream to client.
        opened_at: When the client was accepted, in UTC.
        duration: Seconds from accept to close.
        closed_by: Who ended it first.
        outcome: `relayed`; `cancel-request`; `refused`, with `code`; `probe`, closed without
            sending a byte; `abandoned`, closed within its first message, or while it was kept
            waiting for the upstream; `stopped`, ended by our own stop; `failed`, by a bug.
        code: Why, when it did not end well.
        reason: The same in words.
    """

    id: int
    peer: str
    mode: str
    service: str
    protocol: str
    database_user: str | None
    database_name: str | None
    generation: int
    attempts: int
    prewarmed: bool = False
    bytes_up: int
    bytes_down: int
    opened_at: datetime
    duration: float
    closed_by: ClosedBy
    outcome: str
    code: Code | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """The base of all events; `name` is stable and appears in logs as the event's name."""

    name: ClassVar[str] = "event"
    level: ClassVar[Level] = Level.INFO


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening(Event):
    """The listener accepts connections on `address` from now on."""

    name: ClassVar[str] = "listening"
    address: str
    mode: str
    service: str
    protocol: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InsecureChoice(Event):
    """An option that lowers safety is in force."""

    name: ClassVar[str] = "insecure-choice"
    level: ClassVar[Level] = Level.WARNING
    option: str
    consequence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityLoaded(Event):
    """A generation of the identity is complete; new connections use it from now on."""

    name: ClassVar[str] = "identity-loaded"
    generation: int
    service: str
    not_valid_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityReloadFailed(Event):
    """The destination changed and could not be read; the last good generation stays in use."""

    name: ClassVar[str] = "identity-reload-failed"
    level: ClassVar[Level] = Level.WARNING
    generation: int
    code: Code
    reason: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityAwaited(Event):
    """There is no usable identity yet, and dbproxy waits for one, `remaining` seconds at most.

    Published when the wait begins, whenever the code changes, and every ten seconds.
    """

    name: ClassVar[str] = "waiting-for-identity"
    code: Code
    reason: str
    remaining: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityNotRenewed(Event):
    """tbot should have renewed the identity by `due`, and has not; it is valid still.

    Published when that is noticed, and each time half of the remaining time has passed.
    """

    name: ClassVar[str] = "identity-not-renewed"
    level: ClassVar[Level] = Level.WARNING
    generation: int
    code: Code
    due: datetime
    not_valid_after: datetime
    reason: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityExpired(Event):
    """The identity's certificate has expired; connections are refused until tbot renews it."""

    name: ClassVar[str] = "identity-expired"
    level: ClassVar[Level] = Level.ERROR
    generation: int
    code: Code
    not_valid_after: datetime
    reason: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockJumped(Event):
    """The system's clock went on by `seconds` more (or less) than time has passed.

    A suspended machine or a corrected clock; the identity is looked at anew.
    """

    name: ClassVar[str] = "clock-jumped"
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeNoticesUnavailable(Event):
    """The system does not tell when files change; they are looked at every `interval` seconds."""

    name: ClassVar[str] = "change-notices-unavailable"
    level: ClassVar[Level] = Level.WARNING
    reason: str
    interval: float
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthoritiesPassedOver(Event):
    """tbot's configuration names certificates to trust that cannot be used; tbot may not need them.

    They are for joining, so the file may be gone by now, or out of our reach.
    """

    name: ClassVar[str] = "authorities-passed-over"
    level: ClassVar[Level] = Level.WARNING
    code: Code
    reason: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelFailed(Event):
    """A tunnel could not be opened, or a bug in dbproxy ended it; it is tried again.

    The next attempt is in `retry_in` seconds. `error` is what was not foreseen.
    """

    name: ClassVar[str] = "tunnel-failed"
    level: ClassVar[Level] = Level.WARNING
    service: str
    listen: str
    attempt: int
    retry_in: float
    code: Code
    reason: str
    next_step: str
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted(Event):
    """One of several processes that serve the port is ready.

    Its own events carry the same number, which no later worker gets.
    """

    name: ClassVar[str] = "worker-started"
    worker: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFailed(Event):
    """One of several processes that serve the port has ended unasked, or could not begin.

    Another one takes its place in `retry_in` seconds; None when none does, because dbproxy is being
    stopped.
    """

    name: ClassVar[str] = "worker-failed"
    level: ClassVar[Level] = Level.ERROR
    worker: int
    code: Code
    reason: str
    next_step: str
    retry_in: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorLost(Event):
    """The process that looks after this one is gone, so this one drains and ends."""

    name: ClassVar[str] = "supervisor-lost"
    level: ClassVar[Level] = Level.ERROR
    reason: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptFailed(Event):
    """Clients have to wait: there are no file descriptors, or no memory, for their connections.

    Published when that begins, and once a minute while it lasts.
    """

    name: ClassVar[str] = "accept-failed"
    level: ClassVar[Level] = Level.WARNING
    code: Code
    reason: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionOpened(Event):
    """A client was accepted."""

    name: ClassVar[str] = "connection-opened"
    level: ClassVar[Level] = Level.DEBUG
    id: int
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamDiscovered(Event):
    """The Teleport Proxy has said how to reach it.

    Published for the first answer, and when an answer differs from the one before. `decision` says
    in words how `address` came about.
    """

    name: ClassVar[str] = "upstream-discovered"
    address: str
    decision: str
    cluster: str | None
    server_version: str | None
    tls_routing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryFailed(Event):
    """The Teleport Proxy was asked how to reach it, and did not answer; `address` is used instead.

    Published once, until it answers or something else is wrong.
    """

    name: ClassVar[str] = "discovery-failed"
    level: ClassVar[Level] = Level.WARNING
    address: str
    code: Code
    reason: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConnected(Event):
    """The upstream handshake of a connection is done.

    Attributes:
        id: The connection's.
        address: What was dialled.
        alpn: The ALPN protocol that was negotiated; empty without TLS routing.
        tls_version: Such as `TLSv1.3`; empty where only the client does TLS.
        resumed: Whether an earlier TLS session was resumed.
        upgraded: Whether it went through a connection upgrade.
        duration: Seconds that dialling took.
        prewarmed: Whether that was before the client came.
    """

    name: ClassVar[str] = "upstream-connected"
    level: ClassVar[Level] = Level.DEBUG
    id: int
    address: str
    alpn: str
    tls_version: str
    resumed: bool
    upgraded: bool
    duration: float
    prewarmed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRetried(Event):
    """The upstream did not take a connection; it is tried again while the client waits.

    Attributes:
        id: The connection's.
        attempt: Which attempt failed, counting from 1.
        code: Why.
        reason: The same in words.
        pause: Seconds until the next attempt.
        renewed: Whether that waits for a newer identity, `pause` seconds at most.
    """

    name: ClassVar[str] = "upstream-retried"
    level: ClassVar[Level] = Level.DEBUG
    id: int
    attempt: int
    code: Code
    reason: str
    pause: float
    renewed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamReady(Event):
    """A connection to the Teleport Proxy waits for the next client.

    Attributes:
        address: What was dialled.
        generation: Which generation of the identity it was made with.
        resumed: Whether an earlier TLS session was resumed.
        duration: Seconds that dialling took.
    """

    name: ClassVar[str] = "upstream-ready"
    level: ClassVar[Level] = Level.DEBUG
    address: str
    generation: int
    resumed: bool
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PrewarmUnavailable(Event):
    """Connections were to be ready before clients come, and will not be."""

    name: ClassVar[str] = "prewarm-unavailable"
    level: ClassVar[Level] = Level.WARNING
    reason: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PrewarmFailed(Event):
    """No connection could be made ready for the next client, who will wait for its own.

    Published when that begins, and at most once a minute; it is tried again, with pauses of up to
    half a minute, as long as clients come.
    """

    name: ClassVar[str] = "prewarm-failed"
    level: ClassVar[Level] = Level.WARNING
    code: Code
    reason: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionClosed(Event):
    """A connection ended; the record says how."""

    name: ClassVar[str] = "connection-closed"
    record: ConnectionRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFailed(Event):
    """A bug in dbproxy ended a connection; the others go on."""

    name: ClassVar[str] = "connection-failed"
    level: ClassVar[Level] = Level.ERROR
    id: int
    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainingStarted(Event):
    """No connection is accepted any more; the open ones have `grace` seconds to end."""

    name: ClassVar[str] = "draining"
    open_connections: int
    grace: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(Event):
    """The proxy has ended; `ended_early` connections were closed when the grace was over."""

    name: ClassVar[str] = "stopped"
    ended_early: int


Subscriber = Callable[[Event], None]


class EventStream:
    """Hands each event to every subscriber, in order, at once.

    Subscribers are plain functions that neither block nor raise: they run in the task that
    publishes.
    """

    def __init__(self, *subscribers: Subscriber) -> None:
        self._subscribers = list(subscribers)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Add a subscriber; it sees the events from now on."""
        self._subscribers.append(subscriber)

    def publish(self, event: Event) -> None:
        """Hand `event` to every subscriber."""
        for subscriber in self._subscribers:
            subscriber(event)
