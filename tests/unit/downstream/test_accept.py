"""Accepting goes on when file descriptors are short, and says so once."""

import errno
import os
import socket
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from dbproxy.downstream.accept import Acceptor
from dbproxy.downstream.listen import TCPAddress, open_listener
from dbproxy.downstream.listener import BACKLOG
from dbproxy.errors import Code
from dbproxy.events import AcceptFailed, Event

SHORTAGES = [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS]


class ScriptedListener:
    """Fails or accepts as told, and then waits until it is closed."""

    def __init__(self, *outcomes: int | trio.SocketStream) -> None:
        self._outcomes = list(outcomes)
        self._closed = trio.Event()

    async def accept(self) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        if not self._outcomes:
            await self._closed.wait()
        if self._closed.is_set():
            raise trio.ClosedResourceError
        outcome = self.accept_nowait()
        assert outcome is not None
        return outcome

    def accept_nowait(self) -> trio.SocketStream | None:
        if not self._outcomes:
            return None
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, int):
            raise OSError(outcome, os.strerror(outcome))
        return outcome

    async def aclose(self) -> None:
        self._closed.set()
        await trio.lowlevel.checkpoint()


@pytest.fixture
async def connection() -> AsyncIterator[trio.SocketStream]:
    """The accepted end of a connection."""
    ours, theirs = socket.socketpair()
    with theirs:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        yield stream
        await trio.aclose_forcefully(stream)


async def accept_for(
    seconds: float,
    listener: ScriptedListener,
    publish: Callable[[Event], None],
) -> list[trio.SocketStream]:
    """Accept for a while; the connections that were handed over, in order."""
    served: list[trio.SocketStream] = []

    async def handle(stream: trio.SocketStream) -> None:
        served.append(stream)
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        Acceptor(listener, handle, nursery, publish).start()
        await trio.sleep(seconds)
        await listener.aclose()
    return served


@pytest.mark.parametrize("number", SHORTAGES, ids=[errno.errorcode[n] for n in SHORTAGES])
async def test_a_shortage_is_one_event_and_the_next_client_is_served(
    number: int, connection: trio.SocketStream, autojump_clock: trio.testing.MockClock
) -> None:
    events: list[Event] = []
    listener = ScriptedListener(*[number] * 5, connection)
    assert await accept_for(0.55, listener, events.append) == [connection]
    (event,) = events
    assert isinstance(event, AcceptFailed)
    assert event.code is Code.TOO_MANY_FILES
    assert os.strerror(number).lower() in event.reason
    assert "LimitNOFILE=" in event.next_step


async def test_attempts_are_a_tenth_of_a_second_apart(
    connection: trio.SocketStream, autojump_clock: trio.testing.MockClock
) -> None:
    listener = ScriptedListener(*[errno.EMFILE] * 5, connection)
    assert await accept_for(0.45, listener, lambda event: None) == []


async def test_a_lasting_shortage_is_told_once_a_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    events: list[Event] = []
    await accept_for(150, ScriptedListener(*[errno.EMFILE] * 5000), events.append)
    assert len(events) == 3


async def test_other_failures_of_the_listener_are_raised() -> None:
    listener = ScriptedListener(errno.EINVAL)
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="Invalid argument")):
        await accept_for(1, listener, lambda event: None)


@pytest.mark.parametrize("then", [None, errno.EMFILE, errno.ECONNABORTED])
async def test_all_who_have_arrived_are_taken_just_before_the_end(
    then: int | None, connection: trio.SocketStream
) -> None:
    listener = ScriptedListener(connection, *([] if then is None else [then]))
    served: list[trio.SocketStream] = []

    async def handle(stream: trio.SocketStream) -> None:
        served.append(stream)
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        acceptor = Acceptor(listener, handle, nursery, lambda event: None)
        assert acceptor.take_arrived() == 1
        assert acceptor.take_arrived() == 0
    assert served == [connection]
    assert connection.socket.fileno() == -1


