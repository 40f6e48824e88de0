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

Where the server speaks first, its greeting is the upstream's first byte. Until it is here the
client has said nothing and heard nothing, so attempts are repeated as freely. From then on the
client is bound to this upstream: the greeting has a scramble that its answer depends on.

A conversation that the client does not hear (SQL Server's PRELOGIN) is had anew with each upstream,
and consumes nothing of what the client said.

Tested in `tests/unit/downstream/test_bridge.py` and `tests/unit/downstream/test_server_first.py`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

import trio

from dbproxy.downstream.client import Client, ClientGone
from dbproxy.downstream.converse import converse
from dbproxy.downstream.progress import Progress
from dbproxy.errors import Code, DBProxyError, UpstreamError
from dbproxy.events import ClosedBy, Event, UpstreamConnected, UpstreamRetried
from dbproxy.identity import Identity, IdentityStore
from dbproxy.layers import LayerError
from dbproxy.protocols import (
    Carry,
    Conversation,
    DatabaseProtocol,
    Greeting,
    GreetingReader,
    UpstreamGreeting,
)
from dbproxy.relay import FirstFlight, Liveness, RelayEnd, RelayEngine, closed_on_failure
from dbproxy.upstream import (
    Attempts,
    ReadyConnections,
    Retry,
    UpstreamConnection,
    UpstreamDialer,
    explain_early_end,
    explain_end_after_greeting,
    greet,
    too_slow,
)

__all__ = ["Bridge", "GreetedUpstream"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GreetedUpstream:
    """An upstream that has spoken first.

    Attributes:
        connection: To it.
        greeting: What it said.
    """

    connection: UpstreamConnection
    greeting: Greeting


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
        return await self._try_until_it_works(
            partial(self._attempt, client, carry, flight, progress),
            client if carry.reply_expected else None,
            flight,
            progress,
        )

    @asynccontextmanager
    async def greeted(
        self,
        client: Client,
        reader: Callable[[], GreetingReader],
        authenticate: bool,
        progress: Progress,
    ) -> AsyncIterator[GreetedUpstream]:
        """An upstream that has greeted, for the length of the block, which has to `carry_on`.

        Args:
            client: Who waits for the greeting.
            reader: Makes what reads it.
            authenticate: Whether dbproxy presents the identity's certificate on the outer TLS.
            progress: Notes how far it has come.

        Raises:
            UpstreamError, IdentityError, ClientGone: As for `carry`.
        """
        upstream = await self._try_until_it_works(
            partial(self._await_greeting, client, reader, authenticate, progress),
            client,
            FirstFlight(),
            progress,
        )
        try:
            yield upstream
        finally:
            await upstream.connection.stream.abandon()

    async def carry_on(
        self, client: Client, upstream: GreetedUpstream, carry: Carry, progress: Progress
    ) -> RelayEnd:
        """Relay between a client that has answered the greeting and the upstream until the end.

        Raises:
            ClientError: The client broke the protocol.
            ClientGone: The client left before it was logged in.
            UpstreamError: The upstream ended the connection before it answered the client.
        """
        connection = upstream.connection
        answered = False
        if carry.conversation is not None:
            await converse(client, connection, carry.conversation(), progress, greeted=True)
            answered = True
        progress.relay = self.relays.relay(
            client.stream, connection.stream, FirstFlight(carry.first_flight), _do_nothing
        )
        end = await progress.relay.run()
        spoke = answered or end.upstream_spoke
        if not spoke and end.closed_by is ClosedBy.UPSTREAM:
            raise explain_end_after_greeting(connection.address, end.upstream_error or end.error)
        return end

    async def _await_greeting(
        self,
        client: Client,
        reader: Callable[[], GreetingReader],
        authenticate: bool,
        progress: Progress,
    ) -> GreetedUpstream:
        upstream = await self._dial(client, authenticate, progress)
        async with closed_on_failure(upstream.stream):
            self._note_connected(upstream, progress)
            try:
                with trio.fail_after(self.handshake_timeout):
                    greeting = await _read_greeting(upstream, reader())
            except trio.TooSlowError as error:
                raise too_slow("greeting", upstream.address, self.handshake_timeout) from error
        self._note_answered(upstream, authenticate, progress)
        return GreetedUpstream(upstream, greeting)

    async def _try_until_it_works(
        self,
        attempt: Callable[[], Awaitable[T]],
        watched: Client | None,
        flight: FirstFlight,
        progress: Progress,
    ) -> T:
        attempts = Attempts(self.connect_grace, trio.current_time())
        while True:
            progress.attempts = attempts.made
            try:
                return await attempt()
            except UpstreamError as error:
                if not flight.replayable or not await self._pause(
                    watched, attempts, error, progress
                ):
                    raise

    async def _attempt(
        self, client: Client, carry: Carry, flight: FirstFlight, progress: Progress
    ) -> RelayEnd:
        progress.said_up = progress.said_down = 0  # what counts is said to the last upstream
        watched = client if carry.reply_expected else None
        upstream = await self._dial(watched, carry.authenticate, progress)
        try:
            self._note_connected(upstream, progress)
            return await self._relay(client, upstream, carry, flight, progress)
        finally:
            await upstream.stream.abandon()

    async def _dial(
        self, watched: Client | None, authenticate: bool, progress: Progress
    ) -> UpstreamConnection:
        progress.prewarmed = False
        if watched is not None and progress.attempts == 1 and self.ready is not None:
            progress.generation = self.store.current.generation
            if (ready := self.ready.take(authenticate=authenticate)) is not None:
                return ready
        identity = await self._usable_identity()
        progress.generation = identity.generation
        dial = partial(self.dialer.dial, self.protocol, identity, authenticate=authenticate)
        if watched is not None and self.dialer.busy:
            return await _dial_for_who_stays(watched, dial)
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
        if carry.conversation is not None:
            await self._converse_unheard(client, upstream, carry.conversation(), progress)
        answered = partial(self._note_answered, upstream, carry.authenticate, progress)
        progress.relay = self.relays.relay(client.stream, upstream.stream, flight, answered)
        end = await progress.relay.run()
        if carry.reply_expected and not end.upstream_spoke:
            early = explain_early_end(upstream.address, end.upstream_error or end.error)
            # An upstream may end because the client has; it does not reject a certificate for that.
            rejected = end.upstream_error is not None and early.code is Code.CERTIFICATE_REJECTED
            if rejected or end.closed_by is ClosedBy.UPSTREAM:
                raise early
        return end

    def _note_answered(
        self, upstream: UpstreamConnection, authenticate: bool, progress: Progress
    ) -> None:
        """The upstream's first byte is here."""
        upstream.remember()
        if authenticate:  # a later rejection is a new one, which a renewal may explain
            self._rejections.pop(progress.generation, None)

    async def _converse_unheard(
        self,
        client: Client,
        upstream: UpstreamConnection,
        conversation: Conversation,
        progress: Progress,
    ) -> None:
        """Have a conversation with the upstream that the client knows nothing about."""
        try:
            with trio.fail_after(self.handshake_timeout):
                await converse(client, upstream, conversation, progress, greeted=False)
        except trio.TooSlowError as error:
            step = "opening of the database protocol"
            raise too_slow(step, upstream.address, self.handshake_timeout) from error

    async def _greet(self, upstream: UpstreamConnection, greeting: UpstreamGreeting) -> None:
        """Say what the upstream waits for and the client does not know about."""
        answer = await greet(
            upstream.stream, upstream.address, greeting, limit=self.handshake_timeout
        )
        if answer != greeting.answer:
            raise UpstreamError(
                Code.UPSTREAM_PROTOCOL_ERROR,
                f"the Teleport Proxy at {upstream.address} answered {answer!r} where the"
                f" {self.protocol.readable_name} protocol has {greeting.answer!r}",
            )

    async def _pause(
        self,
        watched: Client | None,
        attempts: Attempts,
        error: UpstreamError,
        progress: Progress,
    ) -> bool:
        """Wait until the next attempt is due; returns False when there is none.

        Args:
            watched: The client whose leaving ends the wait.
            attempts: Decides about the next one.
            error: How the last one failed.
            progress: Knows which identity that had.

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
        ends = [self._stopping.wait, *([watched.wait_until_left] if watched else ())]
        with trio.move_on_after(retry.pause):
            if retry.renewed:
                await _wait_unless(ends, partial(self.store.newer_than, progress.generation))
            else:
                await _wait_unless(ends, trio.sleep_forever)
        if watched is not None and watched.left:
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


async def _read_greeting(upstream: UpstreamConnection, reader: GreetingReader) -> Greeting:
    try:
        while received := await upstream.stream.receive_some():
            if (greeting := reader.receive(received)) is not None:
                return greeting
    except (trio.BrokenResourceError, LayerError) as error:
        raise explain_early_end(upstream.address, error) from error
    raise explain_early_end(upstream.address, None)


def _do_nothing() -> None:
    """The upstream's first byte came long ago."""


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
            await upstream.stream.abandon()
        raise
    if failure is not None:
        raise failure
    if upstream is None:
        untold = UpstreamError(Code.UPSTREAM_UNREACHABLE, _LEFT_THE_QUEUE)
        raise ClientGone(_LEFT_THE_QUEUE, untold.code, untold=untold)
    return upstream
