"""Connections that are ready before a client comes, on a virtual clock."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing
from identities import Cluster, write_destination
from lab_client import until
from stream_ends import socket_pair
from trio.testing import MockClock
from virtual_time import Wall, run_threads_inline

from dbproxy.backoff import Backoff
from dbproxy.errors import Code, UpstreamError
from dbproxy.events import Event, PrewarmFailed, UpstreamReady
from dbproxy.identity import DestinationSource, Identity, IdentityStore
from dbproxy.layers import PingLayer
from dbproxy.relay import LayeredStream, PingWatch
from dbproxy.upstream import ProxyAddress, ReadyConnections, UpstreamConnection
from dbproxy.upstream.prewarm import (
    AFTER_CLIENT,
    AT_ONCE,
    BUSY,
    FIRST_PAUSE,
    LIFETIME,
    LONGEST_PAUSE,
    QUIET,
    TRIAL,
)

ADDRESS = ProxyAddress("teleport.example.com", 443)
DOWN = UpstreamError(Code.UPSTREAM_UNREACHABLE, "cannot connect")
PING = bytes(4)
HANDSHAKE = 0.1
"""Seconds that a handshake takes here."""

settle = trio.testing.wait_all_tasks_blocked


@dataclass
class Remembering:
    """Stands in for a TLS connection."""

    resumed: bool = False
    remembered: int = 0

    def remember(self) -> None:
        self.remembered += 1


@dataclass
class Made:
    """One connection that was made.

    Attributes:
        near: Our end, which has the layers.
        far: The upstream's.
        identity: What it was made with.
        tls: Remembers its session, or not.
    """

    near: LayeredStream
    far: trio.SocketStream
    identity: Identity
    tls: Remembering = field(default_factory=Remembering)

    @property
    def open(self) -> bool:
        transport = self.near.transport
        assert isinstance(transport, trio.SocketStream)
        return transport.socket.fileno() != -1


class Upstream:
    """Makes connections, or fails.

    Attributes:
        made: The connections so far.
        begun: When each handshake began.
        at_once: The most handshakes at the same time.
        failure: What each one fails with, if anything.
        address: Where they lead.
        nursery: For what happens by itself.
        rejects_after: Seconds after which each one is closed, if it is.
    """

    def __init__(self) -> None:
        self.made: list[Made] = []
        self.begun: list[float] = []
        self.at_once = 0
        self.failure: Exception | None = None
        self.address = ADDRESS
        self.nursery: trio.Nursery | None = None
        self.rejects_after: float | None = None
        self._under_way = 0

    async def dial(self, identity: Identity) -> UpstreamConnection:
        self.begun.append(trio.current_time())
        self._under_way += 1
        self.at_once = max(self.at_once, self._under_way)
        try:
            await trio.sleep(HANDSHAKE * (1 + self._under_way / 100))  # never two at one moment
        finally:
            self._under_way -= 1
        if self.failure is not None:
            raise self.failure
        near, far = socket_pair()
        made = Made(LayeredStream(near), far, identity)
        self.made.append(made)
        ping = PingLayer()
        await made.near.add_layer(ping)
        made.near.patience = PingWatch(ping, trio.current_time)
        if self.rejects_after is not None and self.nursery is not None:
            self.nursery.start_soon(self._reject, far, self.rejects_after)
        return UpstreamConnection(
            stream=made.near,
            address=self.address,
            alpn="teleport-postgres-ping",
            tls_version="TLSv1.3",
            duration=HANDSHAKE,
            sessions=[made.tls],  # type: ignore[list-item]
        )

    async def _reject(self, far: trio.SocketStream, delay: float) -> None:
        await trio.sleep(delay)
        await far.aclose()

    @property
    def open(self) -> list[Made]:
        return [made for made in self.made if made.open]

    @property
    def pauses(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.begun)]

    async def close(self) -> None:
        for made in self.made:
            await made.far.aclose()


@dataclass
class Bench:
    """A pool of two, its upstream and its identity."""

    store: IdentityStore
    directory: Path
    cluster: Cluster
    wall: Wall
    upstream: Upstream = field(default_factory=Upstream)
    events: list[Event] = field(default_factory=list)
    made_ready: list[UpstreamReady] = field(default_factory=list)
    size: int = 2

    def __post_init__(self) -> None:
        self.pool = ReadyConnections(
            self.upstream.dial,
            self.store,
            size=self.size,
            authenticate=True,
            publish=self.note,
            backoff=Backoff(FIRST_PAUSE, LONGEST_PAUSE, draw=lambda: 1.0),
            clock=self.wall,
        )

    def note(self, event: Event) -> None:
        if isinstance(event, UpstreamReady):
            self.made_ready.append(event)
        else:
            self.events.append(event)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The pool runs for the length of the block; afterwards nothing is open."""
        async with trio.open_nursery() as nursery:
            self.upstream.nursery = nursery
            nursery.start_soon(self.pool.run)
            yield
            nursery.cancel_scope.cancel()
        assert self.pool.waiting == 0
        assert not self.upstream.open
        await self.upstream.close()

    async def filled(self) -> None:
        """Until all are ready."""
        await until(lambda: self.pool.waiting == self.size, 10 * LONGEST_PAUSE)

    def take(self) -> UpstreamConnection | None:
        return self.pool.take(authenticate=True)

    async def renew(self) -> None:
        write_destination(self.directory, self.cluster)
        await self.store.reload()