async def test_who_failed_in_the_queue_keeps_nobody_behind_from_being_taken(
    connection: trio.SocketStream,
) -> None:
    listener = ScriptedListener(errno.ECONNABORTED, connection)
    async with trio.open_nursery() as nursery:
        acceptor = Acceptor(listener, trio.SocketStream.aclose, nursery, lambda event: None)
        assert acceptor.take_arrived() == 1


async def test_who_arrives_without_an_end_keeps_nobody_from_stopping(
    monkeypatch: pytest.MonkeyPatch, connection: trio.SocketStream
) -> None:
    listener = ScriptedListener()
    monkeypatch.setattr(listener, "accept_nowait", lambda: connection)
    async with trio.open_nursery() as nursery:
        acceptor = Acceptor(listener, trio.SocketStream.aclose, nursery, lambda event: None)
        assert acceptor.take_arrived() == BACKLOG


async def test_a_closed_listener_ends_accepting_and_no_handler(
    connection: trio.SocketStream, autojump_clock: trio.testing.MockClock
) -> None:
    listener = ScriptedListener(connection)
    ended: list[float] = []

    async def handle(stream: trio.SocketStream) -> None:
        await trio.sleep(5)
        ended.append(trio.current_time())

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        Acceptor(listener, handle, nursery, lambda event: None).start()
        await trio.sleep(1)
        await listener.aclose()
    assert ended == [started + 5]


async def test_whoever_has_accepted_serves_at_once_and_the_next_client_waits_for_nobody(
    connection: trio.SocketStream,
) -> None:
    ours, theirs = socket.socketpair()
    second = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    listener = ScriptedListener(connection, second)
    turns: dict[trio.SocketStream, int] = {}
    turn = 0

    class Turns(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            nonlocal turn
            turn += 1

    async def handle(stream: trio.SocketStream) -> None:
        turns[stream] = turn
        if stream is connection:
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()

    counting = Turns()
    with theirs:
        async with trio.open_nursery() as nursery:
            trio.lowlevel.add_instrument(counting)
            Acceptor(listener, handle, nursery, lambda event: None).start()
        trio.lowlevel.remove_instrument(counting)
    assert list(turns) == [connection, second]
    # One turn for the task to begin, one in the listener's own checkpoint.
    assert turns[second] - turns[connection] == 2


async def test_it_can_be_cancelled_however_many_clients_come() -> None:
    """Whoever is cut off comes back at once."""
    listener = await open_listener(TCPAddress("127.0.0.1", 0))
    clients: list[socket.socket] = []
    most = 200

    def come() -> None:
        if len(clients) < most:
            clients.append(socket.create_connection(listener.socket.getsockname()))

    async def handle(stream: trio.SocketStream) -> None:
        nursery.cancel_scope.cancel()
        come()
        await trio.lowlevel.checkpoint()

    come()
    async with listener, trio.open_nursery() as nursery:
        Acceptor(listener, handle, nursery, lambda event: None).start()
    for client in clients:
        client.close()
    assert len(clients) < most


async def test_a_cancelled_acceptor_has_accepted_nobody(connection: trio.SocketStream) -> None:
    listener = ScriptedListener(connection)
    async with trio.open_nursery() as nursery:
        Acceptor(listener, trio.SocketStream.aclose, nursery, lambda event: None).start()
        nursery.cancel_scope.cancel()
    assert await listener.accept() is connection


async def test_a_connection_is_closed_when_its_handler_ends(
    connection: trio.SocketStream, autojump_clock: trio.testing.MockClock
) -> None:
    await accept_for(1, ScriptedListener(connection), lambda event: None)
    assert connection.socket.fileno() == -1


async def test_accepted_connections_are_kept_alive() -> None:
    listener = await open_listener(TCPAddress("127.0.0.1", 0))
    events: list[Event] = []
    async with listener, await trio.open_tcp_stream(*listener.socket.getsockname()):
        kept: list[tuple[int, int]] = []

        async def look(stream: trio.SocketStream) -> None:
            kept.append(
                (
                    stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                )
            )
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            Acceptor(listener, look, nursery, events.append).start()
    assert (kept, events) == ([(1, 15)], [])
