"""A transport with layers on top, driven by trio.

Problem: layers make wire bytes both when we send and when we receive (a handshake, a key update),
two tasks use the stream at once, one per direction, and the bytes must reach the wire in the order
in which the layers made them.

Choice: whoever has made wire bytes flushes them under one lock. A sender waits for the lock, which
is its backpressure. A receiver does not: if a flush is under way, that flush takes the receiver's
bytes along. So receiving does not wait for a peer that does not read. What it has to say is kept
meanwhile, up to a limit.

Tested in `tests/unit/relay/test_stream.py`, among others with trio's own stream checks.
"""

import operator
from collections.abc import Callable
from math import inf
from typing import Final

import trio

from dbproxy.layers import Layer, LayerError, LayerStack, TruncatedError
from dbproxy.layers.base import ByteData
from dbproxy.relay.own_words import Kept, UnreadAnswersError, appended, check_kept
from dbproxy.relay.silence import SilenceError
from dbproxy.relay.socket_io import receive_now, send_some_now

__all__ = ["LayeredStream", "closed_on_failure"]

READ_SIZE: Final = 256 * 1024
"""Bytes asked of the transport at once: many TLS records per system call."""


def _for_ever() -> float:
    return inf


class _ConflictDetector:
    """Raises when two tasks do at once what only one may do."""

    __slots__ = ("_busy", "_message")

    def __init__(self, message: str) -> None:
        self._message = message
        self._busy = False

    def __enter__(self) -> None:
        if self._busy:
            raise trio.BusyResourceError(self._message)
        self._busy = True

    def __exit__(self, *_error: object) -> None:
        self._busy = False


