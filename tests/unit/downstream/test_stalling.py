"""Who stalls before the first message is complete is dropped in time, and nobody else notices.

For each protocol, on a virtual clock: what takes ten seconds takes no time.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import beginnings
import pytest
import trio
from connection_bench import SSL_REQUEST, STARTUP, Bench, MakeBench
from loopback import TLSStream
from mysql_packets import greeting_payload, ok, packet, response_payload, tls_request
from stream_ends import Duplex, FakeStream, receive_all, socket_pair
from tds_messages import NOT_SUPPORTED, login, prelogin_answer
from tls_peers import client_context
from trio.testing import MockClock
from virtual_time import run_threads_inline

from dbproxy.downstream import Admission, LocalAuthority, ServerCertificate, TerminatingAdmission
from dbproxy.errors import Code
from dbproxy.events import ConnectionClosed, ConnectionRecord
from dbproxy.identity import IdentityStore
from dbproxy.protocols import DatabaseProtocol, Prologue, choose_protocol, protocol_named
from dbproxy.protocols.mysql import MySQLGreeting
from dbproxy.protocols.wire.mysql_packets import Packet
from dbproxy.settings import Mode, Settings

LIMIT = Settings().prologue_timeout
MANNERS = 2.5
"""Seconds more that a connection may take: a refused client has a moment to read why."""
SILENT, NOISY = 40, 20
NOISE = b"\xff\xfegarbage" * 20
HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
UNHEARD = "unheard"


@dataclass(frozen=True)
class Kind:
    """How the clients of a protocol begin.

    Attributes:
        first: A whole first message, which is carried in tunnel mode.
        hidden: What the upstream says that the client does not hear.
        welcome: What it then says to that message.
        greeting: What a client hears before it has said anything, in tunnel mode.
        into_tls: What a client sends and hears before TLS begins.
    """

    first: bytes
    hidden: Sequence[bytes] = ()
    welcome: bytes = b"hello"
    greeting: bytes = b""
    into_tls: Sequence[bytes] = ()

    def upstream(self, *script: bytes | trio.Event) -> FakeStream:
        """One that lets a client in."""
        said = (self.greeting,) if self.greeting else ()
        return FakeStream(*said, *self.hidden, self.welcome, *script)


GREETING = packet(0, greeting_payload())
KINDS = {
    "postgres": Kind(STARTUP, into_tls=[SSL_REQUEST, b"S"]),
    "cockroachdb": Kind(STARTUP, into_tls=[SSL_REQUEST, b"S"]),
    "mysql": Kind(
        packet(1, response_payload()),
        welcome=ok(2),
        greeting=GREETING,
        into_tls=[b"", packet(0, greeting_payload(ssl=True)), tls_request()],
    ),
    "sqlserver": Kind(login(), hidden=[prelogin_answer(NOT_SUPPORTED)]),
    **{name: Kind(all_sent[0]) for name, all_sent in beginnings.OF_PROTOCOL.items()},
    UNHEARD: Kind(b"whatever"),
}
WITH_MODES = [
    (name, mode)
    for name in KINDS
    for mode in Mode
    if mode is not Mode.PASSTHROUGH or name == UNHEARD or protocol_named(name).passthrough
]

every_kind = pytest.mark.parametrize("name", KINDS)
every_known_kind = pytest.mark.parametrize("name", [name for name in KINDS if name != UNHEARD])
"""What nobody knows has no first message: each byte is carried."""


def protocol_of(name: str) -> DatabaseProtocol:
    if name == UNHEARD:
        return choose_protocol(Settings(protocol=name, alpn=name), "postgres")
    return protocol_named(name)


def prologue_of(name: str) -> Prologue:
    """For a client who has been greeted, if that is how it goes."""
    if name == "mysql":
        return MySQLGreeting(Packet(0, greeting_payload())).prologue(Mode.TUNNEL)
    return protocol_of(name).prologue(Mode.TUNNEL)


@pytest.fixture(autouse=True)
def _threads_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    run_threads_inline(monkeypatch)


@pytest.fixture(scope="module")
def server_certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    directory = tmp_path_factory.mktemp("state")
    return LocalAuthority.open(directory).issue_server_certificate()


BenchFor = Callable[..., Bench]


@pytest.fixture
def bench_for(
    make_bench: MakeBench, store: IdentityStore, server_certificate: ServerCertificate
) -> BenchFor:
    """A handler for a protocol in a mode, with the default limit."""

    def make(name: str, mode: Mode, *upstreams: Duplex) -> Bench:
        protocol = protocol_of(name)
        admission: Admission | None = None
        if mode is Mode.TERMINATE:
            admission = TerminatingAdmission(protocol, server_certificate, store)
        return make_bench(
            *upstreams,
            mode=mode,
            admission=admission,
            protocol=protocol,
            prologue_timeout=LIMIT,
        )

    return make


def assert_dropped_in_time(record: ConnectionRecord) -> None:
    assert (record.outcome, record.code) == ("refused", Code.CLIENT_STALLED)
    assert LIMIT <= record.duration <= LIMIT + MANNERS


def test_the_limit_is_ten_seconds_by_default() -> None:
    assert LIMIT == 10


class TestOne:
    """One client, wherever it stops."""

    @pytest.mark.parametrize(("name", "mode"), WITH_MODES)
    async def test_who_says_nothing_is_told_as_one_that_waits_to_be_greeted(
        self, name: str, mode: Mode, bench_for: BenchFor, autojump_clock: MockClock
    ) -> None:
        bench = bench_for(name, mode, FakeStream(GREETING))
        answer = await bench.converse()
        assert_dropped_in_time(bench.record)
        assert len(bench.dialer.dials) == (name == "mysql")
        if name == "mysql":
            assert answer[4:5] == b"\x0a", "the greeting that it did not answer"
        else:
            assert answer[3:5] == b"\0\xff"
            assert b"this port carries" in answer
        assert b"[client-stalled]" in answer

    @every_known_kind
    async def test_who_stops_in_the_first_message_is_dropped(
        self, name: str, bench_for: BenchFor, autojump_clock: MockClock
    ) -> None:
        kind = KINDS[name]
        undecided = [
            size
            for size in range(1, len(kind.first))
            if not prologue_of(name).receive(kind.first[:size])
        ]
        for size in {undecided[0], undecided[len(undecided) // 2], undecided[-1]}:
            bench = bench_for(name, Mode.TUNNEL, FakeStream(GREETING))
            async with bench.connection() as far:
                assert await exactly(far, len(kind.greeting)) == kind.greeting
                await far.send_all(kind.first[:size])
                await receive_all(far)
            assert_dropped_in_time(bench.record)

    @every_kind
    async def test_who_stops_in_the_tls_handshake_is_dropped(
        self, name: str, bench_for: BenchFor, autojump_clock: MockClock
    ) -> None:
        bench = bench_for(name, Mode.TERMINATE, FakeStream(GREETING))
        async with bench.connection() as far:
            await begin_tls(far, KINDS[name].into_tls)
            await far.send_all(HALF_A_HELLO)
            assert await receive_all(far) == b""
        assert_dropped_in_time(bench.record)

    @every_kind
    @pytest.mark.parametrize("spoke", [False, True])
    async def test_who_stops_inside_tls_is_dropped(
        self, name: str, spoke: bool, bench_for: BenchFor, autojump_clock: MockClock
    ) -> None:
        bench = bench_for(name, Mode.TERMINATE, FakeStream(GREETING))
        async with bench.connection() as far:
            await begin_tls(far, KINDS[name].into_tls)
            tls = TLSStream(far, client_context(), server_side=False)
            await tls.do_handshake()
            if spoke:
                await tls.send_all(KINDS[name].first[:1])
            await receive_all(tls)
        if spoke and name == UNHEARD:  # was carried, so that the certificate is what is missing
            assert bench.record.code is Code.CLIENT_CERTIFICATE_MISSING
        else:
            assert_dropped_in_time(bench.record)

    async def test_who_sends_a_byte_now_and_then_has_no_longer(
        self, bench_for: BenchFor, autojump_clock: MockClock
    ) -> None:
        bench = bench_for("postgres", Mode.TUNNEL)
        async with bench.connection() as far, trio.open_nursery() as nursery:

            async def dribble() -> None:
                for byte in STARTUP:
                    await far.send_all(bytes([byte]))
                    await trio.sleep(LIMIT / 5)

            nursery.start_soon(dribble)
            assert b"[client-stalled]" in await receive_all(far)
            nursery.cancel_scope.cancel()
        assert_dropped_in_time(bench.record)


async def begin_tls(far: trio.SocketStream, exchanges: Sequence[bytes]) -> None:
    """Send and hear in turn what comes before TLS."""
    for turn, message in enumerate(exchanges):
        if turn % 2:
            assert await exactly(far, len(message)) == message
        elif message:
            await far.send_all(message)


async def exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    received = b""
    while len(received) < size:
        piece = await stream.receive_some(size - len(received))
        assert piece, received
        received += bytes(piece)
    return received


@dataclass
class Crowd:
    """Clients of one handler, all at the same time."""

    bench: Bench
    nursery: trio.Nursery

    def connect(self) -> trio.SocketStream:
        near, far = socket_pair()
        self.nursery.start_soon(self.bench.handler.handle, near)
        return far

    @property
    def records(self) -> list[ConnectionRecord]:
        events = self.bench.events
        return [event.record for event in events if isinstance(event, ConnectionClosed)]

    async def served(self, kind: Kind) -> trio.SocketStream:
        """A client that has been let in."""
        client = self.connect()
        assert await exactly(client, len(kind.greeting)) == kind.greeting
        await client.send_all(kind.first)
        assert await exactly(client, len(kind.welcome)) == kind.welcome
        return client


@asynccontextmanager
async def crowd(bench: Bench) -> AsyncIterator[Crowd]:
    with trio.fail_after(20 * LIMIT):
        async with trio.open_nursery() as nursery:
            yield Crowd(bench, nursery)


@every_kind
async def test_forty_silent_and_twenty_noisy_clients_at_once_disturb_nobody(
    name: str, bench_for: BenchFor, autojump_clock: MockClock
) -> None:
    kind, noisy = KINDS[name], NOISY if name != UNHEARD else 0  # whose noise would be carried
    go_on = trio.Event()
    bench = bench_for(
        name,
        Mode.TUNNEL,
        kind.upstream(go_on, b"more", b""),
        *((FakeStream(GREETING) for _ in range(SILENT)) if name == "mysql" else ()),
        kind.upstream(b""),
    )
    async with crowd(bench) as clients:
        before = await clients.served(kind)
        idle = [clients.connect() for _ in range(SILENT)]
        loud = [clients.connect() for _ in range(noisy)]
        for client in loud:
            await client.send_all(NOISE)
        await trio.sleep(LIMIT + MANNERS)
        assert bench.handler.open_connections == 1
        dropped = [record for record in clients.records if record.code is Code.CLIENT_STALLED]
        refused = [record for record in clients.records if record not in dropped]
        assert (len(dropped), len(refused)) == (SILENT, noisy)
        for record in dropped:
            assert_dropped_in_time(record)
        for record in refused:
            assert record.code is Code.CLIENT_PROTOCOL_ERROR
            assert record.duration <= MANNERS
        after = await clients.served(kind)
        go_on.set()
        assert await exactly(before, 4) == b"more"
        for client in (*idle, *loud, before, after):
            await client.aclose()
    assert not bench.bugs
    assert [record.outcome for record in clients.records[-2:]] == ["relayed"] * 2
