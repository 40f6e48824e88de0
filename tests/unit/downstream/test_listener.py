"""A listener that either waits or takes a client out of its queue, and never both at once."""

import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import trio
import trio.testing
from loopback import no_descriptor_left

from dbproxy.downstream import Listener

PASSED_OVER = [
    errno.ECONNABORTED,
    errno.ECONNRESET,
    errno.ETIMEDOUT,
    errno.EPROTO,
    errno.EPERM,
    errno.ENETDOWN,
    errno.EHOSTUNREACH,
]


@pytest.fixture(autouse=True)
def _no_descriptor_left() -> Iterator[None]:
    with no_descriptor_left():
        yield


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    plain = socket.socket()
    plain.bind(("127.0.0.1", 0))
    plain.listen()
    async with Listener(plain) as listener:
        yield listener


def connect(listener: Listener) -> socket.socket:
    return socket.create_connection(listener.socket.getsockname())


class Scripted:
    """In place of the socket: fails as told, and then accepts."""

    def __init__(self, plain: socket.socket, *failures: int) -> None:
        self._plain = plain
        self._failures = list(failures)

    def fileno(self) -> int:
        return self._plain.fileno()

    def accept(self) -> tuple[socket.socket, object]:
        if self._failures:
            number = self._failures.pop(0)
            raise OSError(number, os.strerror(number))
        return self._plain.accept()


async def test_who_has_come_is_accepted_before_anybody_else_has_a_turn(listener: Listener) -> None:
    others: list[str] = []

    async def take_a_turn() -> None:
        others.append("turn")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_a_turn)
        client = connect(listener)
        stream = await listener.accept()
        assert not others
    with client:
        async with stream:
            client.sendall(b"hello")
            assert await stream.receive_some() == b"hello"
            assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_it_waits_for_a_client(listener: Listener) -> None:
    accepted: list[trio.SocketStream] = []

    async def accept() -> None:
        accepted.append(await listener.accept())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        assert not accepted
        client = connect(listener)
    with client:
        (stream,) = accepted
        assert stream.socket.getpeername() == client.getsockname()
        await stream.aclose()


async def test_cancelled_it_has_taken_nobody(listener: Listener) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.accept)
        await trio.testing.wait_all_tasks_blocked()
        client = connect(listener)
        nursery.cancel_scope.cancel()
    with client:
        async with await listener.accept() as stream:
            assert stream.socket.getpeername() == client.getsockname()


async def test_closing_it_ends_a_wait(listener: Listener) -> None:
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()


async def test_whoever_is_cancelled_already_takes_nobody(listener: Listener) -> None:
    with connect(listener) as client:
        with trio.CancelScope() as scope:
            scope.cancel()
            await listener.accept()
        assert scope.cancelled_caught
        async with await listener.accept() as stream:
            assert stream.socket.getpeername() == client.getsockname()


@pytest.mark.parametrize("way", ["closed", "handed on"])
async def test_nobody_is_accepted_any_more_by_a_listener_without_its_socket(
    listener: Listener, way: str
) -> None:
    if way == "closed":
        await listener.aclose()
    else:
        os.close(listener.socket.detach())
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_a_client_whose_connection_failed_in_the_queue_is_passed_over(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_plain", Scripted(listener._plain, *PASSED_OVER))
    with connect(listener) as client:
        async with await listener.accept() as stream:
            assert stream.socket.getpeername() == client.getsockname()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EINVAL])
async def test_other_failures_are_raised(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(listener, "_plain", Scripted(listener._plain, number))
    with pytest.raises(OSError, match=os.strerror(number)):
        await listener.accept()


async def test_a_failure_that_all_connections_have_keeps_nobody_out(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a sandbox forbids `accept`."""
    forbidden = Scripted(listener._plain, *[errno.EPERM] * 1_000_000)
    monkeypatch.setattr(listener, "_plain", forbidden)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.accept)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert len(forbidden._failures) > 999_000
