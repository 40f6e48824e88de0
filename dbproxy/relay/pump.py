"""Moving bytes between a client and the upstream, both ways, until the end.

The rules, and why:

- Each direction is one loop of receive and send, so at most one batch is in memory and a slow
  reader slows down its writer (backpressure).
- An end of one direction is passed on and the other direction goes on (half-close): the reply to
  the last request may still be on its way.
- When *sending to the upstream* fails, the upstream may still have bytes for the client, often the
  reason: so that direction goes on until it ends, which is soon, since the socket is dead, and then
  everything ends. What the client still sends is received and dropped meanwhile, because a client
  that is stuck in writing would never read the reason.
- When *sending to the client* fails, what it says is still carried, because a client that has said
  its last word and is gone may be heard only now. What the upstream says is received and dropped
  meanwhile, because one that is stuck in answering takes nothing. Everything ends with the client,
  or when it says nothing for a second, or when the upstream takes nothing of that for ten seconds:
  it may be busy.
- When receiving from a side fails, everything ends at once: nothing more can come from that side.
  Words of the upstream's that were held back are let go first, and then nothing goes up any more.
- What the upstream says first goes through the protocol's `VerdictReader`, where there is one,
  until that has read enough; what it holds back is let go when the upstream says no more.
- An upstream that ends or fails before its first byte ends the relay without a word to the client,
  so that the caller can still tell the client why, or send what the client has said to another one.

Tested in `tests/unit/relay/test_pump.py` and `tests/integration/test_data_integrity.py`.
"""

from collections.abc import Callable
from typing import Final

import trio

from dbproxy.events import ClosedBy
from dbproxy.layers import LayerError
from dbproxy.protocols import VerdictReader
from dbproxy.relay.ending import Ending, RelayEnd
from dbproxy.relay.first_flight import FirstFlight
from dbproxy.relay.stream import LayeredStream

__all__ = ["BUSY", "LAST_WORD", "Relay"]

LAST_WORD: Final = 1.0
"""Seconds for a client that takes no more to say something; mostly it is gone, and ends at once."""
BUSY: Final = 10.0
"""Seconds for the upstream to go on with what a client has said that is gone."""
PIECE: Final = 64 * 1024
"""Bytes after which the upstream has gone on reading: a slow one takes its time for a batch."""


