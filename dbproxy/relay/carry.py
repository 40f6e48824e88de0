"""Carrying what has come at one end to the other: read once, and send that on.

Problem: nearly all that a database connection carries are small messages, one at a time. Python's
own work on each, in `read` and `write` of the ends and what those call, took as long as the system
calls and OpenSSL together.

Choice: between a client without layers and an upstream with TLS, as in `tunnel` and `passthrough`,
one function does all of it for a message that fits into a record, as long as nothing else is to be
done: no end, no word of TLS's own, a socket that takes everything. Whatever is not so is left to
the ends.

Tested in `tests/unit/relay/test_carry.py`, beside the ends, and in `test_engines.py`.
"""

from collections.abc import Callable
from os import write
from typing import Final, TypeAlias, cast

from dbproxy.layers import LayerError
from dbproxy.layers.openssl import SETTLED
from dbproxy.layers.ping import HEADER_SIZE, put_header
from dbproxy.relay.ends import HEADROOM, End, PlainEnd, Regions, TLSEnd

__all__ = ["Carry", "SinkFailed", "carrier", "carry"]

SMALL: Final = 2048
"""Bytes of a client's message up to which it is small; it must fit into a record."""

Carry: TypeAlias = Callable[[End, End], int]
"""Reads once from a source, for a sink that has taken everything so far; returns how many bytes the
sink has sent or kept. Raises what `End.read` does, and `SinkFailed`."""


class SinkFailed(Exception):
    """What was read could not be sent.

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: OSError | LayerError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def carrier(source: End, sink: End) -> Carry:
    """What carries from one kind of end to another."""
    if isinstance(source, PlainEnd) and isinstance(sink, TLSEnd):
        return cast("Carry", _plain_to_tls)
    if isinstance(source, TLSEnd) and isinstance(sink, PlainEnd):
        return cast("Carry", _tls_to_plain)
    return carry


def carry(source: End, sink: End) -> int:
    """Carry between ends of any kind; for the rest see `Carry`."""
    return _send(source.read(), sink)


def _send(regions: Regions, sink: End) -> int:
    if not regions:
        return 0
    try:
        return sink.write(regions)
    except (OSError, LayerError) as error:
        raise SinkFailed(error) from error


def _send_small(data: memoryview, sink: End) -> None:
    late = sink.buffers.late
    if late is not None:
        sink.unsent = bytes(data)
        late.append(sink)
        return
    try:
        sent = write(sink.descriptor, data)
    except BlockingIOError:
        sent = 0
    except OSError as error:
        raise SinkFailed(error) from error
    if sent < len(data):
        sink.unsent = bytes(data[sent:])


def _plain_to_tls(source: PlainEnd, sink: TLSEnd) -> int:
    buffers = source.buffers
    size = source.receive(buffers.into_plain)
    if size > SMALL:
        sent = _send(((HEADROOM, HEADROOM + size),), sink)
        sink.note_size(size)
        return sent
    if sink.in_bulk:
        sink.note_size(size)
    if not size:
        return 0
    plain, out = buffers.plain, buffers.out
    if sink.ping is None:
        filled = sink.records.seal_one(plain, HEADROOM, HEADROOM + size, out)
    else:
        put_header(plain.view, 0, size)
        filled = sink.records.seal_one(plain, 0, HEADER_SIZE + size, out)
    if not filled:
        return _send(((HEADROOM, HEADROOM + size),), sink)  # fails again, in words
    _send_small(out.view[:filled], sink)
    return size


def _tls_to_plain(source: TLSEnd, sink: PlainEnd) -> int:
    if source.ended:
        return _send(source.read(), sink)
    buffers = source.buffers
    size = source.receive(buffers.into_wire)
    if not size:
        return 0
    plain = buffers.plain
    end, result = source.records.open(buffers.wire, size, plain, HEADROOM)
    ping = source.ping
    start = HEADROOM if ping is None else HEADROOM + HEADER_SIZE
    if (
        result != SETTLED
        or start >= end
        or (ping is not None and not ping.is_one_frame(plain.view, HEADROOM, end))
    ):
        return _send(source.regions(end, result), sink)
    _send_small(plain.view[start:end], sink)
    return end - start
