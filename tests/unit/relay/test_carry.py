"""What carries from one kind of end to another does what the ends themselves do."""

import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from openssl_ends import client_layer
from relay_bench import running
from tls_peers import Credentials, StdlibTLS, server_context, shake_hands

from dbproxy.layers import LayerStack, PingLayer, TLSError, TruncatedError
from dbproxy.relay.carry import SMALL, Carry, SinkFailed, carrier, carry
from dbproxy.relay.ends import Buffers, End, EndOfStream, TLSEnd, make_end
from dbproxy.relay.fast import FastRelay

PING = b"\0\0\0\0"
MOST = 1 << 20

pinging = pytest.mark.parametrize("ping", [False, True], ids=["plain ALPN", "ping"])
both_ways = pytest.mark.parametrize("own", [False, True], ids=["by the ends", "in one function"])


@dataclass
class Pair:
    """A client without layers and an upstream with TLS, and who is at their other ends."""

    client: End
    upstream: End
    application: socket.socket
    teleport: socket.socket
    tls: StdlibTLS
    ping: PingLayer | None
    own: bool

    def carrier(self, source: End, sink: End) -> Carry:
        return carrier(source, sink) if self.own else carry

    def up(self) -> int:
        return self.carrier(self.client, self.upstream)(self.client, self.upstream)

    def down(self) -> int:
        return self.carrier(self.upstream, self.client)(self.upstream, self.client)

    def in_bulk(self) -> bool:
        assert isinstance(self.upstream, TLSEnd)
        return self.upstream.in_bulk

    def framed(self, data: bytes) -> bytes:
        return data if self.ping is None else len(data).to_bytes(4, "big") + data

    def say(self, data: bytes) -> None:
        """The upstream says it, in a record of its own."""
        self.tls.send(data)
        self.teleport.sendall(self.tls.outgoing())

    def heard(self) -> bytes:
        """What has come to the upstream, without frames."""
        data = b"".join(self.tls.receive(piece) for piece in received(self.teleport))
        if self.ping is None:
            return data
        frames = PingLayer()
        return frames.receive(data)


def received(peer: socket.socket) -> Iterator[bytes]:
    with suppress(BlockingIOError):
        while piece := peer.recv(MOST):
            yield piece


@contextmanager
def pair(credentials: Credentials, *, ping: bool, own: bool) -> Iterator[Pair]:
    near, application = socket.socketpair()
    wire, teleport = socket.socketpair()
    with near, application, wire, teleport:
        for one in (near, application, wire, teleport):
            one.setblocking(False)
        tls, frames = client_layer(), PingLayer() if ping else None
        server = StdlibTLS(server_context(credentials), server_side=True)
        shake_hands(tls, server)
        buffers = Buffers()
        layers = LayerStack(tls, frames) if frames is not None else LayerStack(tls)
        yield Pair(
            make_end(stream_on(near), LayerStack(), buffers),
            make_end(stream_on(wire), layers, buffers),
            application,
            teleport,
            server,
            frames,
            own,
        )


def stream_on(plain: socket.socket) -> trio.SocketStream:
    return trio.SocketStream(trio.socket.from_stdlib_socket(plain))


Sizes = st.lists(
    st.one_of(
        st.integers(1, 200),
        st.integers(SMALL - 30, SMALL + 30),
        st.sampled_from([16_000, 16_384, 40_000]),
    ),
    min_size=1,
    max_size=6,
)


class TestMessages:
    """Of all sizes, in both directions."""

    @given(sizes=Sizes, ping=st.booleans(), own=st.booleans())
    def test_each_arrives_and_counts(
        self, localhost: Credentials, sizes: list[int], ping: bool, own: bool
    ) -> None:
        with pair(localhost, ping=ping, own=own) as bench:
            for size in sizes:
                message = random.Random(size).randbytes(size)
                bench.application.sendall(message)
                assert bench.up() == size
                assert bench.heard() == message
                assert not bench.client.readable, "more is a new event"
                bench.say(bench.framed(message))
                assert drained(bench.down, bench.upstream) == size
                assert b"".join(received(bench.application)) == message

    @given(
        pieces=st.lists(st.integers(1, 3000), min_size=1, max_size=8),
        cuts=st.lists(st.integers(1, 30_000), max_size=6),
        pings=st.integers(0, 3),
        own=st.booleans(),
    )
    def test_frames_and_records_may_be_cut_anywhere(
        self, localhost: Credentials, pieces: list[int], cuts: list[int], pings: int, own: bool
    ) -> None:
        with pair(localhost, ping=True, own=own) as bench:
            said = random.Random(pings).randbytes(sum(pieces))
            frames, position = b"", 0
            for number, size in enumerate(pieces):
                frames += bench.framed(said[position : position + size])
                frames += PING * (pings if number == 0 else 0)
                position += size
            for piece in cut(frames, cuts):
                bench.tls.send(piece)
            wire, carried = bench.tls.outgoing(), 0
            for piece in cut(wire, cuts):
                bench.teleport.sendall(piece)
                bench.upstream.readable = True
                carried += drained(bench.down, bench.upstream)
            assert carried == len(said)
            assert b"".join(received(bench.application)) == said
            assert bench.ping is not None
            assert bench.ping.pings_received == pings


