"""The relay on the reactor: the rules of `dbproxy.relay.pump`, without a task for each direction.

The rules are told there. Here each direction is a turn: what one end has is read, sent to the
other end, and if that does not take all of it, nothing more is read until it does (backpressure).
The task that runs the relay only waits for its end, and looks now and then whether an upstream that
has sent pings has fallen silent.

Tested in `tests/unit/relay/test_engines.py`, beside the plain relay, and in all integration tests.
"""

from collections.abc import Callable
from math import inf
from typing import Final

import trio

from dbproxy.events import ClosedBy
from dbproxy.layers import LayerError
from dbproxy.protocols import VerdictReader
from dbproxy.relay.carry import SinkFailed, carrier
from dbproxy.relay.ending import Ending, RelayEnd
from dbproxy.relay.ends import FULL_SIZE, HEADROOM, READ_SIZE, End, EndOfStream, Regions, make_end
from dbproxy.relay.first_flight import FirstFlight
from dbproxy.relay.pump import BUSY, LAST_WORD
from dbproxy.relay.reactor import GONE_EVENTS, LAST_EVENTS, READ_EVENTS, WRITE_EVENTS, Reactor
from dbproxy.relay.silence import SilenceError
from dbproxy.relay.socket_io import broken_by
from dbproxy.relay.stream import LayeredStream

__all__ = ["FastRelay"]

LOOKS: Final = 3
"""How often the upstream's silence is looked at until it has lasted too long."""


class _Direction:
    """From one end to the other.

    Attributes:
        source: Where bytes come from.
        sink: Where they go.
        ready: What must be sent before anything is read.
        waiting: Whether it waits for a turn.
        carry: Carries what is read, when there is nothing else to do.
        settled: Whether what is read is only moved, and nobody else wants to know of it.
        closing: Whether nothing more is read, and only what was kept is still sent.
        ended: Whether it has nothing more to do.
        steady: Whether there is nothing to do but to carry what is read: as nearly always.
    """

    __slots__ = (
        "carry",
        "closing",
        "ended",
        "ready",
        "settled",
        "sink",
        "source",
        "steady",
        "waiting",
    )

    def __init__(self, source: End, sink: End, ready: bytes) -> None:
        self.source = source
        self.sink = sink
        self.ready = ready
        self.carry = carrier(source, sink)
        self.waiting = False
        self.settled = False
        self.closing = False
        self.ended = False
        self.steady = False

    def settle(self, *, settled: bool = True) -> None:
        """From now on what is read is only moved, or it is not."""
        self.settled = settled
        self.steady = settled and not (self.ready or self.closing or self.ended)

    def close(self) -> None:
        """Read nothing more."""
        self.closing, self.steady = True, False

    def stop(self) -> None:
        """Do nothing more."""
        self.ended, self.steady = True, False

    def load(self, plain: memoryview) -> Regions:
        """Put the next piece of what is ready into the shared buffer."""
        piece, self.ready = self.ready[:READ_SIZE], self.ready[READ_SIZE:]
        self.settle(settled=self.settled)
        return _place(piece, plain)