class Relay:
    """Relays between two streams. `bytes_up` and `bytes_down` count what has been delivered.

    Args:
        client: The client's side.
        upstream: The Teleport Proxy's side.
        first_flight: Bytes of the client that were received already. Until the upstream's first
            byte those that follow are added to it.
        answered: Called at the upstream's first byte.
        verdict: Reads what the upstream says first, and may put it differently.
    """

    def __init__(
        self,
        client: trio.abc.HalfCloseableStream,
        upstream: trio.abc.HalfCloseableStream,
        first_flight: FirstFlight | None = None,
        answered: Callable[[], None] = lambda: None,
        verdict: VerdictReader | None = None,
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._first_flight = first_flight or FirstFlight()
        self._answered = answered
        self._verdict = verdict
        self.bytes_up = 0
        self.bytes_down = 0
        self._ending = Ending()
        self._upstream_ended = False
        self._client_ended = False
        self._says_end = isinstance(client, LayeredStream) and client.announces_end
        self._hears_client_out = False
        self._sends_up = False
        self._directions = trio.CancelScope()
        self._carrying_up = trio.CancelScope()

    async def run(self) -> RelayEnd:
        """Relay until both directions have ended or one side failed; closes neither stream.

        Cancellation ends it at once; bytes that were received and not delivered are lost with the
        connection, which cannot be used any further.
        """
        with self._directions:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._upwards)
                nursery.start_soon(self._downwards)
        return self._ending.take_result()

    async def _upwards(self) -> None:
        with self._carrying_up:
            await self._carry_up()
            if self._hears_client_out:
                self._directions.cancel()
            return
        while await self._receive(self._client, ClosedBy.CLIENT):
            pass  # it might be stuck in writing, and never read the reason

    async def _carry_up(self) -> None:
        if said := self._first_flight.data:
            await self._deliver_up(said)
        while data := await self._receive(self._client, ClosedBy.CLIENT):
            self._first_flight.note(data)
            if self._ending.upstream_listens:
                await self._deliver_up(data)
        if not self._hears_client_out or self._says_end:  # else it has broken off
            self._note_sending(sends=True)
            await self._pass_end(self._upstream)
            self._note_sending(sends=False)
        self._client_ended = True

    async def _deliver_up(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            self._note_sending(sends=True)
            sent = await self._send(self._upstream, piece, ClosedBy.UPSTREAM)
            self._note_sending(sends=False)
            if not sent:
                self._ending.upstream_listens = False
                if self._upstream_ended or self._hears_client_out:
                    self._directions.cancel()
                return
            self.bytes_up += len(piece)

    def _note_sending(self, *, sends: bool) -> None:
        self._sends_up = sends
        if self._hears_client_out:
            self._limit_hearing_out()

    async def _downwards(self) -> None:
        if not await self._carry_down():
            if self._client_ended:
                self._directions.cancel()
                return
            self._verdict = None
            self._hears_client_out = True
            self._limit_hearing_out()
            while await self._receive(self._upstream, ClosedBy.UPSTREAM):
                pass  # it might be stuck in writing, and never take the client's last word
        self._upstream_ended = True
        if self._ending.upstream_spoke and not self._hears_client_out:
            await self._pass_end(self._client)
        if not self._ending.upstream_is_of_use:
            self._directions.cancel()

    async def _carry_down(self) -> bool:
        """Until the upstream says no more; returns whether the client has taken everything."""
        while data := await self._receive(self._upstream, ClosedBy.UPSTREAM):
            if not self._ending.upstream_spoke:
                self._ending.upstream_spoke = True
                self._first_flight.close()
                self._answered()
            if self._verdict is not None:
                data = self._read_verdict(self._verdict, data)
            if not await self._deliver_down(data):
                return False
        return self._verdict is None or await self._deliver_down(self._verdict.end())

    def _limit_hearing_out(self) -> None:
        limit = BUSY if self._sends_up else LAST_WORD
        self._directions.deadline = trio.current_time() + limit

    def _read_verdict(self, verdict: VerdictReader, data: bytes) -> bytes:
        said = verdict.receive(data)
        if verdict.over:
            self._verdict = None
        return said

    async def _deliver_down(self, data: bytes) -> bool:
        if data and not await self._send(self._client, data, ClosedBy.CLIENT):
            return False
        self.bytes_down += len(data)
        return True

    async def _receive(self, source: trio.abc.ReceiveStream, side: ClosedBy) -> bytes:
        try:
            data = bytes(await source.receive_some())
        except (trio.BrokenResourceError, LayerError) as error:
            self._ending.note(side, error)
            if side is ClosedBy.UPSTREAM:
                self._ending.upstream_error = error
                if self._verdict is not None:
                    self._ending.upstream_listens = False
                    self._carrying_up.cancel()
                    await self._deliver_down(self._verdict.end())
            self._directions.cancel()
            await trio.lowlevel.checkpoint_if_cancelled()
            return b""
        if not data:
            self._ending.note(side, None)
        return data

    async def _send(self, sink: trio.abc.SendStream, data: bytes, side: ClosedBy) -> bool:
        try:
            await sink.send_all(data)
        except (trio.BrokenResourceError, LayerError) as error:
            self._ending.note(side, error)
            return False
        return True

    async def _pass_end(self, sink: trio.abc.HalfCloseableStream) -> None:
        try:
            await sink.send_eof()
        except (trio.BrokenResourceError, LayerError):
            return  # it is gone already, so it needs no telling