class TestBulk:
    """As long as there is more to send than is read at once, many records are made at once."""

    @pytest.fixture(autouse=True)
    def _read_less(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dbproxy.relay.ends.FULL_SIZE", 50_000)

    @pytest.mark.parametrize("rest", [0, 1, SMALL, SMALL + 1, 49_999])
    @pytest.mark.parametrize("full", [1, 3])
    def test_it_ends_with_the_first_read_that_is_not_full(
        self, localhost: Credentials, full: int, rest: int
    ) -> None:
        with pair(localhost, ping=True, own=True) as bench:
            data = random.Random(rest).randbytes(50_000 * full + rest)
            bench.application.sendall(data)
            arrived = b""
            for _ in range(full):
                assert bench.up() == 50_000
                assert bench.in_bulk()
                arrived += bench.heard()
            assert bench.up() == rest
            assert not bench.in_bulk()
            assert arrived + bench.heard() == data
            bench.application.sendall(b"small again")
            assert bench.up() == 11
            assert bench.heard() == b"small again"

    def test_it_ends_with_the_direction(self, localhost: Credentials) -> None:
        with pair(localhost, ping=True, own=True) as bench:
            bench.application.sendall(bytes(50_000))
            bench.application.shutdown(socket.SHUT_WR)
            assert bench.up() == 50_000
            assert bench.in_bulk()
            with pytest.raises(EndOfStream):
                bench.up()
            bench.upstream.end()
            assert not bench.in_bulk()
            assert bench.heard() == bytes(50_000)
            assert bench.tls.ended

    async def test_it_ends_also_when_the_upstream_has_not_taken_all_at_once(
        self, localhost: Credentials
    ) -> None:
        async with running(True, "tls-ping", localhost, b"hello") as bench:
            assert isinstance(bench.relay, FastRelay)
            await bench.database.send_all(b"welcome")
            assert await bench.client.receive_some() == b"welcome"
            sink, sent = bench.relay._up.sink, 5
            assert isinstance(sink, TLSEnd)
            while not sink.unsent:
                sent += os.write(bench.client.socket.fileno(), bytes(50_000))
                await trio.testing.wait_all_tasks_blocked()
            sent += os.write(bench.client.socket.fileno(), b"the last message")
            assert (bool(sink.unsent), sink.in_bulk) == (True, True)
            heard = 0
            while heard < sent:
                heard += len(await bench.database.receive_some())
            await trio.testing.wait_all_tasks_blocked()
            assert (bool(sink.unsent), sink.in_bulk) == (False, False)
            await bench.client.send_eof()
            await bench.database.send_eof()


class TestManyFrames:
    """Records are made for all of them together, or each would keep others waiting."""

    @pinging
    def test_they_leave_in_whole_records(self, localhost: Credentials, ping: bool) -> None:
        with pair(localhost, ping=ping, own=False) as bench:
            plain, pieces = bench.upstream.buffers.plain, 5_000
            regions = [(8 * one + 4, 8 * one + 8) for one in range(pieces)]
            for start, end in regions:
                plain.view[start:end] = start.to_bytes(4, "big")
            said = b"".join(start.to_bytes(4, "big") for start, _end in regions)
            assert bench.upstream.write(regions) == len(said)
            wire = b"".join(received(bench.teleport))
            assert len(wire) < len(said) + 100
            heard = bench.tls.receive(wire)
            assert (heard if bench.ping is None else PingLayer().receive(heard)) == said


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted({place for place in cuts if place < len(data)}), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


@both_ways
def test_a_ping_alone_is_counted_and_carries_nothing(localhost: Credentials, own: bool) -> None:
    with pair(localhost, ping=True, own=own) as bench:
        bench.say(PING)
        assert bench.down() == 0
        bench.say(PING + PING)
        assert bench.down() == 0
        assert bench.ping is not None
        assert bench.ping.pings_received == 3
        assert not list(received(bench.application))


def drained(turn: Callable[[], int], source: End) -> int:
    size = turn()
    while source.readable:
        size += turn()
    return size


@both_ways
@pinging
class TestWhatIsNotUsual:
    """Is left to the ends, and comes out as there."""

    def test_nothing_there_is_no_end(self, localhost: Credentials, ping: bool, own: bool) -> None:
        with pair(localhost, ping=ping, own=own) as bench:
            for turn, source in ((bench.up, bench.client), (bench.down, bench.upstream)):
                source.readable = True
                assert turn() == 0
                assert not source.readable

    def test_a_clients_end(self, localhost: Credentials, ping: bool, own: bool) -> None:
        with pair(localhost, ping=ping, own=own) as bench:
            bench.application.sendall(b"last")
            bench.application.shutdown(socket.SHUT_WR)
            bench.client.readable = bench.client.hung_up = True
            assert bench.up() == len(b"last")
            assert bench.client.readable, "the end has been announced"
            with pytest.raises(EndOfStream):
                bench.up()
            assert bench.heard() == b"last"

    def test_an_upstreams_end_behind_its_last_word(
        self, localhost: Credentials, ping: bool, own: bool
    ) -> None:
        with pair(localhost, ping=ping, own=own) as bench:
            bench.tls.send(bench.framed(b"last"))
            bench.tls.send_eof()
            bench.teleport.sendall(bench.tls.outgoing())
            assert bench.down() == len(b"last")
            assert bench.upstream.readable, "no event tells of it"
            with pytest.raises(EndOfStream):
                bench.down()

    def test_an_upstream_that_is_cut_off(
        self, localhost: Credentials, ping: bool, own: bool
    ) -> None:
        with pair(localhost, ping=ping, own=own) as bench:
            bench.teleport.shutdown(socket.SHUT_WR)
            with pytest.raises(TruncatedError):
                bench.down()

    def test_a_broken_record(self, localhost: Credentials, ping: bool, own: bool) -> None:
        with pair(localhost, ping=ping, own=own) as bench:
            bench.teleport.sendall(b"\x17\x03\x03\0\x20" + bytes(32))
            with pytest.raises(TLSError, match="bad record mac"):
                bench.down()

    @pytest.mark.parametrize("size", [100, 50_000])
    def test_what_a_socket_does_not_take_is_kept(
        self, localhost: Credentials, ping: bool, own: bool, size: int
    ) -> None:
        with pair(localhost, ping=ping, own=own) as bench:
            for source, turn, sink, peer in (
                (bench.application, bench.up, bench.upstream, bench.teleport),
                (bench.teleport, bench.down, bench.client, bench.application),
            ):
                message = random.Random(size).randbytes(size)
                padding = fill(sink)
                if source is bench.application:
                    source.sendall(message)
                else:
                    bench.say(bench.framed(message))
                assert turn() == size
                assert sink.unsent
                assert not turn(), "there is nothing more to read"
                wire = b"".join(received(peer))
                while not sink.flush():
                    wire += b"".join(received(peer))
                wire = (wire + b"".join(received(peer)))[padding:]
                if peer is bench.teleport:
                    wire = bench.tls.receive(wire)[4 if ping else 0 :]
                assert wire == message

    def test_a_sink_that_is_gone_is_told_apart_from_the_source(
        self, localhost: Credentials, ping: bool, own: bool
    ) -> None:
        with pair(localhost, ping=ping, own=own) as bench:
            bench.application.sendall(b"for nobody")
            bench.teleport.close()
            with pytest.raises(SinkFailed) as caught:
                bench.up()
            assert isinstance(caught.value.reason, BrokenPipeError)

    def test_what_cannot_be_sealed_any_more_fails_in_words(
        self, localhost: Credentials, ping: bool, own: bool
    ) -> None:
        with pair(localhost, ping=ping, own=own) as bench:
            bench.upstream.end()
            bench.application.sendall(b"behind the end")
            with pytest.raises(SinkFailed) as caught:
                bench.up()
            assert isinstance(caught.value.reason, TLSError)


@pinging
class TestLate:
    """What is small waits until all that has come is read."""

    def test_it_is_kept_for_later_in_both_directions(
        self, localhost: Credentials, ping: bool
    ) -> None:
        with pair(localhost, ping=ping, own=True) as bench:
            late: list[End] = []
            bench.client.buffers.late = late
            bench.application.sendall(b"question")
            bench.say(bench.framed(b"answer"))
            assert (bench.up(), bench.down()) == (8, 6)
            assert late == [bench.upstream, bench.client]
            kept = [end.takes_more for end in late]
            assert not b"".join(received(bench.application))
            assert not bench.heard()
            bench.client.buffers.late = None
            assert kept + [end.takes_more for end in late] == [True, True, False, False]
            assert [end.send_late() for end in late] == [True, True]
            assert bench.heard() == b"question"
            assert b"".join(received(bench.application)) == b"answer"
            assert [end.takes_more for end in late] == [True, True]

    def test_what_is_large_leaves_at_once(self, localhost: Credentials, ping: bool) -> None:
        with pair(localhost, ping=ping, own=True) as bench:
            bench.client.buffers.late = []
            bench.application.sendall(bytes(SMALL + 1))
            assert bench.up() == SMALL + 1
            assert bench.heard() == bytes(SMALL + 1)
            assert bench.client.buffers.late == []


def fill(end: End) -> int:
    """Fill a socket; returns with how many bytes."""
    size = 0
    with socket.socket(fileno=os.dup(end.descriptor)) as ours, suppress(BlockingIOError):
        ours.setblocking(False)
        while True:
            size += ours.send(bytes(4096))
    return size


def test_other_pairs_are_left_to_the_ends() -> None:
    one, other = socket.socketpair()
    with one, other:
        end = make_end(stream_on(one), LayerStack(), Buffers())
        assert carrier(end, end) is carry
