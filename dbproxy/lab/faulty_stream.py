"""The streams in which faults happen."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final, NoReturn

import trio

from dbproxy.lab.alerts import Alert, plaintext_alert
from dbproxy.lab.errors import LabError
from dbproxy.lab.faults import Action, Fault, Injector, Step

RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: on, no seconds."""


class Injected(LabError):
    """The plan has ended this connection."""


class FaultyStream(trio.abc.HalfCloseableStream):
    """A connection that can be made to fail, whatever runs above it.

    Args:
        below: what carries the bytes; this object owns it.
        connection: the TCP connection at the bottom.
        injector: decides what goes wrong.

    Attributes:
        connection: the TCP connection at the bottom.
        offered: the ALPN list of the ClientHello, once it is known.
    """

    def __init__(
        self,
        below: trio.abc.HalfCloseableStream,
        connection: trio.SocketStream,
        injector: Injector,
    ) -> None:
        self.connection = connection
        self.offered: tuple[str, ...] = ()
        self._below = below
        self._injector = injector
        self._stalled = False
        self._cut: Fault | None = None

    async def reach(self, step: Step) -> None:
        """Does what the plan has for this step; returns when it has nothing.

        Raises:
            Injected: the connection has been ended.
        """
        if (fault := self.choose(step)) is not None:
            await self.suffer(fault)

    def cut_next_send(self, step: Step) -> None:
        """Lets what the plan has for this step happen in the middle of the next ``send_all``."""
        self._cut = self.choose(step)

    async def answer(self, stream: trio.abc.SendStream, data: bytes) -> None:
        """Sends an answer, with the plan's faults before, in and after it.

        Args:
            stream: where to send it: this object, or one above it.
            data: the answer.

        Raises:
            Injected: the connection has been ended.
        """
        await self.reach(Step.BEFORE_ANSWER)
        if (fault := self.choose(Step.MID_ANSWER)) is not None:
            await stream.send_all(data[: len(data) // 2])
            await self.suffer(fault)
        await stream.send_all(data)
        await self.reach(Step.AFTER_ANSWER)

    def choose(self, step: Step) -> Fault | None:
        """Counts this connection for a step and returns what is planned for it there."""
        return self._injector.choose(step, self.offered)

    async def suffer(self, fault: Fault) -> NoReturn:
        """Lets a fault happen. A stall ends by cancellation only.

        Raises:
            Injected: the connection has been ended, or the caller has to end it in an orderly way.
        """
        self._injector.note(fault)
        match fault.action:
            case Action.STALL:
                self._stalled = True
                await trio.sleep_forever()
            case Action.RESET:
                reset(self.connection)
            case Action.CLOSE:
                with contextlib.suppress(OSError):
                    self.connection.socket.shutdown(socket.SHUT_WR)
            case Alert() as alert:
                await self._below.send_all(plaintext_alert(alert))
        raise Injected(f"fault: {fault}")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Sends, half of it when a fault lies in the middle."""
        await self._stop_if_stalled()
        if self._cut is None:
            await self._below.send_all(data)
            return
        fault, self._cut = self._cut, None
        await self._below.send_all(memoryview(data)[: len(data) // 2])
        await self.suffer(fault)

    async def wait_send_all_might_not_block(self) -> None:
        """Waits until the stream below can take bytes."""
        await self._stop_if_stalled()
        await self._below.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Ends the sending direction."""
        await self._stop_if_stalled()
        await self._below.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receives from the stream below."""
        await self._stop_if_stalled()
        data = await self._below.receive_some(max_bytes)
        await self._stop_if_stalled()
        return bytes(data)

    async def aclose(self) -> None:
        """Closes the stream below; a stalled one only when cancelled, whatever the deadlines."""
        try:
            await self._stop_if_stalled()
        finally:
            await self._below.aclose()

    async def _stop_if_stalled(self) -> None:
        if self._stalled:
            await trio.sleep_forever()


class MeteredStream(trio.abc.HalfCloseableStream):
    """Database protocol that can fail after so many bytes in either direction.

    Args:
        below: what carries the bytes; not owned.
        transport: what fails.
    """

    def __init__(self, below: trio.abc.HalfCloseableStream, transport: FaultyStream) -> None:
        self._below = below
        self._transport = transport
        self._sent = 0
        self._received = 0
        self._after_sent = transport.choose(Step.SENT)
        self._after_received = transport.choose(Step.RECEIVED)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Sends what the plan lets through."""
        fault = self._after_sent
        if fault is None or self._sent + len(data) < fault.size:
            await self._below.send_all(data)
            self._sent += len(data)
            return
        allowed = memoryview(data)[: fault.size - self._sent]
        if allowed:
            await self._below.send_all(allowed)
        await self._transport.suffer(fault)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receives; what exceeds the plan's size is read but never handed out."""
        data = bytes(await self._below.receive_some(max_bytes))
        self._received += len(data)
        if self._after_received is not None and self._received >= self._after_received.size:
            await self._transport.suffer(self._after_received)
        return data

    async def wait_send_all_might_not_block(self) -> None:
        """Waits until the stream below can take bytes."""
        await self._below.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Ends the sending direction."""
        await self._below.send_eof()

    async def aclose(self) -> None:
        """Closes the stream below."""
        await self._below.aclose()


def reset(connection: trio.SocketStream) -> None:
    """Closes a TCP connection with a reset."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    connection.socket.close()
