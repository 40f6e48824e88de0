"""The two ends of a relayed connection, for the reactor: sockets that never wait.

An end reads what its socket has, through the layers, into buffers that all connections of a
reactor share, and writes what the other end has read. What the socket does not take is kept, and
then nothing more is read for it. So a connection needs memory only for bytes that somebody does not
take.

There are three kinds, for speed: no layers; TLS with or without ping framing, on OpenSSL's own
buffers; and any other stack of layers, such as TLS in WebSocket frames in TLS.

What has been read is told as *regions* of the shared buffer of plain bytes: pairs of positions. In
front of each region are four bytes that count no more, so that a frame's header fits there.
"""

import errno
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import readv, write
from typing import Final, TypeAlias

import trio

from dbproxy.layers import LayerStack, PingLayer, TLSLayer
from dbproxy.layers.openssl import SETTLED, Scratch
from dbproxy.layers.ping import HEADER_SIZE, put_header
from dbproxy.relay.own_words import Kept, appended, check_kept

__all__ = [
    "FULL_SIZE",
    "HEADROOM",
    "READ_SIZE",
    "Buffers",
    "End",
    "EndOfStream",
    "PlainEnd",
    "Regions",
    "TLSEnd",
    "make_end",
]

READ_SIZE: Final = 256 * 1024
"""Bytes asked of a socket at once: many TLS records per system call."""
HEADROOM: Final = HEADER_SIZE
"""Bytes in front of what was read, for the header of a ping frame."""
FULL_SIZE: Final = READ_SIZE - HEADROOM
"""Bytes of a read after which there may be more: as many as fill whole records with the header."""
_SLACK: Final = 64 * 1024
"""For records that were incomplete before, and for what TLS adds to what is sent."""
_MANY: Final = 64
"""Regions from which on it is cheaper to copy them together; the system takes 1,024 at most, and
a record for each of thousands would keep others waiting."""

Regions: TypeAlias = Sequence[tuple[int, int]]


@dataclass(slots=True)
class Buffers:
    """What all connections of a reactor share: in use between two system calls only.

    Attributes:
        wire: What has been received and is to go through layers.
        plain: What has come out of them.
        out: What is to be sent.
        into_wire: Where to receive the former, as `os.readv` wants it.
        into_plain: Where to receive what goes through no layers.
        late: Whose small messages are kept until all that has come is read, for `End.send_late`;
            None while each message leaves at once.
    """

    wire: Scratch = field(default_factory=lambda: Scratch(READ_SIZE))
    plain: Scratch = field(default_factory=lambda: Scratch(HEADROOM + READ_SIZE + _SLACK))
    out: Scratch = field(default_factory=lambda: Scratch(READ_SIZE + _SLACK))
    into_wire: Sequence[memoryview] = field(init=False)
    into_plain: Sequence[memoryview] = field(init=False)
    late: list["End"] | None = None

    def __post_init__(self) -> None:
        self.into_wire = [self.wire.view]
        self.into_plain = [self.plain.view[HEADROOM : HEADROOM + FULL_SIZE]]


class EndOfStream(Exception):
    """The peer has ended its direction, as the layers allow it."""


