"""The ends of a relayed connection on sockets that take only a part of what they are given."""

import gc
import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest
import trio
from openssl_ends import client_layer, server_layer
from tls_peers import BROKEN_RECORD, Credentials, shake_hands

from dbproxy.layers import Layer, LayerStack, PingLayer, TLSError, TLSLayer, WebSocketLayer
from dbproxy.relay.ends import FULL_SIZE, HEADROOM, Buffers, End, Regions, make_end
from dbproxy.relay.own_words import MOST_KEPT, UnreadAnswersError

LITTLE = 4096
"""Bytes that the socket is asked to keep; the system takes somewhat more."""


def put(buffers: Buffers, sizes: Sequence[int], seed: int = 0) -> tuple[Regions, bytes]:
    """Regions of these sizes in the shared buffer, with a gap before each, and what is in them."""
    regions, pieces, end = [], [], 0
    for number, size in enumerate(sizes):
        start, end = end + HEADROOM, end + HEADROOM + size
        piece = random.Random(seed + number).randbytes(size)
        buffers.plain.view[start:end] = piece
        regions.append((start, end))
        pieces.append(piece)
    return regions, b"".join(pieces)


def receive_until_flushed(end: End, peer: socket.socket) -> bytes:
    """What arrives at the peer until nothing is kept, and is on its way then."""
    received = bytearray()
    while not end.flush():
        received += peer.recv(1 << 20)
    with suppress(BlockingIOError):
        while True:
            received += peer.recv(1 << 20)
    return bytes(received)


@pytest.mark.parametrize("full", [False, True], ids=["room for little", "no room"])
@pytest.mark.parametrize(
    "sizes",
    [[200_000], [100_000, 7, 50_000], [4_000] * 60, [100] * 2_000],
    ids=["one region", "a large one first", "many", "more than the system takes at once"],
)
def test_what_a_socket_does_not_take_is_kept_whole_and_in_order(
    sizes: list[int], full: bool
) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LITTLE)
        ours.setblocking(False)
        peer.setblocking(False)
        before = b""
        with suppress(BlockingIOError):
            while full:
                before += b"x" * ours.send(b"x")
        buffers = Buffers()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        end = make_end(stream, LayerStack(), buffers)
        regions, data = put(buffers, sizes)
        assert end.write(regions) == len(data)
        assert end.unsent
        more_regions, more = put(buffers, [10, 20, 30], seed=1)
        assert end.write(more_regions) == len(more)
        assert receive_until_flushed(end, peer) == before + data + more


@contextmanager
def tls_end(localhost: Credentials) -> Iterator[tuple[End, TLSLayer, socket.socket]]:
    """An end that more waits for than may, with what is at the other side."""
    ours, peer = socket.socketpair()
    near, far = client_layer(), server_layer(localhost)
    shake_hands(near, far)
    with ours, peer:
        ours.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        end = make_end(stream, LayerStack(near), Buffers())
        end.unsent = bytes(MOST_KEPT + 1)
        yield end, far, peer


def test_who_has_asked_for_too_much_is_given_up_when_it_asks_for_more(
    localhost: Credentials,
) -> None:
    """With TLS alone, where the peer's close_notify is what is looked at."""
    with tls_end(localhost) as (end, far, peer):
        far.send_eof()
        peer.send(far.outgoing())
        with pytest.raises(UnreadAnswersError):
            end.read()


def test_why_an_answer_was_due_is_told_rather_than_that_it_is_not_read(
    localhost: Credentials,
) -> None:
    with tls_end(localhost) as (end, _far, peer):
        peer.send(BROKEN_RECORD)
        with pytest.raises(TLSError):
            end.read()


class TestLate:
    """What was kept for later, on a socket that takes all, little, nothing, or fails."""

    def test_all_is_sent(self) -> None:
        with plain_end() as (end, peer):
            end.unsent = b"question"
            assert end.send_late()
            assert end.unsent == b""
            assert peer.recv(100) == b"question"

    def test_what_is_not_taken_stays_in_order(self) -> None:
        with plain_end() as (end, peer):
            data = random.Random(1).randbytes(300_000)
            end.unsent = data
            assert end.send_late()
            assert 0 < len(end.unsent) < len(data)
            kept = end.unsent
            assert end.send_late(), "a full socket is no failure"
            assert end.unsent == kept
            assert receive_until_flushed(end, peer) == data

    def test_a_failure_is_told_by_the_next_flush(self) -> None:
        with plain_end() as (end, peer):
            end.unsent = b"question"
            peer.close()
            assert not end.send_late()
            assert end.unsent == b"question"
            for _ in range(2):
                with pytest.raises(BrokenPipeError):
                    end.flush()


def fail_to_send() -> None:
    with plain_end() as (end, peer):
        end.unsent = b"question"
        peer.close()
        assert not end.send_late()
        with suppress(BrokenPipeError):
            end.flush()


def test_an_end_that_could_not_send_is_gone_without_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        fail_to_send()
        assert not [one for one in gc.get_objects() if isinstance(one, End)]
    finally:
        gc.enable()


@contextmanager
def plain_end() -> Iterator[tuple[End, socket.socket]]:
    """An end without layers, and its peer."""
    ours, peer = socket.socketpair()
    with ours, peer:
        for one in (ours, peer):
            one.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        yield make_end(stream, LayerStack(), Buffers()), peer


def test_what_a_socket_has_is_told_by_an_event_and_not_asked_for() -> None:
    with plain_end() as (end, peer):
        peer.sendall(b"hello")
        assert not end.readable


def test_a_full_read_may_have_left_something_and_a_smaller_one_has_not() -> None:
    with plain_end() as (end, peer):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * FULL_SIZE)
        for rest in (0, 1):
            assert peer.send(bytes(FULL_SIZE + rest)) == FULL_SIZE + rest
            end.readable = True
            assert end.read() == ((HEADROOM, HEADROOM + FULL_SIZE),)
            assert end.readable
            assert end.read() == (((HEADROOM, HEADROOM + 1),) if rest else ())
            assert not end.readable


@pytest.mark.parametrize(
    ("layers", "frames"),
    [([], 0), ([WebSocketLayer()], 1), ([PingLayer(), WebSocketLayer()], 1)],
    ids=["plain", "websocket", "two layers"],
)
def test_thousands_of_small_pieces_leave_as_one(layers: list[Layer], frames: int) -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setblocking(False)
        buffers = Buffers()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        end = make_end(stream, LayerStack(*layers), buffers)
        regions, data = put(buffers, [1] * 5_000)
        assert end.write(regions) == len(data)
        wire = peer.recv(1 << 20)
        assert wire.count(b"\x82\xfe") == frames
        assert wire.endswith(data)
