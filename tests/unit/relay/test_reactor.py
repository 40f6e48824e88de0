"""The reactor: whom it tells, when it waits without trio, and when it does nothing."""

import select
import socket
import threading
from functools import partial
from time import perf_counter

import pytest
import trio
import trio.testing
from lab_client import until
from relay_bench import MIB, PATIENCE, engine_running, relaying, running
from tls_peers import Credentials

from dbproxy.downstream import TCPAddress, open_listener
from dbproxy.relay import own_the_loop
from dbproxy.relay.fast import FastRelay
from dbproxy.relay.reactor import (
    _ALL_EVENTS,
    GONE_EVENTS,
    LAST_EVENTS,
    READ_EVENTS,
    SLICE,
    WRITE_EVENTS,
    Reactor,
)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Has an entry for each time that a reactor has waited for events without trio."""
    waits: list[None] = []
    wait = Reactor._wait_for_events

    def note(reactor: Reactor, epoll: select.epoll) -> list[tuple[int, int]]:
        waits.append(None)
        return wait(reactor, epoll)

    monkeypatch.setattr(Reactor, "_wait_for_events", note)
    return waits


def test_the_events_are_what_the_system_calls_them() -> None:
    assert WRITE_EVENTS == select.EPOLLOUT
    assert GONE_EVENTS == select.EPOLLERR
    assert LAST_EVENTS == select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLPRI | GONE_EVENTS
    assert READ_EVENTS == select.EPOLLIN | LAST_EVENTS
    assert _ALL_EVENTS == READ_EVENTS | WRITE_EVENTS | select.EPOLLET


@pytest.mark.parametrize("owned", [False, True], ids=["shared loop", "own loop"])
async def test_it_lingers_only_in_a_loop_of_its_own(
    owned: bool, waits: list[None], localhost: Credentials
) -> None:
    """Here the client shares the loop, as that of somebody who uses dbproxy as a library may."""
    if owned:
        own_the_loop()
    async with running(True, "tls-ping", localhost) as bench:
        for _ in range(10):
            await bench.client.send_all(b"query")
            assert await bench.database.receive_some() == b"query"
        await bench.client.send_eof()
        await bench.database.send_eof()
    assert bool(waits) is owned


@pytest.mark.parametrize("other", ["client", "reactor"])
async def test_it_does_not_linger_while_there_are_others(
    other: str, waits: list[None], localhost: Credentials
) -> None:
    own_the_loop()
    async with running(True, "tls-ping", localhost) as bench:
        assert isinstance(bench.relay, FastRelay)
        async with trio.open_nursery() as nursery:
            if other == "client":
                bench.relay._reactor.is_alone = lambda: False
            else:
                nursery.start_soon(Reactor().run)
                await trio.testing.wait_all_tasks_blocked()
            waits.clear()
            for _ in range(10):
                await bench.client.send_all(b"query")
                assert await bench.database.receive_some() == b"query"
            assert not waits
            nursery.cancel_scope.cancel()
        await bench.client.send_eof()
        await bench.database.send_eof()


async def test_it_leaves_no_descriptor_when_it_is_cancelled() -> None:
    reactor = Reactor()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert reactor._opened().closed


async def test_it_lingers_again_when_a_client_who_ended_that_has_been_let_in(
    waits: list[None],
) -> None:
    own_the_loop()
    reactor = Reactor()
    reactor.is_alone = lambda: True
    events: list[int] = []
    ours, theirs = socket.socketpair()
    door, client = socket.socketpair()
    with ours, theirs, door, client:
        reactor.look_out_for_clients(trio.socket.from_stdlib_socket(door))
        reactor.watch(ours.fileno(), events.append)
        client.send(b"knock")
        async with trio.open_nursery() as machinery:
            machinery.start_soon(reactor.run)
            await until(lambda: bool(events and waits))
            assert door.recv(5) == b"knock"
            told, waited = len(events), len(waits)
            theirs.send(b"query")
            await until(lambda: len(events) > told and len(waits) > waited)
            machinery.cancel_scope.cancel()


@pytest.mark.parametrize("busy", [False, True], ids=["waiting for events", "giving turns"])
async def test_a_client_that_arrives_ends_the_lingering(
    busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of trio's runs meanwhile, so the client connects in a thread."""
    monkeypatch.setattr("dbproxy.relay.reactor.LINGER", PATIENCE)
    monkeypatch.setattr("dbproxy.relay.reactor.LONGEST", PATIENCE)
    own_the_loop()
    reactor = Reactor()
    served: list[trio.SocketStream] = []
    reactor.is_alone = lambda: not served
    listener = await open_listener(TCPAddress("127.0.0.1", 0))
    reactor.look_out_for_clients(listener.socket)
    (closed,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    reactor.look_out_for_clients(closed.socket)
    await closed.aclose()
    ours, theirs = socket.socketpair()
    lingering = threading.Event()
    begin = perf_counter()

    def come() -> None:
        lingering.wait(PATIENCE)
        with socket.create_connection(listener.socket.getsockname()):
            pass

    thread = threading.Thread(target=come)
    with ours, theirs:
        reactor.watch(ours.fileno(), lambda _events: lingering.set())
        if busy:
            reactor.ask(lambda: True)
        thread.start()
        async with listener, trio.open_nursery() as machinery:
            machinery.start_soon(reactor.run)
            served.append(await listener.accept())
            await served[0].aclose()
            machinery.cancel_scope.cancel()
        thread.join()
    assert perf_counter() - begin < PATIENCE / 2


async def test_others_wait_for_the_turns_of_one_slice_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reactor, now, given = Reactor(), 0.0, 0
    monkeypatch.setattr("dbproxy.relay.reactor.perf_counter", lambda: now)

    def turn() -> bool:
        nonlocal now, given
        now += SLICE / 2
        given += 1
        return True

    for _ in range(100):
        reactor.ask(partial(turn))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        for _ in range(20):
            before = given
            await trio.lowlevel.checkpoint()
            assert given - before <= 4
        nursery.cancel_scope.cancel()
    assert given > 10


async def test_the_end_of_a_connection_does_not_wait_for_the_lingering(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dbproxy.relay.reactor.LINGER", PATIENCE)
    monkeypatch.setattr("dbproxy.relay.reactor.LONGEST", PATIENCE)
    own_the_loop()
    reactor = Reactor()
    reactor.is_alone = lambda: reactor.watched == 2
    over, pairs = trio.Event(), [socket.socketpair() for _ in range(2)]
    (first, far), (second, _far) = pairs

    def end(events: int) -> None:
        if events & READ_EVENTS:
            reactor.forget(first.fileno())
            over.set()

    def say_so(_events: int) -> None:
        far.send(b"now")

    begin = perf_counter()
    async with trio.open_nursery() as nursery:
        reactor.watch(first.fileno(), end)
        reactor.watch(second.fileno(), say_so)
        nursery.start_soon(reactor.run)
        await over.wait()
        nursery.cancel_scope.cancel()
    for pair in pairs:
        for one in pair:
            one.close()
    assert perf_counter() - begin < PATIENCE / 2


@pytest.mark.parametrize("how", ["ended", "cancelled"])
async def test_a_relay_that_is_over_is_watched_no_more(how: str, localhost: Credentials) -> None:
    async with engine_running(fast=True) as engine:
        reactor = engine._reactor
        assert reactor is not None
        async with relaying(engine, "tls-ping", localhost) as bench:
            await until(lambda: reactor.watched == 2)
            if how == "cancelled":
                bench.scope.cancel()
            else:
                await bench.client.send_eof()
                await bench.database.send_eof()
                await until(lambda: bool(bench.ends))
            await until(lambda: reactor.watched == 0)


@pytest.mark.parametrize("stack", ["plain", "tls-ping", "tls-websocket-tls-ping"])
@pytest.mark.parametrize("ended", [False, True], ids=["both ways", "one way"])
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
async def test_it_reads_nothing_and_does_nothing_while_somebody_takes_nothing(
    up: bool, ended: bool, stack: str, localhost: Credentials
) -> None:
    async with running(True, stack, localhost) as bench:
        await bench.client.send_all(b"hello")
        assert await bench.database.receive_some() == b"hello"
        await bench.database.send_all(b"welcome")
        assert await bench.client.receive_some() == b"welcome"
        if ended:
            quiet = bench.database if up else bench.client
            await quiet.send_eof()
        sender, receiver = (bench.client, bench.database)[:: 1 if up else -1]
        sent = bytes(8 * MIB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.send_all, sent)
            await trio.testing.wait_all_tasks_blocked()  # a reactor that has turns is not blocked
            assert bench.relay.bytes_up + bench.relay.bytes_down < len(sent) / 2, "it keeps little"
            received = 0
            while received < len(sent):
                received += len(await receiver.receive_some())
                await trio.testing.wait_all_tasks_blocked()
        for end in (bench.client, bench.database):
            await end.send_eof()
    assert bench.end.error is None