class End(ABC):
    """One side of a connection.

    Args:
        transport: The socket.
        layers: What is on it; their handshakes are over.
        buffers: The reactor's.

    Attributes:
        buffers: The reactor's.
        descriptor: The socket's.
        readable: Whether there may be something to read: since the last event, no read has come
            back with less than was asked for. At first only if the layers have ended, which no
            event tells of; what the socket has already is told by one.
        hung_up: Whether the peer has ended its direction already: then reading goes on to the end.
        unsent: What the socket has not taken, or is to be sent late.
    """

    __slots__ = (
        "_failed",
        "_layers",
        "_transport",
        "buffers",
        "descriptor",
        "hung_up",
        "readable",
        "unsent",
    )

    def __init__(self, transport: trio.SocketStream, layers: LayerStack, buffers: Buffers) -> None:
        self.descriptor = transport.socket.fileno()
        self.readable = layers.ended
        self.hung_up = False
        self.unsent: Kept = b""
        self._failed = 0  # why: an exception would know this end, and both would stay for longer
        self._transport = transport
        self._layers = layers
        self.buffers = buffers

    def note_size(self, size: int) -> None:  # noqa: B027 - who has nothing to do does nothing
        """So many bytes were read at once for this end, or none."""

    @property
    def announces_end(self) -> bool:
        """Whether ends are said in-band: who says so has not broken off."""
        return self._layers.announces_end

    @property
    def takes_more(self) -> bool:
        """Whether nothing is kept, or only what the socket has not yet been asked to take."""
        return not self.unsent or self.buffers.late is not None

    @abstractmethod
    def read(self) -> Regions:
        """What has come, in the shared buffer of plain bytes; good until any end reads again.

        Empty when nothing came out of the layers, or nothing was there.

        Raises:
            EndOfStream: The end, and a good one.
            LayerError: The peer broke the rules of a layer.
            OSError: The connection failed.
        """

    @abstractmethod
    def write(self, regions: Regions) -> int:
        """Send them, and return their size; what the socket does not take is kept in `unsent`.

        Raises:
            LayerError: A layer failed.
            OSError: The connection failed.
        """

    def flush(self) -> bool:
        """Send what was kept; returns whether nothing is kept now.

        Raises:
            OSError: The connection failed.
        """
        if self._failed:
            raise _os_error(self._failed)
        if self.unsent:
            self._send_unsent()
        return not self.unsent

    def send_late(self) -> bool:
        """Send what was kept for later; returns whether that went well.

        Otherwise all of it is still kept, and `flush` says what went wrong.
        """
        try:
            self._send_unsent()
        except OSError as error:
            self._note_failure(error)
            return False
        return True

    def _send_unsent(self) -> None:
        try:
            sent = write(self.descriptor, self.unsent)
        except BlockingIOError:
            return
        self.unsent = self.unsent[sent:]

    def _note_failure(self, error: OSError) -> None:
        self._failed = error.errno or errno.EPIPE

    def why_gone(self) -> OSError:
        """Why the peer is gone; told only once, and reading then looks like a good end."""
        number = self._transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return _os_error(number or errno.ECONNRESET)

    def end(self) -> None:
        """Say that no more bytes will come: in-band where there are layers.

        Raises:
            LayerError: A layer failed.
            OSError: The connection failed.
        """
        if self._layers.announces_end:
            self._layers.send_eof()
            self._push_own_word()
        else:
            self._transport.socket.shutdown(socket.SHUT_WR)

    def receive(self, places: Sequence[memoryview]) -> int:
        """What the socket has, with one system call: how many bytes; 0 when there is nothing.

        Raises:
            EndOfStream, LayerError, OSError: As `read`.
        """
        try:
            size = readv(self.descriptor, places)
        except BlockingIOError:
            self.readable = False
            return 0
        if size < FULL_SIZE:
            if not size:
                self._layers.receive_eof()
                raise EndOfStream
            if not self.hung_up:
                self.readable = False  # a further byte, or the end, is a new event
        return size

    def _check_not_ended(self) -> None:
        if self._layers.ended:
            self._layers.receive_eof()
            raise EndOfStream

    def push(self, data: memoryview) -> None:
        """Send, behind what was kept; raises `OSError`."""
        if self.unsent:
            self.unsent = appended(self.unsent, data)
            return
        try:
            sent = write(self.descriptor, data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self.unsent = bytes(data[sent:])

    def _joined(self, regions: Regions) -> Regions:
        """The same bytes in one region, if there are many."""
        if len(regions) <= _MANY:
            return regions
        view = self.buffers.plain.view
        joined = b"".join([view[start:end] for start, end in regions])
        end = HEADROOM + len(joined)
        view[HEADROOM:end] = joined
        return ((HEADROOM, end),)

    def _push_own_word(self) -> None:
        """Send what the layers have made."""
        if word := self._layers.outgoing():
            self.push(memoryview(word))

    def _reply(self, push: Callable[[], None]) -> None:
        """Send what reading has made the layers say.

        Who does not listen may have spoken all the same, so what has been read is good; the next to
        send finds out, or `flush`.
        """
        try:
            push()
        except OSError as error:
            self._note_failure(error)


class PlainEnd(End):
    """No layers: bytes are what they are."""

    __slots__ = ()

    def read(self) -> Regions:
        size = self.receive(self.buffers.into_plain)
        return ((HEADROOM, HEADROOM + size),) if size else ()

    def write(self, regions: Regions) -> int:
        view = self.buffers.plain.view
        regions = self._joined(regions)
        if len(regions) == 1:
            ((start, end),) = regions
            self.push(view[start:end])
            return end - start
        pieces = [view[start:end] for start, end in regions]
        size = sum(map(len, pieces))
        if self.unsent:
            self.push(memoryview(b"".join(pieces)))
            return size
        try:
            sent = os.writev(self.descriptor, pieces)
        except BlockingIOError:
            sent = 0
        if sent < size:
            self.unsent = b"".join(pieces)[sent:]
        return size


class TLSEnd(End):
    """TLS, with or without ping framing, on OpenSSL's buffers."""

    __slots__ = ("_tls", "ended", "in_bulk", "ping", "records")

    def __init__(
        self,
        transport: trio.SocketStream,
        layers: LayerStack,
        buffers: Buffers,
        tls: TLSLayer,
        ping: PingLayer | None,
    ) -> None:
        super().__init__(transport, layers, buffers)
        self._tls = tls
        self.records = tls.records
        self.ping = ping
        self.ended = tls.ended
        self.in_bulk = False

    def note_size(self, size: int) -> None:
        """Bulk is being sent as long as there is always as much to send as can be read at once."""
        if size >= FULL_SIZE:
            if not self.in_bulk:
                self.in_bulk = True
                self.records.begin_bulk()
        elif self.in_bulk:
            self.in_bulk = False
            self.records.end_bulk()

    def read(self) -> Regions:
        if self.ended:
            self._check_not_ended()
        buffers = self.buffers
        size = self.receive(buffers.into_wire)
        if not size:
            return ()
        return self.regions(*self.records.open(buffers.wire, size, buffers.plain, HEADROOM))

    def regions(self, end: int, result: int) -> Regions:
        """What is in the buffer for plain bytes after `Records.open`; raises as `read`."""
        plain = self.buffers.plain
        if result != SETTLED:
            self._settle(result, empty=end == HEADROOM)
        if end == HEADROOM:
            return ()
        if self.ping is None:
            return ((HEADROOM, end),)
        return self.ping.regions(plain.view, HEADROOM, end)

    def end(self) -> None:
        self.note_size(0)  # what bulk has needed is not needed for the other direction
        super().end()

    def _settle(self, result: int, *, empty: bool) -> None:
        """Reading has stopped for a reason, or there is something to be said to the peer."""
        try:
            self._tls.note_result(result, empty=empty)
        finally:
            self._reply(self._push_records)  # a key update is answered, a broken record told about
            if self._tls.ended:
                self.ended = self.readable = True  # no event tells of it
        check_kept(len(self.unsent))

    def write(self, regions: Regions) -> int:
        plain, out, records = self.buffers.plain, self.buffers.out, self.records
        framed = self.ping is not None
        size = filled = 0
        for start, end in self._joined(regions):
            size += end - start
            if framed:
                put_header(plain.view, start - HEADER_SIZE, end - start)
                start -= HEADER_SIZE
            sealed, filled = records.seal(plain, start, end, out, filled)
            if sealed < end:
                filled = self._seal_rest(sealed, end, filled)
        if filled:
            self.push(out.view[:filled])
        if filled == out.size:
            self._push_records()
        return size

    def _seal_rest(self, start: int, end: int, filled: int) -> int:
        """Make room, and go on; returns how much of the shared buffer is in use then."""
        plain, out = self.buffers.plain, self.buffers.out
        while start < end:
            self.push(out.view[:filled])
            sealed, filled = self.records.seal(plain, start, end, out, 0)
            if sealed == start:
                self._tls.send(plain.view[start:end])  # fails again, in words
                self._push_records()
                return 0
            start = sealed
        return filled

    def _push_records(self) -> None:
        """Send what OpenSSL has to say."""
        out = self.buffers.out
        end = out.size
        while end == out.size and (end := self.records.take(out)):
            self.push(out.view[:end])


class _LayeredEnd(End):
    """Any stack of layers."""

    __slots__ = ()

    def read(self) -> Regions:
        self._check_not_ended()
        wire, plain = self.buffers.wire, self.buffers.plain
        size = self.receive(self.buffers.into_wire)
        if not size:
            return ()
        try:
            payload = self._layers.receive(wire.view[:size])
        finally:
            self._reply(self._push_own_word)
        check_kept(len(self.unsent))
        if self._layers.ended:
            self.readable = True  # no event tells of it
        if not payload:
            return ()
        end = HEADROOM + len(payload)
        plain.view[HEADROOM:end] = payload
        return ((HEADROOM, end),)

    def write(self, regions: Regions) -> int:
        size = 0
        for start, end in self._joined(regions):
            self._layers.send(self.buffers.plain.view[start:end])
            size += end - start
        self._push_own_word()
        return size


def make_end(transport: trio.SocketStream, layers: LayerStack, buffers: Buffers) -> End:
    """The kind of end that fits the layers."""
    match tuple(layers):
        case ():
            return PlainEnd(transport, layers, buffers)
        case (TLSLayer() as tls,):
            return TLSEnd(transport, layers, buffers, tls, None)
        case (TLSLayer() as tls, PingLayer() as ping):
            return TLSEnd(transport, layers, buffers, tls, ping)
    return _LayeredEnd(transport, layers, buffers)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
