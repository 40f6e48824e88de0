"""A connection handler with scripted upstreams, and what it publishes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import trio
import trio.testing
from dialers import secure_dialer
from stream_ends import Duplex, receive_all, socket_pair

from dbproxy.downstream import Admission, Bridge, ConnectionHandler, RelayedAdmission
from dbproxy.downstream.client import Client
from dbproxy.errors import Code, UpstreamError
from dbproxy.events import (
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    ConnectionRecord,
    Event,
)
from dbproxy.identity import Identity, IdentityStore
from dbproxy.layers import TLSError
from dbproxy.protocols import Carry, DatabaseProtocol, Greeting, protocol_named
from dbproxy.relay import LayeredStream, Liveness, RelayEngine
from dbproxy.settings import Mode
from dbproxy.upstream import (
    ConfiguredAddress,
    FixedRoute,
    ProxyAddress,
    UpstreamConnection,
    UpstreamDialer,
    UpstreamTrust,
)

ADDRESS = ProxyAddress("teleport.example.com", 443)
POSTGRES = protocol_named("postgres")
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
CANCEL_REQUEST = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\1\0\0\0\2"
STARTUP = b"\0\0\0\x25\0\3\0\0user\0alice\0database\0example\0\0"
CLIENT_HELLO = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"
RESET = trio.BrokenResourceError("reset")
REJECTED = TLSError("tlsv1 alert unknown ca", alert="unknown ca", during_handshake=False)
DOWN = UpstreamError(Code.UPSTREAM_UNREACHABLE, "cannot connect")
UNTRUSTED = UpstreamError(Code.UPSTREAM_UNTRUSTED, "not trusted")


class FakeDialer(UpstreamDialer):
    """Gives one upstream after another, or fails."""

    def __init__(self, *upstreams: Duplex | Exception) -> None:
        super().__init__(
            FixedRoute(ConfiguredAddress(ADDRESS.host, ADDRESS.port)),
            secure_dialer(UpstreamTrust()),
            environ={},
            connection_upgrade="never",
            current_identity=_no_identity,
            max_handshakes=64,
        )
        self._upstreams = list(upstreams)
        self.dials: list[bool] = []

    async def dial(
        self,
        protocol: DatabaseProtocol,
        identity: Identity,
        *,
        authenticate: bool,
        keep_last_word: bool = False,
    ) -> UpstreamConnection:
        await trio.lowlevel.checkpoint()
        self.dials.append(authenticate)
        upstream = self._upstreams.pop(0)
        if isinstance(upstream, Exception):
            raise upstream
        return UpstreamConnection(
            stream=LayeredStream(upstream),
            address=ADDRESS,
            alpn=protocol.alpn[0],
            tls_version="TLSv1.3",
            duration=0.5,
        )


def _no_identity() -> Identity:
    raise AssertionError("nobody makes the upgrade test")


class InsideTLS:
    """An admission that has ended TLS already."""

    async def admit(self, client: Client, greeting: Greeting | None = None) -> Carry:
        assert greeting is not None
        await client.stream.send_all(greeting.prologue(Mode.TERMINATE).opening)
        inside = greeting.prologue(Mode.TERMINATE, inside_tls=True)
        carry = await client.read_prologue(inside)
        assert isinstance(carry, Carry)
        return carry


@dataclass
class Bench:
    """A handler, what it published, and the way to connect to it."""

    handler: ConnectionHandler
    dialer: FakeDialer
    events: list[Event] = field(default_factory=list)

    @property
    def record(self) -> ConnectionRecord:
        """The only record, which comes last."""
        assert isinstance(self.events[0], ConnectionOpened)
        (closed,) = (event for event in self.events if isinstance(event, ConnectionClosed))
        assert self.events[-1] is closed
        assert closed.record.id == self.events[0].id
        assert self.handler.open_connections == 0
        return closed.record

    @property
    def bugs(self) -> list[Exception]:
        """The bugs reported."""
        return [event.error for event in self.events if isinstance(event, ConnectionFailed)]

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[trio.SocketStream]:
        """A client's end; afterwards the handler must have ended and have closed its own."""
        near, far = socket_pair()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery, far:
                nursery.start_soon(self.handler.handle, near)
                yield far
        assert near.socket.fileno() == -1

    async def converse(self, sent: bytes = b"") -> bytes:
        """Send, and read to the end."""
        async with self.connection() as far:
            if sent:
                await far.send_all(sent)
            return await receive_all(far)


MakeBench = Callable[..., Bench]


def bench_maker(store: IdentityStore) -> MakeBench:
    """Makes handlers whose dialers give the upstreams named."""

    def make(
        *upstreams: Duplex | Exception,
        mode: Mode = Mode.TUNNEL,
        admission: Admission | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        connect_grace: float = 0,
        protocol: DatabaseProtocol = POSTGRES,
        rewrite: bool = True,
        prologue_timeout: float = 5,
    ) -> Bench:
        dialer = FakeDialer(*upstreams)
        events: list[Event] = []
        handler = ConnectionHandler(
            mode=mode,
            protocol=protocol,
            store=store,
            admission=admission or RelayedAdmission(protocol, mode),
            bridge=Bridge(
                protocol=protocol,
                store=store,
                dialer=dialer,
                relays=RelayEngine(),
                liveness=Liveness(),
                publish=events.append,
                handshake_timeout=3,
                connect_grace=connect_grace,
                rewrite=rewrite,
                clock=clock,
            ),
            liveness=Liveness(),
            publish=events.append,
            prologue_timeout=prologue_timeout,
            clock=clock,
        )
        return Bench(handler, dialer, events)

    return make


def fields(message: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse."""
    assert message[:1] == b"E"
    return {part[:1].decode(): part[1:].decode() for part in message[5:].split(b"\0") if part}