@pytest.fixture
async def bench(destination: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return await make_bench(destination, cluster, monkeypatch)


async def make_bench(
    destination: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, size: int = 2
) -> Bench:
    run_threads_inline(monkeypatch)
    wall = Wall(datetime.now(UTC) + timedelta(minutes=1))  # the files look as if written long ago
    store = IdentityStore(DestinationSource(destination), clock=wall)
    await store.load()
    return Bench(store, destination, cluster, wall, size=size)


async def close(connection: UpstreamConnection | None) -> None:
    assert connection is not None
    await trio.aclose_forcefully(connection.stream)


class TakeWhenWoken(trio.abc.Instrument):
    """Takes the oldest one when its task has been woken by a byte, and has not run yet."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.taken: UpstreamConnection | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.taken is None and task.name.endswith("_keep_one"):
            self.taken = self._bench.take()
            send_now(self._bench.upstream.made[0], b"\0\0\0\2hi")


class TestTaking:
    """What a client gets."""

    async def test_a_client_gets_one_that_is_ready_and_another_one_is_made(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await bench.filled()
            taken = bench.take()
            assert taken is not None
            assert taken.prewarmed
            assert taken.stream is bench.upstream.made[0].near
            assert bench.pool.waiting == 1
            await bench.filled()
            assert len(bench.upstream.made) == 3
            await taken.stream.send_all(b"hello")
            far = bench.upstream.made[0].far
            assert await far.receive_some() == b"\0\0\0\5hello"
            await far.send_all(b"\0\0\0\2hi")
            assert await taken.stream.receive_some() == b"hi"
            await close(taken)

    async def test_the_clients_own_round_trip_comes_before_the_next_handshake(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await bench.filled()
            now = trio.current_time()
            await close(bench.take())
            await bench.filled()
            assert bench.upstream.begun[2] == pytest.approx(now + AFTER_CLIENT)

    async def test_when_none_is_ready_there_is_none_and_nobody_waits(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            assert bench.take() is None
            await bench.filled()
            for taken in [bench.take(), bench.take()]:
                await close(taken)
            assert bench.take() is None

    async def test_the_oldest_is_taken_first(self, bench: Bench, autojump_clock: MockClock) -> None:
        async with bench.running():
            await bench.filled()
            await close(bench.take())
            await bench.filled()
            taken = bench.take()
            assert taken is not None
            assert taken.stream is bench.upstream.made[1].near
            await close(taken)

    async def test_nobody_gets_what_another_one_has(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await bench.filled()
            taken = [bench.take(), bench.take(), bench.take()]
            assert taken[2] is None
            assert taken[0] is not None
            assert taken[1] is not None
            assert taken[0].stream is not taken[1].stream
            await close(taken[0])
            await close(taken[1])

    async def test_who_must_not_show_our_certificate_gets_none_that_has(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await bench.filled()
            assert bench.pool.take(authenticate=False) is None
            assert bench.pool.waiting == 2

    async def test_whoever_has_it_can_read_and_send_at_once(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await bench.filled()
            taken = bench.take()
            assert taken is not None
            send_now(bench.upstream.made[0], b"\0\0\0\2hi")
            assert await taken.stream.receive_some() == b"hi"
            await taken.stream.send_all(b"x")
            await close(taken)

    async def test_what_comes_when_it_has_just_been_taken_is_not_read_by_who_watched_it(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await bench.filled()
            hurried = TakeWhenWoken(bench)
            trio.lowlevel.add_instrument(hurried)
            send_now(bench.upstream.made[0], PING)
            await settle()
            trio.lowlevel.remove_instrument(hurried)
            taken = hurried.taken
            assert taken is not None
            assert await taken.stream.receive_some() == b"hi"
            await close(taken)

    async def test_what_was_taken_outlives_the_pool(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.pool.run)
            await bench.filled()
            taken = bench.take()
            assert taken is not None
            nursery.cancel_scope.cancel()
        assert bench.upstream.open == [bench.upstream.made[0]]
        await taken.stream.send_all(b"x")
        await close(taken)
        await bench.upstream.close()

    async def test_what_is_taken_just_when_the_pool_ends_is_the_clients(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.pool.run)
            await bench.filled()
            nursery.cancel_scope.cancel()
            taken = bench.take()
        assert taken is not None
        assert bench.upstream.open == [bench.upstream.made[0]]
        await close(taken)
        await bench.upstream.close()

    async def test_what_is_taken_just_when_it_is_too_old_is_the_clients(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        taken: list[UpstreamConnection | None] = []
        async with bench.running():
            await bench.filled()
            await trio.sleep_until(bench.pool._ready[0].watch.deadline)
            taken.append(bench.take())
            await settle()
            for connection in taken:
                if connection is not None and connection.stream is bench.upstream.made[0].near:
                    assert bench.upstream.made[0].open
                await close(connection)


class TestAge:
    """None waits for long."""

    async def test_they_are_made_anew_while_clients_come(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await bench.filled()
            await trio.sleep(LIFETIME + 2 * HANDSHAKE)
            assert len(bench.upstream.made) == 4
            assert bench.upstream.open == bench.upstream.made[2:]
            assert bench.pool.waiting == 2

    async def test_a_session_of_one_that_nobody_took_is_resumed_by_the_next(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await bench.filled()
            await trio.sleep(LIFETIME + 2 * HANDSHAKE)
            assert [made.tls.remembered for made in bench.upstream.made] == [1, 1, 0, 0]

    async def test_a_minute_after_the_last_client_none_is_made_any_more(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await trio.sleep(BUSY + LIFETIME)
            assert bench.pool.waiting == 0
            made = len(bench.upstream.begun)
            assert made <= 2 * (1 + BUSY / LIFETIME)
            await trio.sleep(100 * BUSY)
            assert len(bench.upstream.begun) == made

    async def test_the_first_client_after_a_pause_has_them_made_for_the_next(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await trio.sleep(10 * BUSY)
            assert bench.take() is None
            await bench.filled()
            await close(bench.take())


class TestUpstream:
    """What the upstream does with those that wait."""

    async def test_pings_are_absorbed(self, bench: Bench, autojump_clock: MockClock) -> None:
        async with bench.running():
            await bench.filled()
            await trio.sleep(5)
            for made in bench.upstream.made:
                await made.far.send_all(PING)
            await trio.sleep(5)
            for made in bench.upstream.made:
                await made.far.send_all(PING[:2])  # one that is half here when it is taken
            await settle()
            taken = bench.take()
            assert taken is not None
            await bench.upstream.made[0].far.send_all(PING[2:] + b"\0\0\0\2hi")
            assert await taken.stream.receive_some() == b"hi"
            await close(taken)

    async def test_a_ping_that_comes_just_when_it_is_taken_does_no_harm(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await bench.filled()
            send_now(bench.upstream.made[0], PING)
            taken = bench.take()
            assert taken is not None
            assert taken.stream is bench.upstream.made[0].near
            await close(taken)

    async def test_one_that_is_closed_just_when_it_is_taken_is_not_handed_out(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await bench.filled()
            bench.upstream.made[0].far.socket.close()
            taken = bench.take()
            assert taken is not None
            assert taken.stream is bench.upstream.made[1].near
            await close(taken)
            await settle()
            assert not bench.upstream.open
            assert bench.upstream.made[0].tls.remembered == 0

    async def test_one_that_speaks_just_when_it_is_taken_is_not_handed_out(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await bench.filled()
            for made in bench.upstream.made:
                send_now(made, b"\0\0\0\2hi")
            assert bench.take() is None
            await settle()
            assert not bench.upstream.open

    @pytest.mark.parametrize("said", [b"", b"\0\0\0\2hi"])
    async def test_one_that_ends_or_speaks_is_closed_at_once(
        self, bench: Bench, autojump_clock: MockClock, said: bytes
    ) -> None:
        async with bench.running():
            await bench.filled()
            await trio.sleep(TRIAL + 1)
            first = bench.upstream.made[0]
            await (first.far.send_all(said) if said else first.far.aclose())
            await settle()
            assert not first.open
            assert bench.pool.waiting == 1
            assert not bench.events, "a restart of the Teleport Proxy is no news"
            await bench.filled()

    async def test_an_upstream_that_falls_silent_after_its_pings_is_given_up(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await bench.filled()
            await trio.sleep(1)
            for made in bench.upstream.made:
                await made.far.send_all(PING)
            await trio.sleep(5)
            assert not any(made.open for made in bench.upstream.made[:2])

    async def test_another_address_ends_those_to_the_former(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await bench.filled()
            bench.upstream.address = ProxyAddress("other.example.com", 443)
            await close(bench.take())
            await trio.sleep(AFTER_CLIENT + 1.5 * HANDSHAKE)
            assert not bench.upstream.made[1].open
            assert bench.upstream.made[2].open
            await bench.filled()
            taken = bench.take()
            assert taken is not None
            assert taken.address == bench.upstream.address
            await close(taken)


def send_now(made: Made, data: bytes) -> None:
    """Send without giving any other task a turn."""
    with trio.socket.fromfd(
        made.far.socket.fileno(), trio.socket.AF_UNIX, trio.socket.SOCK_STREAM
    ) as again:
        assert again._sock.send(data) == len(data)  # type: ignore[attr-defined]


class TestRenewal:
    """A new generation of the identity."""

    async def test_it_ends_the_earlier_ones_at_once(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await bench.filled()
            await bench.renew()
            await settle()
            assert not bench.upstream.open
            await bench.filled()
            assert [event.generation for event in bench.made_ready] == [1, 1, 2, 2]
            assert {made.identity.generation for made in bench.upstream.open} == {2}

    async def test_one_that_is_being_made_meanwhile_is_not_offered(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await trio.sleep(HANDSHAKE / 2)
            await bench.renew()
            await bench.filled()
            assert {made.identity.generation for made in bench.upstream.open} == {2}

    async def test_a_client_of_the_new_one_gets_none_of_the_old(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await bench.filled()
            old = bench.store.current
            await bench.renew()
            assert bench.store.current is not old
            assert bench.take() is None
            await bench.filled()
            taken = bench.take()
            assert taken is not None
            assert bench.upstream.open[0].identity is not old
            await close(taken)

    async def test_without_a_valid_identity_none_is_made(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        bench.wall.jump(timedelta(days=1))
        async with bench.running():
            await trio.sleep(5)
            assert not bench.upstream.begun
            (event,) = bench.events
            assert isinstance(event, PrewarmFailed)
            assert event.code is Code.CERTIFICATE_EXPIRED


class TestFailure:
    """An upstream that fails is left in peace."""

    async def test_the_pauses_grow_and_there_is_one_attempt_at_a_time(
        self,
        destination: Path,
        cluster: Cluster,
        monkeypatch: pytest.MonkeyPatch,
        autojump_clock: MockClock,
    ) -> None:
        bench = await make_bench(destination, cluster, monkeypatch, size=10)
        bench.upstream.failure = DOWN
        async with bench.running():
            await trio.sleep(BUSY - 1)
            pauses = [pause for pause in bench.upstream.pauses if pause > 0]
            assert pauses == pytest.approx(
                [pause + HANDSHAKE for pause in (1, 2, 4, 8, 16)], abs=HANDSHAKE / 10
            )
            assert len(bench.upstream.begun) == AT_ONCE + 5

    async def test_it_is_told_once_a_minute_while_clients_come(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        bench.upstream.failure = DOWN
        async with bench.running():
            for _ in range(10):
                assert bench.take() is None
                await trio.sleep(QUIET / 4)
            assert bench.events == [
                PrewarmFailed(
                    code=Code.UPSTREAM_UNREACHABLE, reason=DOWN.message, next_step=DOWN.next_step
                )
            ] * len(bench.events)
            assert 2 <= len(bench.events) <= 3

    async def test_when_it_is_back_they_are_made_again(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        bench.upstream.failure = DOWN
        async with bench.running():
            await trio.sleep(10)
            bench.upstream.failure = None
            await bench.filled()
            await trio.sleep(TRIAL)
            bench.upstream.failure = DOWN
            await close(bench.take())
            bench.upstream.begun.clear()
            await trio.sleep(2 * FIRST_PAUSE)
            assert bench.upstream.pauses[0] == pytest.approx(
                FIRST_PAUSE + HANDSHAKE, abs=HANDSHAKE / 10
            )

    async def test_handshakes_at_once_are_bounded(
        self,
        destination: Path,
        cluster: Cluster,
        monkeypatch: pytest.MonkeyPatch,
        autojump_clock: MockClock,
    ) -> None:
        bench = await make_bench(destination, cluster, monkeypatch, size=20)
        async with bench.running():
            await bench.filled()
            assert bench.upstream.at_once == AT_ONCE

    @pytest.mark.parametrize("delay", [0.0, 0.5])
    async def test_a_rejection_after_the_handshake_is_a_failure(
        self, delay: float, bench: Bench, autojump_clock: MockClock
    ) -> None:
        bench.upstream.rejects_after = delay
        async with bench.running():
            await trio.sleep(20)
            assert len(bench.upstream.begun) == bench.size + 4, "one after 1, 2, 4 and 8 seconds"
            (event,) = bench.events
            assert isinstance(event, PrewarmFailed)
            assert event.code is Code.UPSTREAM_CLOSED_EARLY

    async def test_one_that_speaks_before_a_client_does_is_told_of(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await bench.filled()
            await bench.upstream.made[0].far.send_all(b"\0\0\0\2hi")
            await settle()
            (event,) = bench.events
            assert isinstance(event, PrewarmFailed)
            assert event.code is Code.UPSTREAM_PROTOCOL_ERROR
            assert "2 bytes before any client had spoken" in event.reason

    async def test_cancelled_in_a_handshake_or_a_pause_it_ends(
        self, bench: Bench, autojump_clock: MockClock
    ) -> None:
        async with bench.running():
            await trio.sleep(HANDSHAKE / 2)
        bench.upstream.failure = DOWN
        async with bench.running():
            await trio.sleep(2 * HANDSHAKE)

    async def test_a_bug_is_not_hidden(self, bench: Bench, autojump_clock: MockClock) -> None:
        bench.upstream.failure = ZeroDivisionError()
        with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
            async with bench.running():
                await trio.sleep(1)
