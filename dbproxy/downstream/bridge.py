"""Bringing an admitted client to the upstream: dialling, relaying, and beginning anew.

The problem: TLS 1.3 tells us that our certificate was rejected only when we read, and by then we
have sent what the client said. An upstream that is being restarted, and one that closes without a
word, look just like that.

The choice: until the upstream's first byte nobody has consumed what the client said, so it is kept
(`FirstFlight`). When the upstream fails before that byte, `Attempts` decides whether another one is
dialled: after a pause, or once tbot has written a newer identity. The client waits, and is told why
only when the grace is over.

A connection that was ready before the client came (`ReadyConnections`) is the first attempt only.
It may have died unnoticed, which says nothing about the upstream as it is now, so the next attempt
follows at once.

A client that leaves while it waits ends the wait: nobody needs the next attempt. Only pauses are
watched, and whoever has to wait for its turn to dial: a queue of clients that are gone would grow
for as long as the upstream stalls, and hold up those that are still there. Any other attempt under
way has its own limits, and a watch over each would cost every connection a task for the sake of the
few that leave just then. Leaving is ending one's direction: TCP does not
tell a client that is gone from one that only has nothing more to say. No database client ends its
direction before it was answered, but if one does, it is told why at once. A cancel request's does
so, and is not watched.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final

import trio

from dbproxy.downstream.client import Client, ClientGone
from dbproxy.downstream.progress import Progress
from dbproxy.errors import Code, DBProxyError, UpstreamError
from dbproxy.events import ClosedBy, Event, UpstreamConnected, UpstreamRetried
from dbproxy.identity import Identity, IdentityStore
from dbproxy.layers import LayerError
from dbproxy.protocols import Carry, DatabaseProtocol, UpstreamGreeting
from dbproxy.relay import FirstFlight, Liveness, RelayEnd, RelayEngine
from dbproxy.upstream import (
    Attempts,
    ReadyConnections,
    Retry,
    UpstreamConnection,
    UpstreamDialer,
    explain_early_end,
    too_slow,
)

__all__ = ["Bridge"]

_LEFT_THE_QUEUE: Final = (
    "the client left while it waited for its turn: as many connections to the Teleport Proxy as"
    " --max-handshakes allows were being set up"
)


@dataclass(slots=True, kw_only=True)
class Bridge:
    """Connects admitted clients to the upstream.

    Attributes:
        protocol: The database protocol.
        store: The identity.
        dialer: Reaches the Teleport Proxy.
        relays: Moves the bytes.
        liveness: Looks after the upstream's connections.
        publish: Gets the events of each attempt.
        handshake_timeout: Seconds for the upstream to answer what dbproxy itself asks.
        connect_grace: Seconds in which attempts may begin.
        ready: Connections that are ready before clients come, if there are to be any.
        clock: The time, in UTC.
    """

    protocol: DatabaseProtocol
    store: IdentityStore
    dialer: UpstreamDialer
    relays: RelayEngine
    liveness: Liveness
    publish: Callable[[Event], None]
    handshake_timeout: float
    connect_grace: float
    ready: ReadyConnections | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _rejections: dict[int, float] = field(default_factory=dict)
    _stopping: trio.Event = field(default_factory=trio.Event)

    def stop_waiting(self) -> None:
        """Make no further attempt for anybody: clients that wait are told why at once."""
        self._stopping.set()

    async def carry(self, client: Client, carry: Carry, progress: Progress) -> RelayEnd:
        """Relay between the client and the upstream until the end.

        Cancelled, it leaves no socket of the upstream's behind.

        Raises:
            UpstreamError: No attempt was successful; the last one's failure.
            IdentityError: The identity is not valid now.
            ClientGone: The client left while it was kept waiting for another attempt, or its turn.
        """
        flight = FirstFlight(carry.first_flight)
        attempts = Attempts(self.connect_grace, trio.current_time())
        while True:
            progress.attempts = attempts.made
            try:
                return await self._attempt(client, carry, flight, progress)
            except UpstreamError as error:
                if not flight.replayable or not await self._pause(
                    client, carry, attempts, error, progress
                ):
                    raise

    async def _attempt(
        self, client: Client, carry: Carry, flight: FirstFlight, progress: Progress
    ) -> RelayEnd:
        upstream = await self._dial(client, carry, progress)
        try:
            self._note_connected(upstream, progress)
            return await self._relay(client, upstream, carry, flight, progress)
        finally:
            await trio.aclose_forcefully(upstream.stream)

    async def _dial(self, client: Client, carry: Carry, progress: Progress) -> UpstreamConnection:
        progress.prewarmed = False
        if carry.reply_expected and progress.attempts == 1 and self.ready is not None:
            progress.generation = self.store.current.generation
            if (ready := self.ready.take(authenticate=carry.authenticate)) is not None:
                return ready
        identity = await self._usable_identity()
        progress.generation = identity.generation
        dial = partial(self.dialer.dial, self.protocol, identity, authenticate=carry.authenticate)
        if carry.reply_expected and self.dialer.busy:
            return await _dial_for_who_stays(client, dial)
        return await dial()

    def _note_connected(self, upstream: UpstreamConnection, progress: Progress) -> None:
        progress.upstream = str(upstream.address)
        progress.prewarmed = upstream.prewarmed
        self.liveness.watch(upstream.stream.transport)
        self.publish(
            UpstreamConnected(
                id=progress.id,
                address=progress.upstream,
                alpn=upstream.alpn,
                tls_version=upstream.tls_version,
                resumed=upstream.resumed,
                upgraded=upstream.upgraded,
                duration=upstream.duration,
                prewarmed=upstream.prewarmed,
            )
        )

    async def _usable_identity(self) -> Identity:
        identity = await self.store.fresh()
        identity.check_validity(self.clock())
        return identity

    async def _relay(
        self,
        client: Client,
        upstream: UpstreamConnection,
        carry: Carry,
        flight: FirstFlight,
        progress: Progress,
    ) -> RelayEnd:
        if carry.greeting is not None:
            await self._greet(upstream, carry.greeting)

        def answered() -> None:
            upstream.remember()
            if carry.authenticate:  # a later rejection is a new one, which a renewal may explain
                self._rejections.pop(progress.generation, None)

        progress.relay = self.relays.relay(client.stream, upstream.stream, flight, answered)
        end = await progress.relay.run()
        if carry.reply_expected and not end.upstream_spoke:
            early = explain_early_end(upstream.address, end.upstream_error or end.error)
            # An upstream may end because the client has; it does not reject a certificate for that.
            rejected = end.upstream_error is not None and early.code is Code.CERTIFICATE_REJECTED
            if rejected or end.closed_by is ClosedBy.UPSTREAM:
                raise early
        return end

    async def _greet(self, upstream: UpstreamConnection, greeting: UpstreamGreeting) -> None:
        """Say what the upstream waits for and the client does not know about."""
        answer, missing = b"", len(greeting.answer)
        limit = self.handshake_timeout
        try:
            with trio.fail_after(limit):
                await upstream.stream.send_all(greeting.request)
                while missing and (received := await upstream.stream.receive_some(missing)):
                    answer += received
                    missing -= len(received)
        except trio.TooSlowError as error:
            raise too_slow("request for TLS", upstream.address, limit) from error
        except (trio.BrokenResourceError, LayerError) as error:
            raise explain_early_end(upstream.address, error) from error
        if missing:
            raise explain_early_end(upstream.address, None)
        if answer != greeting.answer:
            raise UpstreamError(
                Code.UPSTREAM_PROTOCOL_ERROR,
                f"the Teleport Proxy at {upstream.address} answered {answer!r} where the"
                f" {self.protocol.readable_name} protocol has {greeting.answer!r}",
            )

    async def _pause(
        self,
        client: Client,
        carry: Carry,
        attempts: Attempts,
        error: UpstreamError,
        progress: Progress,
    ) -> bool:
        """Wait until the next attempt is due; returns False when there is none.

        Raises:
            ClientGone: The client has left meanwhile.
        """
        failed = attempts.made
        if progress.prewarmed:
            retry: Retry | None = attempts.afresh()
        else:
            retry = attempts.after(error.prospect, trio.current_time())
        if retry is None or self._stopping.is_set():
            return False
        if retry.renewed:
            retry = Retry(self._wait_for_renewal(progress.generation, retry.pause), renewed=True)
        self.publish(
            UpstreamRetried(
                id=progress.id,
                attempt=failed,
                code=error.code,
                reason=error.message,
                pause=retry.pause,
                renewed=retry.renewed,
            )
        )
        ends = [self._stopping.wait, *([client.wait_until_left] if carry.reply_expected else ())]
        with trio.move_on_after(retry.pause):
            if retry.renewed:
                await _wait_unless(ends, partial(self.store.newer_than, progress.generation))
            else:
                await _wait_unless(ends, trio.sleep_forever)
        if client.left:
            reason = f"the client left while it was kept waiting, because {error.message}"
            raise ClientGone(reason, error.code, untold=error) from error
        if self._stopping.is_set():
            return False
        return not retry.renewed or self.store.current.generation > progress.generation

    def _wait_for_renewal(self, generation: int, longest: float) -> float:
        """Seconds to wait for a newer identity, now that this generation has been rejected.

        A renewal that explains the rejection is not far. Once a generation has been rejected for as
        long as the grace, clients need not wait for it one by one.
        """
        now = trio.current_time()
        if generation not in self._rejections:
            self._rejections = {generation: now}
        return min(longest, max(0.0, self._rejections[generation] + self.connect_grace - now))


async def _wait_unless(
    ends: Sequence[Callable[[], Awaitable[object]]], wait: Callable[[], Awaitable[object]]
) -> None:
    """Wait for `wait`, or until one of `ends` has come."""
    async with trio.open_nursery() as nursery:
        for come in ends:
            nursery.start_soon(_end_when, come, nursery.cancel_scope)
        await wait()
        nursery.cancel_scope.cancel()


async def _end_when(come: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
    await come()
    scope.cancel()


async def _dial_for_who_stays(
    client: Client, dial: Callable[[], Awaitable[UpstreamConnection]]
) -> UpstreamConnection:
    """Dial, unless the client leaves first.

    Cancelled or failed, it leaves no socket behind.

    Raises:
        DBProxyError: As `dial` does.
        ClientGone: The client has left.
    """
    upstream: UpstreamConnection | None = None
    failure: DBProxyError | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_when, client.wait_until_left, nursery.cancel_scope)
            try:
                upstream = await dial()
            except DBProxyError as error:  # kept out of the nursery's exception group
                failure = error
            nursery.cancel_scope.cancel()
    except BaseException:
        if upstream is not None:
            await trio.aclose_forcefully(upstream.stream)
        raise
    if failure is not None:
        raise failure
    if upstream is None:
        untold = UpstreamError(Code.UPSTREAM_UNREACHABLE, _LEFT_THE_QUEUE)
        raise ClientGone(_LEFT_THE_QUEUE, untold.code, untold=untold)
    return upstream
