"""Streams for tests: pairs, a peer that a test moves by hand, and scripted failures."""

import socket
from collections.abc import Callable
from enum import Enum

import trio
import trio.testing

Duplex = trio.abc.HalfCloseableStream
Pair = tuple[Duplex, Duplex]
Make = Callable[[], Pair]


def memory_pair() -> Pair:
    """Two ends with unlimited buffers between them."""
    return trio.testing.memory_stream_pair()


def lockstep_pair() -> Pair:
    """Two ends without any buffer between them: a sender waits for the receiver."""
    return trio.testing.lockstep_stream_pair()


def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends that the kernel connects."""
    one, other = trio.socket.socketpair()
    return trio.SocketStream(one), trio.SocketStream(other)


def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of a TCP connection, which knows resets and urgent data."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _name = server.accept()
    return _stream_on(one), _stream_on(other)


def _stream_on(plain: socket.socket) -> trio.SocketStream:
    plain.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(plain))


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Everything up to the end of the stream."""
    received = bytearray()
    while data := await stream.receive_some():
        received += data
    return bytes(received)


class Pause(Enum):
    """In the script of a `FakeStream`: go on once all other tasks wait for something."""

    UNTIL_IDLE = "until-idle"


class FakeStream(Duplex):
    """Receives one scripted thing after another and notes what is sent.

    Args:
        script: Bytes to be received, an exception to be raised, or something to wait for. At the
            end of the script it waits forever; a peer that ends has `b""` as its last word.
        send_error: Raised by a send instead of taking the bytes.
        good_sends: How many times sending goes well before that.
        eof_error: Raised by `send_eof`.
    """

    def __init__(
        self,
        *script: bytes | Exception | Pause | trio.Event,
        send_error: Exception | None = None,
        good_sends: int = 0,
        eof_error: Exception | None = None,
    ) -> None:
        self._script = list(script)
        self.send_error = send_error
        self.good_sends = good_sends
        self.eof_error = eof_error
        self.sent = b""
        self.sends = 0
        self.eof_sent = False
        self.closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._script:
            await trio.sleep_forever()
        match self._script.pop(0):
            case bytes(data):
                return data
            case Pause():
                await trio.testing.wait_all_tasks_blocked()
            case trio.Event() as event:
                await event.wait()
            case error:
                raise error
        return await self.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.sends += 1
        if self.send_error is not None and self.good_sends == 0:
            raise self.send_error
        self.good_sends -= 1
        self.sent += data

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.eof_error is not None:
            raise self.eof_error
        self.eof_sent = True

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()
