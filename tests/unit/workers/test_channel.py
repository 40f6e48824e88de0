"""Messages over sockets: never waiting to send, ending when the other side is gone."""

import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from dbproxy.workers.channel import Channel
from dbproxy.workers.messages import Draining, Message, Ready, Reload, Stop, encode

pytestmark = pytest.mark.usefixtures("no_descriptor_may_be_left")


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


async def test_what_one_side_sends_the_other_one_receives(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    one, other = map(Channel, sockets)
    one.send(Reload())
    one.send(Stop())
    assert await other.receive() == [Reload(), Stop()]
    other.send(Draining(2))
    assert await one.receive() == [Draining(2)]


async def test_the_end_of_the_other_side_is_the_end_after_what_it_had_said(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    one, other = map(Channel, sockets)
    one.send(Ready())
    one.close()
    one.close()
    assert await other.receive() == [Ready()]
    assert await other.receive() == []
    assert await other.receive() == []


async def test_an_end_with_something_unread_is_an_end_too(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    one, other = map(Channel, sockets)
    other.send(Ready())
    one.close()
    assert await other.receive() == []


async def test_to_a_side_that_is_gone_nothing_is_sent(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    one, other = map(Channel, sockets)
    one.close()
    for _ in range(3):
        other.send(Ready())
    assert await other.receive() == []


async def test_a_message_may_come_in_pieces(sockets: tuple[socket.socket, socket.socket]) -> None:
    raw, other = sockets[0], Channel(sockets[1])
    line = encode(Draining(5))
    received: list[Message] = []
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            received.extend(await other.receive())

        nursery.start_soon(receive)
        for byte in line:
            raw.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
    assert received == [Draining(5)]


async def test_sending_to_somebody_who_does_not_read_takes_no_time_and_loses_nothing(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    one, other = map(Channel, sockets)
    sent = [Draining(number) for number in range(2000)]
    for message in sent:
        one.send(message)
    received: list[Message] = []
    while len(received) < len(sent):
        received += [message for message in await other.receive() if message != Ready()]
        one.send(Ready())  # what was left over goes out with it
    assert received == sent


async def test_what_nobody_says_is_refused(sockets: tuple[socket.socket, socket.socket]) -> None:
    sockets[0].send(b"hello\n")
    with pytest.raises(ValueError, match="JSON"):
        await Channel(sockets[1]).receive()


async def test_cancelled_it_has_taken_nothing(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    one, other = map(Channel, sockets)
    with trio.move_on_after(0):
        await other.receive()
    one.send(Ready())
    with trio.CancelScope() as scope:
        scope.cancel()
        await other.receive()
    assert scope.cancelled_caught
    assert await other.receive() == [Ready()]
