"""Fault plans: what goes wrong with which connections of a server of the lab, at which step.

A plan is a frozen value that a test passes in. The server asks its ``Injector`` at each step of
each connection; the injector counts, and says what has to happen.

Example::

    FaultPlan(
        Fault(Step.ACCEPT, Action.RESET, first=3),          # the first three connections
        Fault(Step.CLIENT_HELLO, Alert.UNKNOWN_CA, every=5),  # every fifth one
        Fault(Step.SENT, Action.STALL, size=4096),          # after 4 KiB to the client, each
    )
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final

from dbproxy.lab.alerts import Alert
from dbproxy.lab.errors import LabError

MAX_INJECTED: Final = 10_000
"""How many faults are remembered."""


@unique
class Step(StrEnum):
    """A point in the life of a connection, as its server sees it."""

    ACCEPT = "accept"
    """Accepted, before anything is read. Every server has it."""
    CLIENT_HELLO = "client hello"
    """The ClientHello has been read, nothing has been answered. The Proxy and the balancer."""
    MID_HANDSHAKE = "mid handshake"
    """Half of the server's first TLS flight has been sent. The Proxy."""
    HANDSHAKE = "handshake"
    """TLS is established for the server, no byte of what it carries has been read. The Proxy."""
    SENT = "sent"
    """``Fault.size`` bytes of database protocol have been sent to the client. The Proxy."""
    RECEIVED = "received"
    """``Fault.size`` bytes of database protocol have come from the client. The Proxy."""
    BEFORE_ANSWER = "before answer"
    """The request has been read. The upgrade endpoint, the balancer, outbound proxies."""
    MID_ANSWER = "mid answer"
    """Half of the answer has been sent."""
    AFTER_ANSWER = "after answer"
    """The answer has been sent; the connection behind it exists but has not carried anything."""


@unique
class Action(StrEnum):
    """What happens to the connection."""

    STALL = "stall"
    """It stays open, and nothing is read or written, until the server stops."""
    RESET = "reset"
    """TCP RST."""
    CLOSE = "close"
    """TCP FIN, without a word from whatever runs above it."""
    GOODBYE = "goodbye"
    """An orderly end: close_notify where TLS is established, then TCP FIN. Teleport's silent close
    (limits, locks, missing access) looks like this."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        step: when.
        action: what; an alert is sent in the clear, and only at ``Step.CLIENT_HELLO``.
        first: only the first so many connections that reach the step; ``None`` means all.
        every: only every so-maniest of them.
        size: bytes of database protocol, for ``Step.SENT`` and ``Step.RECEIVED``.
        alpn: only connections whose ClientHello offers this value; ``None`` means all.

    Raises:
        LabError: the combination makes no sense.
    """

    step: Step
    action: Action | Alert
    first: int | None = None
    every: int = 1
    size: int = 0
    alpn: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.action, Alert) and self.step is not Step.CLIENT_HELLO:
            raise LabError(f"an alert cannot be made at step {self.step}")
        if self.size and self.step not in {Step.SENT, Step.RECEIVED}:
            raise LabError(f"step {self.step} does not count bytes")
        if self.every < 1 or self.size < 0:
            raise LabError("a fault happens every so many connections, after so many bytes")

    def __str__(self) -> str:
        what = self.action.name if isinstance(self.action, Alert) else self.action
        return f"{what} at {self.step}".lower().replace("_", " ")


class FaultPlan(tuple[Fault, ...]):
    """An immutable list of faults; the first that applies happens."""

    __slots__ = ()

    def __new__(cls, *faults: Fault) -> FaultPlan:
        """Makes a plan of these faults."""
        return super().__new__(cls, faults)


NO_FAULTS: Final = FaultPlan()


class Injector:
    """Decides for each connection of one server.

    Attributes:
        injected: what has been done, oldest first.
    """

    def __init__(self, plan: FaultPlan = NO_FAULTS) -> None:
        self.injected: deque[Fault] = deque(maxlen=MAX_INJECTED)
        self._plan = plan
        self._reached: Counter[int] = Counter()

    @property
    def plan(self) -> FaultPlan:
        """What happens; a new plan begins to count anew, from the next step on."""
        return self._plan

    @plan.setter
    def plan(self, plan: FaultPlan) -> None:
        self._plan = plan
        self._reached.clear()

    def choose(self, step: Step, offered: Container[str] = ()) -> Fault | None:
        """Counts a connection that has reached a step; returns what goes wrong with it.

        The one who asks has to call ``note`` when it happens.

        Args:
            step: the step.
            offered: the connection's ALPN list.
        """
        chosen = None
        for position, fault in enumerate(self._plan):
            if fault.step is step and (fault.alpn is None or fault.alpn in offered):
                self._reached[position] += 1
                if chosen is None and _applies(fault, self._reached[position]):
                    chosen = fault
        return chosen

    def note(self, fault: Fault) -> None:
        """Remembers that a fault has happened."""
        self.injected.append(fault)


def _applies(fault: Fault, number: int) -> bool:
    return number % fault.every == 0 and (fault.first is None or number <= fault.first)
