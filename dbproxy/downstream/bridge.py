"""Bringing an admitted client to the upstream: dialling, and relaying until the end.

What is begun anew when an upstream fails, and when, is `Retries`' business (`retries.py`): until
the upstream's first byte nobody has consumed what the client said, so it is kept (`FirstFlight`)
and said again to the next one.

Where the server speaks first, its greeting is the upstream's first byte. Until it is here the
client has said nothing and heard nothing, so attempts are repeated as freely. From then on the
client is bound to this upstream: the greeting has a scramble that its answer depends on.

A conversation that the client does not hear (SQL Server's PRELOGIN) is had anew with each upstream,
and consumes nothing of what the client said.

Tested in `tests/unit/downstream/test_bridge.py` and `tests/unit/downstream/test_server_first.py`.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import trio

from dbproxy.downstream.client import Client
from dbproxy.downstream.converse import converse
from dbproxy.downstream.departures import dial_for_who_stays
from dbproxy.downstream.progress import Progress
from dbproxy.downstream.retries import Retries
from dbproxy.errors import Code, UpstreamError
from dbproxy.events import ClosedBy, Event, UpstreamConnected
from dbproxy.identity import Identity, IdentityStore
from dbproxy.layers import LayerError
from dbproxy.protocols import (
    Carry,
    Conversation,
    DatabaseProtocol,
    Greeting,
    GreetingReader,
    UpstreamGreeting,
    VerdictReader,
)
from dbproxy.relay import FirstFlight, Liveness, RelayEnd, RelayEngine, closed_on_failure
from dbproxy.upstream import (
    ReadyConnections,
    UpstreamConnection,
    UpstreamDialer,
    explain_early_end,
    explain_end_after_greeting,
    greet,
    too_slow,
)

__all__ = ["Bridge", "GreetedUpstream"]


@dataclass(frozen=True, slots=True)
class GreetedUpstream:
    """An upstream that has spoken first.

    Attributes:
        connection: To it.
        greeting: What it said.
    """

    connection: UpstreamConnection
    greeting: Greeting


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
        rewrite: Whether Teleport's refusals are completed on their way to the client.
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
    rewrite: bool = True
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    retries: Retries = field(init=False)
    """Tries again for clients; tell it when no more is to be tried."""

    def __post_init__(self) -> None:
        self.retries = Retries(self.store, self.connect_grace, self.publish)

    async def carry(self, client: Client, carry: Carry, progress: Progress) -> RelayEnd:
        """Relay between the client and the upstream until the end.

        It leaves no socket of the upstream's behind but the one to part from, which is the caller's
        (`progress.parting`).

        Raises:
            UpstreamError: No attempt was successful; the last one's failure.
            IdentityError: The identity is not valid now.
            ClientGone: The client left while it was kept waiting for another attempt, or its turn.
        """
        flight = FirstFlight(carry.first_flight)
        return await self.retries.until_it_works(
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
        upstream = await self.retries.until_it_works(
            partial(self._await_greeting, client, reader, authenticate, progress),
            client,
            FirstFlight(),
            progress,
        )
        async with closed_on_failure(upstream.connection.stream):
            yield upstream

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
        verdict = self._await_verdict(carry, progress)
        if carry.conversation is not None:
            conversation = carry.conversation()
            await converse(
                client, connection, conversation, progress, greeted=True, verdict=verdict
            )
            answered = True
        progress.relay = self.relays.relay(
            client.stream, connection.stream, FirstFlight(carry.first_flight), _do_nothing, verdict
        )
        end = await progress.relay.run()
        spoke = answered or end.upstream_spoke
        if not spoke and end.closed_by is ClosedBy.UPSTREAM:
            raise explain_end_after_greeting(connection.address, end.upstream_error or end.error)
        await _let_go(connection, end, progress)
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
        self._note_answered(upstream, authenticate, progress.generation)
        return GreetedUpstream(upstream, greeting)

    async def _attempt(
        self, client: Client, carry: Carry, flight: FirstFlight, progress: Progress
    ) -> RelayEnd:
        progress.said_up = progress.said_down = 0  # what counts is said to the last upstream
        watched = client if carry.reply_expected else None
        upstream = await self._dial(watched, carry.authenticate, progress)
        async with closed_on_failure(upstream.stream):
            self._note_connected(upstream, progress)
            end = await self._relay(client, upstream, carry, flight, progress)
        await _let_go(upstream, end, progress)
        return end

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
        dial = partial(
            self.dialer.dial,
            self.protocol,
            identity,
            authenticate=authenticate,
            keep_last_word=True,
        )
        if watched is not None and self.dialer.busy:
            return await dial_for_who_stays(watched, dial)
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
        answered = partial(self._note_answered, upstream, carry.authenticate, progress.generation)
        progress.relay = self.relays.relay(
            client.stream,
            upstream.stream,
            flight,
            answered,
            self._await_verdict(carry, progress),
        )
        end = await progress.relay.run()
        if carry.reply_expected and not end.upstream_spoke:
            early = explain_early_end(upstream.address, end.upstream_error or end.error)
            # An upstream may end because the client has; it does not reject a certificate for that.
            rejected = end.upstream_error is not None and early.code is Code.CERTIFICATE_REJECTED
            if rejected or end.closed_by is ClosedBy.UPSTREAM:
                raise early
        return end

    def _await_verdict(self, carry: Carry, progress: Progress) -> VerdictReader | None:
        """What reads the upstream's first answer; in passthrough only the client can."""
        expected = carry.authenticate and carry.reply_expected
        reader = self.protocol.verdict_reader(rewrite=self.rewrite) if expected else None
        progress.verdict = reader
        return reader

    def _note_answered(
        self, upstream: UpstreamConnection, authenticate: bool, generation: int
    ) -> None:
        """The upstream's first byte is here."""
        upstream.remember()
        if authenticate:  # a later rejection is a new one, which a renewal may explain
            self.retries.note_accepted(generation)

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


async def _read_greeting(upstream: UpstreamConnection, reader: GreetingReader) -> Greeting:
    try:
        while received := await upstream.stream.receive_some():
            if (greeting := reader.receive(received)) is not None:
                return greeting
    except (trio.BrokenResourceError, LayerError) as error:
        raise explain_early_end(upstream.address, error) from error
    raise explain_early_end(upstream.address, None)


async def _let_go(upstream: UpstreamConnection, end: RelayEnd, progress: Progress) -> None:
    """Close it, unless only the client is gone, and what it said last may still be on its way."""
    if end.client_ended and end.upstream_error is None and not upstream.stream.ended:
        progress.parting = upstream.stream
    else:
        await upstream.stream.abandon()


def _do_nothing() -> None:
    """The upstream's first byte came long ago."""