class FastRelay:
    """As `Relay`, on a reactor; both streams must be on sockets.

    What an end has kept for its socket counts as delivered.

    Args:
        reactor: Gives the turns.
        client: The client's side.
        upstream: The Teleport Proxy's side.
        first_flight: As for `Relay`.
        answered: As for `Relay`.
        verdict: As for `Relay`.
    """

    __slots__ = (
        "_answered",
        "_bug",
        "_client_deaf",
        "_client_stream",
        "_down",
        "_ending",
        "_first_flight",
        "_heard",
        "_over",
        "_patience",
        "_reactor",
        "_up",
        "_upstream_gone",
        "_upstream_stream",
        "_verdict",
        "_wake",
        "bytes_down",
        "bytes_up",
    )

    def __init__(
        self,
        reactor: Reactor,
        client: LayeredStream,
        upstream: LayeredStream,
        first_flight: FirstFlight | None = None,
        answered: Callable[[], None] = lambda: None,
        verdict: VerdictReader | None = None,
    ) -> None:
        self._reactor = reactor
        self._client_stream = client
        self._upstream_stream = upstream
        self._first_flight = first_flight or FirstFlight()
        self._answered = answered
        self._verdict = verdict
        self.bytes_up = 0
        self.bytes_down = 0
        self._ending = Ending()
        self._client_deaf = False
        self._upstream_gone = False
        self._heard = False
        self._patience = inf
        self._bug: Exception | None = None
        self._wake = trio.Event()
        self._over = False

    async def run(self) -> RelayEnd:
        """Relay until both directions have ended or one side failed; closes neither stream.

        Cancellation ends it at once; bytes that were received and not delivered are lost with the
        connection, which cannot be used any further.
        """
        await trio.lowlevel.checkpoint_if_cancelled()  # together with the reactor, which is closed
        reactor = self._reactor
        client = make_end(*self._client_stream.lend(), reactor.buffers)
        transport, layers = self._upstream_stream.lend()
        upstream = make_end(transport, layers, reactor.buffers)
        said = self._client_stream.take_received()
        first = self._first_flight.data + said
        self._first_flight.note(said)
        self._up = _Direction(client, upstream, first)
        self._down = _Direction(upstream, client, self._upstream_stream.take_received())
        self._patience = self._upstream_stream.patience()
        try:
            reactor.watch(client.descriptor, self._client_event)
            reactor.watch(upstream.descriptor, self._upstream_event)
            client.unsent = self._client_stream.take_unsent()
            upstream.unsent = self._upstream_stream.take_unsent()
            if not first:
                upstream.unsent += layers.outgoing()  # what a handshake has left to be said
            for go in (self._go_up, self._go_down):  # at once: waking the reactor takes longer
                if go():
                    reactor.ask(go)
            await self._wait()
        finally:
            if not self._over:
                self._finish()
        if self._bug is not None:
            raise self._bug
        return self._ending.take_result()

    def _forget(self) -> None:
        for end in (self._up.source, self._down.source):
            self._reactor.forget(end.descriptor)

    async def _wait(self) -> None:
        """Wait for the end, and look after an upstream that has begun to send pings."""
        silent = 0
        while not self._over:
            patience = self._patience
            if self._client_deaf:
                await self._hear_client_out()
                return
            if patience == inf:
                await self._wake.wait()
            else:
                with trio.move_on_after(patience / LOOKS):
                    await self._wake.wait()
            if self._wake.is_set():
                self._wake = trio.Event()
                continue
            # While the client does not take what the upstream sends, its silence is our own; and
            # when it has ended its direction, it is silent for good.
            down = self._down
            silent = 0 if self._heard or down.sink.unsent or down.closing else silent + 1
            self._heard = False
            if silent >= LOOKS:
                self._note_upstream_failure(SilenceError(patience))
                if not self._over:
                    self._reactor.look_again(self._up.source.descriptor)

    async def _hear_client_out(self) -> None:
        """Neither a client that says nothing is waited for, nor an upstream that is stuck."""
        sink = self._up.sink
        before, since = -inf, trio.current_time()
        while not self._over:
            taken, now = self.bytes_up - len(sink.unsent), trio.current_time()
            if taken > before:  # less, when an answer of the layers' own has to wait
                before, since = taken, now
            elif now - since >= (BUSY if sink.unsent else LAST_WORD):
                self._finish()
                return
            with trio.move_on_after(LAST_WORD):
                while not self._over:
                    await self._wake.wait()
                    self._wake = trio.Event()

    def _client_event(self, events: int) -> None:
        up, down = self._up, self._down
        if events & READ_EVENTS:
            up.source.readable = True
            if events & LAST_EVENTS:
                up.source.hung_up = True
            if not up.waiting and self._go_up():
                self._reactor.ask(self._go_up)
        if events & GONE_EVENTS and not self._over:
            self._note_deaf_client(up.source.why_gone())  # reading may say so never, or too late
            self._ask_down()
            return
        if down.sink.unsent and events & WRITE_EVENTS and not down.waiting and self._go_down():
            self._reactor.ask(self._go_down)

    def _upstream_event(self, events: int) -> None:
        up, down = self._up, self._down
        if events & READ_EVENTS:
            down.source.readable = True
            if events & LAST_EVENTS:
                down.source.hung_up = True
            if not down.waiting and self._go_down():
                self._reactor.ask(self._go_down)
        if events & GONE_EVENTS:
            self._upstream_gone = True
            self._look_after_gone_upstream()
        if up.sink.unsent and events & WRITE_EVENTS and not up.waiting and self._go_up():
            self._reactor.ask(self._go_up)

    def _look_after_gone_upstream(self) -> None:
        """Once it has ended nobody reads any more, so nobody else would notice."""
        if self._upstream_gone and self._down.closing and not self._over:
            self._note_deaf_upstream(self._up.sink.why_gone())
            self._ask_up()

    def _ask_up(self) -> None:
        """For a turn of client to upstream; not in one."""
        if not (self._up.waiting or self._over):
            self._up.waiting = True
            self._reactor.ask(self._go_up)

    def _ask_down(self) -> None:
        """For a turn of upstream to client; not in one."""
        if not (self._down.waiting or self._over):
            self._down.waiting = True
            self._reactor.ask(self._go_down)

    def _go_up(self) -> bool:
        """A turn of client to upstream; returns whether another one is needed."""
        up = self._up
        source, sink = up.source, up.sink
        again = False
        try:
            try:
                if not up.steady or sink.unsent:
                    again = self._tidy_up()
                elif up.source.readable:
                    self.bytes_up += up.carry(source, sink)
                    again = source.readable and sink.takes_more
            except SinkFailed as failed:
                self._note_deaf_upstream(failed.reason)
                again = True
            except EndOfStream:
                self._ending.note(ClosedBy.CLIENT)
                self._end_up()
            except (OSError, LayerError) as error:  # of the client's
                self._lose_client(error)
        except Exception as bug:  # noqa: BLE001 - raised in `run`; the reactor serves others, too
            self._fail(bug)
        up.waiting = again
        return again

    def _tidy_up(self) -> bool:
        """Send what was kept or is ready, or close, or read what is not only to be moved.

        Returns whether another turn is needed; raises what reading does.
        """
        up = self._up
        if self._over:
            return False
        if up.sink.unsent and not self._flush_upstream():
            return not up.sink.unsent  # it is deaf now, and the client is read all the same
        if up.ended:
            return False  # what was kept were words of the layers' own
        if up.closing:
            self._close(up)
            return False
        if up.ready:
            self._send_up(up.load(self._reactor.buffers.plain.view))
            return not up.sink.unsent
        if up.source.readable:
            self._read_client()
        return up.source.readable and not up.sink.unsent

    def _read_client(self) -> None:
        """Read once, and send that on, or not."""
        regions = self._up.source.read()
        if regions:
            if self._first_flight.replayable:
                self._note_flight(regions)
            self._send_up(regions)
        size = sum(end - start for start, end in regions)
        if size < FULL_SIZE:  # bulk begins only where each read is looked at
            self._up.sink.note_size(size)

    def _note_flight(self, regions: Regions) -> None:
        view = self._reactor.buffers.plain.view
        for start, end in regions:
            self._first_flight.note(bytes(view[start:end]))

    def _flush_upstream(self) -> bool:
        try:
            return self._up.sink.flush()
        except OSError as error:
            self._note_deaf_upstream(error)
            return False

    def _send_up(self, regions: Regions) -> None:
        if not self._ending.upstream_listens:
            return
        try:
            self.bytes_up += self._up.sink.write(regions)
        except (OSError, LayerError) as error:
            self._note_deaf_upstream(error)

    def _note_deaf_upstream(self, error: OSError | LayerError) -> None:
        self._ending.note(ClosedBy.UPSTREAM, _translated(error))
        self._drop_what_goes_up()
        if self._down.ended or self._client_deaf:
            self._finish()

    def _drop_what_goes_up(self) -> None:
        """From now on: the client is read all the same, or it might never read the reason."""
        self._ending.upstream_listens = False
        self._up.settle(settled=False)
        self._up.sink.unsent = b""

    def _end_up(self) -> None:
        """The client has ended: pass it on, and go on with the other direction.

        Of one that takes no more it is an end only if it has said so: else it has broken off.
        """
        is_end = not self._client_deaf or self._up.source.announces_end
        if self._ending.upstream_listens and is_end:
            self._pass_end(self._up.sink)
        self._close(self._up)

    def _close(self, direction: _Direction) -> None:
        """End a direction, once what was kept is sent; then everything, if nothing else goes on."""
        direction.close()
        if direction.sink.unsent:
            return
        direction.stop()
        alone = self._down.ended and not self._ending.upstream_is_of_use
        if alone or (self._up.ended and (self._down.ended or self._client_deaf)):
            self._finish()

    def _go_down(self) -> bool:
        """A turn of upstream to client; returns whether another one is needed."""
        down = self._down
        source, sink = down.source, down.sink
        again = False
        try:
            try:
                if not down.steady or sink.unsent:
                    again = self._tidy_down()
                elif down.source.readable:
                    self.bytes_down += down.carry(source, sink)
                    self._heard = True
                    if self._upstream_stream.patience() != self._patience:
                        self._note_patience()
                    again = source.readable and sink.takes_more
            except SinkFailed as failed:
                self._note_deaf_client(failed.reason)
                again = True
            except EndOfStream:
                self._ending.note(ClosedBy.UPSTREAM)
                if held := self._take_held():
                    self._say_down(held)
                    again = True  # the end is read once more
                else:
                    self._end_down()
            except (OSError, LayerError) as error:  # of the upstream's
                self._note_upstream_failure(_translated(error))
        except Exception as bug:  # noqa: BLE001 - raised in `run`; the reactor serves others, too
            self._fail(bug)
        down.waiting = again
        return again

    def _read_upstream(self) -> Regions:
        """Read once, and take note of pings."""
        regions = self._down.source.read()
        self._heard = True
        self._note_patience()
        return regions

    def _note_patience(self) -> None:
        """The upstream may have promised to send something now and then."""
        if (patience := self._upstream_stream.patience()) != self._patience:
            self._patience = patience
            self._wake.set()

    def _tidy_down(self) -> bool:
        """Send what was kept or is ready, or close, or read what is not only to be moved.

        Returns whether another turn is needed; raises what reading does.
        """
        down = self._down
        if down.ended:
            return False
        if self._client_deaf:
            if down.source.readable:
                self._read_upstream()
            return down.source.readable
        try:
            if down.sink.unsent and not down.sink.flush():
                return False
        except OSError as error:
            self._note_deaf_client(error)
            return True
        if down.closing:
            self._close(down)
            return False
        if down.ready:
            self._send_down(down.load(self._reactor.buffers.plain.view))
            return not down.sink.unsent
        if down.source.readable and (regions := self._read_upstream()):
            self._send_down(regions)
        return down.source.readable and not down.sink.unsent

    def _send_down(self, regions: Regions) -> None:
        if not self._down.settled:
            self._send_down_first(regions)
            return
        try:
            self.bytes_down += self._down.sink.write(regions)
        except (OSError, LayerError) as error:
            self._note_deaf_client(error)

    def _send_down_first(self, regions: Regions) -> None:
        """Send what the upstream says first, as the verdict's reader puts it."""
        if not self._ending.upstream_spoke:
            self._ending.upstream_spoke = True
            self._first_flight.close()
            self._up.settle(settled=self._ending.upstream_listens)
            self._answered()
        verdict = self._verdict
        if verdict is None:
            self._down.settle()
            self._send_down(regions)
            return
        view = self._reactor.buffers.plain.view
        said = verdict.receive(b"".join([view[start:end] for start, end in regions]))
        if verdict.over:
            self._verdict = None
            self._down.settle()
        self._say_down(said)

    def _say_down(self, data: bytes) -> None:
        """Send bytes that are not in the shared buffer."""
        plain = self._reactor.buffers.plain.view
        try:
            for start in range(0, len(data), READ_SIZE):
                self.bytes_down += self._down.sink.write(
                    _place(data[start : start + READ_SIZE], plain)
                )
        except (OSError, LayerError) as error:
            self._note_deaf_client(error)

    def _take_held(self) -> bytes:
        """What the upstream has said and was held back, now that it says no more."""
        verdict, self._verdict = self._verdict, None
        return verdict.end() if verdict is not None else b""

    def _note_deaf_client(self, error: OSError | LayerError) -> None:
        """It takes no more, but what it says is carried: its last word may be in it.

        The upstream is read all the same, or it might be stuck in answering and take nothing.
        """
        self._ending.note(ClosedBy.CLIENT, _translated(error))
        up, down = self._up, self._down
        down.settle(settled=False)
        down.sink.unsent = b""
        self._verdict = None
        if up.ended:
            self._finish()
            return
        self._client_deaf = True
        self._wake.set()
        up.settle(settled=False)
        up.source.readable = up.source.hung_up = True
        self._ask_up()

    def _lose_client(self, error: OSError | LayerError) -> None:
        self._ending.note(ClosedBy.CLIENT, _translated(error))
        self._finish()

    def _end_down(self) -> None:
        """The upstream has ended: pass it on if it has spoken, and go on while it listens."""
        if self._ending.upstream_spoke:
            self._pass_end(self._down.sink)
        self._down.close()
        self._look_after_gone_upstream()
        self._close(self._down)

    def _note_upstream_failure(self, error: Exception) -> None:
        self._ending.upstream_error = error
        self._ending.note(ClosedBy.UPSTREAM, error)
        self._say_down(self._take_held())
        if self._down.sink.unsent:
            self._drop_what_goes_up()
            self._ask_up()
            self._close(self._down)
        else:
            self._finish()

    def _pass_end(self, sink: End) -> None:
        try:
            sink.end()
        except (OSError, LayerError):
            return  # it is gone already, so it needs no telling

    def _fail(self, bug: Exception) -> None:
        self._bug = bug
        self._finish()

    def _finish(self) -> None:
        """Do nothing more.

        What is left is for our own task. It need not wait for the reactor, which lingers only as
        long as it watches all connections that there are.
        """
        self._up.stop()
        self._down.stop()
        self._forget()
        self._over = True
        self._wake.set()


def _place(piece: bytes, plain: memoryview) -> Regions:
    """Put at most as much as is read at once into the shared buffer."""
    end = HEADROOM + len(piece)
    plain[HEADROOM:end] = piece
    return ((HEADROOM, end),)


def _translated(error: OSError | LayerError) -> Exception:
    """As trio has it, with its cause."""
    if isinstance(error, LayerError):
        return error
    broken = broken_by(error)
    broken.__cause__ = error
    return broken
