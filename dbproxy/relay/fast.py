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
from dbproxy.relay.ending import Ending, RelayEnd
from dbproxy.relay.ends import HEADROOM, READ_SIZE, End, EndOfStream, Regions, make_end
from dbproxy.relay.first_flight import FirstFlight
from dbproxy.relay.reactor import ERROR_EVENTS, HANGUP_EVENTS, READ_EVENTS, WRITE_EVENTS, Reactor
from dbproxy.relay.silence import SilenceError
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
        closing: Whether nothing more is read, and only what was kept is still sent.
        ended: Whether it has nothing more to do.
    """

    __slots__ = ("closing", "ended", "ready", "sink", "source", "waiting")

    def __init__(self, source: End, sink: End, ready: bytes) -> None:
        self.source = source
        self.sink = sink
        self.ready = ready
        self.waiting = False
        self.closing = False
        self.ended = False

    def can_go_on(self) -> bool:
        """Whether there may be more to read, and the other end has taken everything so far."""
        return self.source.readable and not self.sink.unsent


class FastRelay:
    """As `Relay`, on a reactor; both streams must be on sockets.

    Args:
        reactor: Gives the turns.
        client: The client's side.
        upstream: The Teleport Proxy's side.
        first_flight: As for `Relay`.
        answered: As for `Relay`.
        verdict: As for `Relay`.
    """

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
        self._settled = False  # whether what the upstream says is only moved
        self.bytes_up = 0
        self.bytes_down = 0
        self._ending = Ending()
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
        reactor = self._reactor
        client = make_end(*self._client_stream.lend(), reactor.buffers)
        upstream = make_end(*self._upstream_stream.lend(), reactor.buffers)
        said = self._client_stream.take_received()
        first = self._first_flight.data + said
        self._first_flight.note(said)
        self._up = _Direction(client, upstream, first)
        self._down = _Direction(upstream, client, self._upstream_stream.take_received())
        try:
            reactor.watch(client.descriptor, self._client_event)
            reactor.watch(upstream.descriptor, self._upstream_event)
            reactor.ask(self._go_up)
            reactor.ask(self._go_down)
            self._up.waiting = self._down.waiting = True
            await self._wait()
        finally:
            self._up.ended = self._down.ended = True
            reactor.forget(client.descriptor)
            reactor.forget(upstream.descriptor)
        if self._bug is not None:
            raise self._bug
        return self._ending.result()

    async def _wait(self) -> None:
        """Wait for the end, and look after an upstream that has begun to send pings."""
        silent = 0
        while not self._over:
            patience = self._patience
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

    def _client_event(self, events: int) -> None:
        up, down = self._up, self._down
        if events & READ_EVENTS:
            up.source.readable = True
            if events & HANGUP_EVENTS:
                up.source.hung_up = True
            self._start_up()
        if events & ERROR_EVENTS and up.ended and not self._over:
            # It had ended its direction, and now it is gone: nobody reads any more, so nobody else
            # would notice as long as the upstream has nothing to say.
            self._lose_client(ConnectionResetError("the client is gone"))
        if events & WRITE_EVENTS and down.sink.unsent:
            self._start_down()

    def _upstream_event(self, events: int) -> None:
        up, down = self._up, self._down
        if events & READ_EVENTS:
            down.source.readable = True
            if events & HANGUP_EVENTS:
                down.source.hung_up = True
            self._start_down()
        if events & WRITE_EVENTS and up.sink.unsent:
            self._start_up()

    def _start_up(self) -> None:
        """Do a piece of work now, and the rest in turns."""
        if not self._up.waiting and self._go_up():
            self._up.waiting = True
            self._reactor.ask(self._go_up)

    def _start_down(self) -> None:
        """Likewise."""
        if not self._down.waiting and self._go_down():
            self._down.waiting = True
            self._reactor.ask(self._go_down)

    def _go_up(self) -> bool:
        """A turn of client to upstream; returns whether another one is needed."""
        up = self._up
        try:
            up.waiting = not up.ended and self._carry_up()
        except Exception as bug:  # noqa: BLE001 - raised in `run`; the reactor serves others, too
            self._fail(bug)
        return up.waiting

    def _carry_up(self) -> bool:
        up = self._up
        if up.sink.unsent and not self._flush_upstream():
            return not self._ending.upstream_listens
        if up.closing:
            self._close(up)
            return False
        if up.ready:
            self._send_up(_load(self._reactor, up))
            return not up.sink.unsent
        if not up.source.readable:
            return False
        try:
            regions = up.source.read()
        except EndOfStream:
            self._ending.note(ClosedBy.CLIENT)
            self._end_up()
            return False
        except (OSError, LayerError) as error:
            self._ending.note(ClosedBy.CLIENT, _translated(error))
            self._finish()
            return False
        if regions:
            if not self._ending.upstream_spoke:
                self._note_flight(regions)
            self._send_up(regions)
        return up.can_go_on()

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
            self._up.sink.write(regions)
        except (OSError, LayerError) as error:
            self._note_deaf_upstream(error)
        else:
            self.bytes_up += _size(regions)

    def _note_deaf_upstream(self, error: OSError | LayerError) -> None:
        self._ending.upstream_listens = False
        self._up.sink.unsent = b""
        self._ending.note(ClosedBy.UPSTREAM, _translated(error))
        if self._down.ended:
            self._finish()

    def _end_up(self) -> None:
        """The client has ended: pass it on, and go on with the other direction."""
        if self._ending.upstream_listens:
            self._pass_end(self._up.sink)
        self._close(self._up)

    def _close(self, direction: _Direction) -> None:
        """End a direction, once what was kept is sent; then everything, if nothing else goes on."""
        direction.closing = True
        if direction.sink.unsent:
            return
        direction.ended = True
        alone = self._down.ended and not self._ending.upstream_is_of_use
        if alone or (self._up.ended and self._down.ended):
            self._finish()

    def _go_down(self) -> bool:
        """A turn of upstream to client; returns whether another one is needed."""
        down = self._down
        try:
            down.waiting = not down.ended and self._carry_down()
        except Exception as bug:  # noqa: BLE001 - raised in `run`; the reactor serves others, too
            self._fail(bug)
        return down.waiting

    def _carry_down(self) -> bool:
        down = self._down
        try:
            if down.sink.unsent and not down.sink.flush():
                return False
            if down.closing:
                self._close(down)
                return False
            if down.ready:
                self._send_down(_load(self._reactor, down))
                return not down.sink.unsent
            if not down.source.readable:
                return False
        except (OSError, LayerError) as error:
            return self._lose_client(error)
        try:
            regions = down.source.read()
        except EndOfStream:
            self._ending.note(ClosedBy.UPSTREAM)
            down.ready = self._take_held()
            if down.ready:
                return True  # and then its end is read once more
            self._end_down()
            return False
        except (OSError, LayerError) as error:
            self._note_upstream_failure(_translated(error))
            return False
        self._heard = True
        if regions:
            try:
                self._send_down(regions)
            except (OSError, LayerError) as error:
                return self._lose_client(error)
        if (patience := self._upstream_stream.patience()) != self._patience:
            self._patience = patience
            self._wake.set()
        return down.can_go_on()

    def _send_down(self, regions: Regions) -> None:
        if not self._settled:
            self._send_down_first(regions)
            return
        self._down.sink.write(regions)
        self.bytes_down += _size(regions)

    def _send_down_first(self, regions: Regions) -> None:
        """Send what the upstream says first, as the verdict's reader puts it."""
        if not self._ending.upstream_spoke:
            self._ending.upstream_spoke = True
            self._first_flight.close()
            self._answered()
        verdict = self._verdict
        if verdict is None:
            self._settled = True
            self._send_down(regions)
            return
        view = self._reactor.buffers.plain.view
        said = verdict.receive(b"".join([view[start:end] for start, end in regions]))
        self._settled = verdict.over
        if len(said) > READ_SIZE:  # only when it is over: what is held has a limit
            self._down.ready = said[READ_SIZE:] + self._down.ready
            self._down.source.readable = True  # so that another turn is taken
        self._write_down(said[:READ_SIZE])

    def _write_down(self, piece: bytes) -> None:
        if piece:
            self._down.sink.write(_place(self._reactor, piece))
            self.bytes_down += len(piece)

    def _take_held(self) -> bytes:
        """What the upstream has said and was held back, now that it says no more."""
        if self._settled or self._verdict is None:
            return b""
        self._settled = True
        return self._verdict.end()

    def _lose_client(self, error: OSError | LayerError) -> bool:
        self._ending.note(ClosedBy.CLIENT, _translated(error))
        self._finish()
        return False

    def _end_down(self) -> None:
        """The upstream has ended: pass it on if it has spoken, and go on while it listens."""
        if self._ending.upstream_spoke:
            self._pass_end(self._down.sink)
        self._close(self._down)

    def _note_upstream_failure(self, error: Exception) -> None:
        self._ending.upstream_error = error
        self._ending.note(ClosedBy.UPSTREAM, error)
        try:
            if not self._down.sink.unsent:
                self._write_down(self._take_held())
        except (OSError, LayerError) as lost:
            self._ending.note(ClosedBy.CLIENT, _translated(lost))
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
        self._up.ended = self._down.ended = True
        self._over = True
        self._wake.set()


def _size(regions: Regions) -> int:
    size = 0
    for start, end in regions:
        size += end - start
    return size


def _load(reactor: Reactor, direction: _Direction) -> Regions:
    """Put the next piece of what is ready into the shared buffer."""
    piece, direction.ready = direction.ready[:READ_SIZE], direction.ready[READ_SIZE:]
    return _place(reactor, piece)


def _place(reactor: Reactor, piece: bytes) -> Regions:
    """Put at most as much as is read at once into the shared buffer."""
    end = HEADROOM + len(piece)
    reactor.buffers.plain.view[HEADROOM:end] = piece
    return ((HEADROOM, end),)


def _translated(error: OSError | LayerError) -> Exception:
    """As trio has it, so that whoever explains failures knows one kind of broken connection."""
    if isinstance(error, LayerError):
        return error
    broken = trio.BrokenResourceError(f"socket connection broken: {error}")
    broken.__cause__ = error
    return broken