class LayeredStream(trio.abc.HalfCloseableStream):
    """A byte stream whose bytes pass through layers on their way to the transport.

    One task may send while another receives. `receive_some` can be cancelled without losing a byte;
    after a cancelled `send_all` or `send_eof` only `aclose` makes sense, as for every trio stream.

    Errors: `LayerError` when the peer breaks the rules of a layer, and what the transport raises
    (`trio.BrokenResourceError`, `trio.ClosedResourceError`, `trio.BusyResourceError`).

    Args:
        transport: The stream underneath, usually a `trio.SocketStream`.

    Attributes:
        patience: Says how many seconds the next bytes may take to come; asked before each wait. A
            peer that takes longer is a `SilenceError`.
    """

    __slots__ = (
        "_closed",
        "_eof_sent",
        "_flush_lock",
        "_keeps_word",
        "_layers",
        "_received",
        "_receiving",
        "_sending",
        "_socket",
        "_unsent",
        "patience",
        "transport",
    )

    def __init__(self, transport: trio.abc.HalfCloseableStream) -> None:
        self.transport = transport
        self._socket = transport if isinstance(transport, trio.SocketStream) else None
        self.patience: Callable[[], float] = _for_ever
        self._layers = LayerStack()
        self._received = b""
        self._unsent: Kept = b""  # it goes out before what the layers still have
        self._eof_sent = False
        self._closed = False
        self._keeps_word = False
        self._flush_lock = trio.Lock()
        self._sending = _ConflictDetector("another task is sending on this stream")
        self._receiving = _ConflictDetector("another task is receiving from this stream")

    async def add_layer(
        self, layer: Layer, received: ByteData = b"", *, keep_last_word: bool = False
    ) -> None:
        """Put a layer on top and complete its handshake.

        Args:
            layer: Not started yet.
            received: Bytes taken out of this stream already that belong to the new layer. Those
                that are still in it belong to the new layer too.
            keep_last_word: Whether what the handshake ends with may wait for what is sent next, and
                leave in one packet with it. It does not wait while this stream receives.

        Raises:
            LayerError: The handshake failed; the layer's last word has been sent where possible.
            TruncatedError: The transport ended during the handshake.
        """
        received, self._received = bytes(received) + self._received, b""
        self._layers.push(layer)
        layer.start()
        early = await self._take_layers_word(layer, received) if received else b""
        if received or layer.handshaking:
            await self._flush()
        while self._layers.handshaking:
            if self._layers.ended:
                raise TruncatedError("the connection ended during the handshake")
            early += await self._receive_batch()
            self._keeps_word = keep_last_word and not self._layers.handshaking
            if not self._keeps_word:
                await self._flush()
        self._received = early

    def unread(self, data: ByteData) -> None:
        """Put back what was received and belongs to whatever comes next, such as a new layer."""
        self._received = bytes(data) + self._received

    def take_received(self) -> bytes:
        """The bytes that have been received and not handed out; without waiting."""
        received, self._received = self._received, b""
        return received

    def take_unsent(self) -> bytes:
        """What is on its way already, such as the rest of what somebody was cancelled sending.

        It goes out before all else.
        """
        unsent, self._unsent = self._unsent, b""
        return bytes(unsent)

    def lend(self) -> tuple[trio.SocketStream, LayerStack]:
        """Socket and layers, for who moves bytes without this class until the connection ends.

        Whoever sends takes what is unsent first.
        """
        assert isinstance(self.transport, trio.SocketStream)  # noqa: S101 - the caller has looked
        return self.transport, self._layers

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes; `b""` when the peer has ended its direction."""
        await trio.lowlevel.checkpoint()
        return await self.receive_promptly(max_bytes)

    async def receive_promptly(self, max_bytes: int | None = None) -> bytes:
        """As `receive_some`, but others do not get their turn when something is there already."""
        with self._receiving:
            if max_bytes is not None and operator.index(max_bytes) < 1:
                raise ValueError("max_bytes must be at least 1")
            self._check_open()
            while not self._received and not self._layers.ended:
                self._received = await self._receive_batch()
                await self._reply()
                if not self._received:  # who sends nothing but pings must not keep others out
                    await trio.lowlevel.checkpoint()
            if not self._received:
                self._layers.receive_eof()
            return self._take(max_bytes)

    def _take(self, max_bytes: int | None) -> bytes:
        if max_bytes is None:
            max_bytes = len(self._received)
        taken, self._received = self._received[:max_bytes], self._received[max_bytes:]
        return taken

    async def _receive_batch(self) -> bytes:
        """One read from the transport, through the layers; `b""` when nothing came out of it."""
        data = await self._receive_wire()
        if data:
            return await self._take_layers_word(self._layers, data)
        self._layers.receive_eof()
        return b""

    async def _receive_wire(self) -> ByteData:
        if self._keeps_word:
            await self._flush()
        limit = self.patience()
        try:
            if self._socket is not None:
                return await receive_now(self._socket, READ_SIZE, limit=limit)
            with trio.fail_after(limit):
                return await self.transport.receive_some(READ_SIZE)
        except trio.TooSlowError as error:
            raise SilenceError(limit) from error

    async def _send_to_transport(self, data: bytes) -> None:
        """What is unsent, then `data`. On a socket, what is left when it is cancelled is kept."""
        unsent, self._unsent = self._unsent + data, b""
        if self._socket is None:
            await self.transport.send_all(unsent)
            return
        left = memoryview(unsent)
        try:
            while left:
                left = left[await send_some_now(self._socket, left) :]
        except trio.Cancelled:  # what has failed is not tried again: the peer may still speak
            self._unsent = bytes(left) + self._unsent
            raise

    async def _take_layers_word(self, layer: Layer, data: ByteData) -> bytes:
        """Give wire bytes to `layer`; if it fails, its last word (an alert) goes out first."""
        try:
            return layer.receive(data)
        except LayerError as error:
            await self._send_last_word(error)
            raise

    async def _send_last_word(self, error: LayerError) -> None:
        try:
            await self._send_own_word()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            error.add_note("the peer was gone before it could be told")
        except UnreadAnswersError:
            error.add_note("the peer does not read what it is told")

    async def _reply(self) -> None:
        """Send what receiving has made; who does not listen may have spoken all the same."""
        try:
            await self._send_own_word()
        except trio.BrokenResourceError:
            return  # whoever sends next is told, and whoever reads on, if the peer is gone

    async def _send_own_word(self) -> None:
        """Send what receiving has made, and nothing else.

        A flush under way takes it along. Without one, no sender's bytes are waiting yet, and there
        is no checkpoint here in which one could add some: a receiver that had to send those would
        wait for the peer to read, and two ends that both wait so would wait for ever.

        Raises:
            UnreadAnswersError: The peer asks for more and more and reads nothing.
        """
        if self._flush_lock.locked():
            if word := self._layers.outgoing():
                self._unsent = appended(self._unsent, word)
                check_kept(len(self._unsent))
            return
        if (word := self._layers.outgoing()) or self._unsent:
            self._flush_lock.acquire_nowait()
            try:
                await self._send_to_transport(word)
            finally:
                self._flush_lock.release()

    async def send_all(self, data: ByteData) -> None:
        """Send all bytes; returns when the transport has taken them."""
        with self._sending:
            self._check_open()
            if self._eof_sent:
                raise trio.ClosedResourceError("the end has been sent already")
            if not data:
                await trio.lowlevel.checkpoint()
                return
            self._layers.send(data)
            await self._flush()
            await self._pass_checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the transport might take bytes without waiting."""
        with self._sending:
            self._check_open()
            async with self._flush_lock:
                await self.transport.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """End our direction; the other one goes on.

        With TLS the end is said in-band, by the innermost close_notify; the transport stays open in
        both directions, because boxes in between cut half-closed connections.
        """
        with self._sending:
            self._check_open()
            if self._eof_sent:
                await trio.lowlevel.checkpoint()
                return
            self._eof_sent = True
            self._layers.send_eof()
            await self._flush()
            await self._pass_checkpoint()
            if not self._layers.announces_end:
                await self.transport.send_eof()

    async def _flush(self) -> None:
        """Send what there is. On a socket that takes it at once, others do not get their turn."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._keeps_word = False
        lock = self._flush_lock
        if lock.locked():
            await lock.acquire()
        else:
            lock.acquire_nowait()
        try:
            while (outgoing := self._layers.outgoing()) or self._unsent:
                await self._send_to_transport(outgoing)
        finally:
            lock.release()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")

    async def _pass_checkpoint(self) -> None:
        """Give others their turn after what is done: a socket's part of it may not have."""
        if self._socket is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()

    @property
    def ended(self) -> bool:
        """Whether the peer has ended its direction, or broken the rules of a layer."""
        return self._layers.ended

    @property
    def announces_end(self) -> bool:
        """Whether ends are said in-band: who says so has not broken off."""
        return self._layers.announces_end

    async def aclose(self) -> None:
        """Close at once, without a word to the peer beyond what has been sent."""
        self._closed = True
        await self.transport.aclose()

    async def abandon(self) -> None:
        """Close at once, also when cancelled, as `trio.aclose_forcefully` does.

        On a socket it neither waits nor gives the turn away.
        """
        self._closed = True
        if self._socket is not None:
            self._socket.socket.close()
        else:
            await trio.aclose_forcefully(self.transport)


class closed_on_failure:  # noqa: N801 - used as a function is
    """Close `stream` at once if the block fails or is cancelled; otherwise it stays open.

    Args:
        stream: The stream.
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: LayeredStream) -> None:
        self._stream = stream

    async def __aenter__(self) -> None:
        """Do nothing yet."""

    async def __aexit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if kind is not None:
            await self._stream.abandon()
