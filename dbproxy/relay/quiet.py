"""Looking after a stream on which nobody has anything to say yet.

What comes then is for the layers alone: pings, session tickets, a key update. Taking it in never
waits, so whoever owns the stream may hand it over between any two looks.
"""

import os
from math import inf
from typing import Final

import trio

from dbproxy.layers import LayerError, LayerStack
from dbproxy.relay.silence import SilenceError
from dbproxy.relay.socket_io import broken_by
from dbproxy.relay.stream import LayeredStream

__all__ = ["take_in", "wait_until_readable"]

_READ_SIZE: Final = 4096
"""Bytes asked of the socket at once: what comes for the layers is small."""
_MOST_READS: Final = 16
"""Reads before others get their turn, should the peer send without a pause."""


async def wait_until_readable(stream: LayeredStream) -> None:
    """Wait until something has come, or the end; reads nothing. The stream must be on a socket.

    Raises:
        SilenceError: The peer had promised to send something by now.
    """
    transport, layers = stream.lend()
    if layers.ended:  # in-band, with what was received before
        await trio.lowlevel.checkpoint()
        return
    limit = stream.patience()
    if limit == inf:
        await trio.lowlevel.wait_readable(transport.socket)
        return
    with trio.move_on_after(limit):
        await trio.lowlevel.wait_readable(transport.socket)
        return
    raise SilenceError(limit)


def take_in(stream: LayeredStream) -> bytes | None:
    """Give the layers what has come. The stream must be on a socket, and nobody else may read.

    Returns:
        What came out of the layers; `b""` when the peer has ended its direction; `None` for
        neither.

    Raises:
        LayerError: The peer broke the rules of a layer.
        trio.BrokenResourceError: The connection failed.
    """
    if received := stream.take_received():
        return received
    transport, layers = stream.lend()
    if layers.ended:
        layers.receive_eof()
        return b""
    try:
        return _read(stream, transport.socket.fileno(), layers)
    except OSError as error:
        raise broken_by(error) from error


def _read(stream: LayeredStream, descriptor: int, layers: LayerStack) -> bytes | None:
    for _ in range(_MOST_READS):
        try:
            data = os.read(descriptor, _READ_SIZE)
        except BlockingIOError:
            return None
        received = _receive(stream, descriptor, layers, data)
        if received:
            return received
        if not data or layers.ended:
            layers.receive_eof()
            return b""
        if len(data) < _READ_SIZE:
            return None
    return None  # the rest is there the next time


def _receive(stream: LayeredStream, descriptor: int, layers: LayerStack, data: bytes) -> bytes:
    try:
        received = layers.receive(data)
    except LayerError as error:
        try:
            _answer(stream, descriptor, layers)  # an alert, mostly
        except OSError:
            error.add_note("the peer could not be told")
        raise
    _answer(stream, descriptor, layers)
    return received


def _answer(stream: LayeredStream, descriptor: int, layers: LayerStack) -> None:
    """Send what receiving has made, such as a pong: so little that an idle socket takes it."""
    word = stream.take_unsent() + layers.outgoing()
    if word and os.write(descriptor, word) < len(word):
        raise BlockingIOError("the peer does not take what an idle connection has to say")
