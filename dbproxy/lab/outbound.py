"""What proxies for outgoing connections have in common."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

import trio

from dbproxy.lab.address import open_address
from dbproxy.lab.faults import NO_FAULTS, FaultPlan, Injector
from dbproxy.lab.relay import relay

MAX_REQUESTS: Final = 10_000
"""How many requests are remembered."""


@dataclass(frozen=True)
class Credentials:
    """A user name and a password."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class OutboundRequest:
    """What a client asked a proxy for.

    Attributes:
        target: ``HOST:PORT``; empty when the client did not get that far.
        credentials: what the client showed.
        answer: HTTP status, or the SOCKS reply code.
    """

    target: str
    credentials: Credentials | None
    answer: int


@dataclass(frozen=True, kw_only=True)
class OutboundOptions:
    """How a proxy for outgoing connections behaves.

    Attributes:
        listen: ``HOST:PORT``; port 0 picks a free one.
        credentials: what clients have to show; ``None`` for nothing.
        routes: where targets really are, by ``HOST:PORT``; others are connected to as they are. A
            client does not use its proxy for loopback, so a test names the lab otherwise.
        extra: bytes that follow the good answer at once, as if the target had spoken first.
        faults: what goes wrong.
    """

    listen: str = "127.0.0.1:0"
    credentials: Credentials | None = None
    routes: Mapping[str, str] = field(default_factory=dict)
    extra: bytes = b""
    faults: FaultPlan = NO_FAULTS


class OutboundProxy:
    """A running proxy for outgoing connections.

    Attributes:
        options: how it behaves.
        address: ``HOST:PORT`` of the proxy.
        url: what goes into ``HTTPS_PROXY``, with the credentials that it wants.
        requests: what clients asked for, oldest first.
        planned: answers for the next requests instead of its own, in order; each is used once.
        faults: what goes wrong, and what has.
        tunnels: how many tunnels are open now.
    """

    def __init__(self, scheme: str, options: OutboundOptions) -> None:
        self.options = options
        self.address = ""
        self.requests: deque[OutboundRequest] = deque(maxlen=MAX_REQUESTS)
        self.planned: deque[int] = deque()
        self.faults = Injector(options.faults)
        self.tunnels = 0
        self._scheme = scheme

    @property
    def url(self) -> str:
        """What goes into ``HTTPS_PROXY``."""
        return self.url_with(self.options.credentials)

    def url_with(self, credentials: Credentials | None) -> str:
        """Returns its URL with other credentials, percent-encoded."""
        if credentials is None:
            return f"{self._scheme}://{self.address}"
        user, password = quote(credentials.user, safe=""), quote(credentials.password, safe="")
        return f"{self._scheme}://{user}:{password}@{self.address}"

    def note(self, target: str, credentials: Credentials | None, answer: int) -> None:
        """Remembers a request."""
        self.requests.append(OutboundRequest(target, credentials, answer))

    async def open_target(self, target: str) -> trio.SocketStream:
        """Connects to a target, or to where the routes say that it is.

        Raises:
            LabError: it is not an address.
            OSError: the connection failed.
        """
        return await open_address(self.options.routes.get(target, target))

    async def carry(
        self, client: trio.abc.HalfCloseableStream, server: trio.abc.HalfCloseableStream
    ) -> None:
        """Carries bytes both ways until both directions have ended; closes neither stream."""
        self.tunnels += 1
        try:
            await relay(
                client, server, count_from_client=_ignore_size, count_to_client=_ignore_size
            )
        finally:
            self.tunnels -= 1


def _ignore_size(size: int) -> None:
    """Nobody counts here."""
