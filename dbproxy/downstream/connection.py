"""The life of one connection: admission, dialling, relaying, and exactly one record.

Read `ConnectionHandler.handle` and `_serve` from top to bottom: that is the order in which things
happen to a connection.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Final

import trio

from dbproxy.downstream.admit import Admission
from dbproxy.downstream.client import Client, ClientGone
from dbproxy.downstream.peer import describe_peer
from dbproxy.errors import ClientError, Code, DBProxyError, Fault, UpstreamError
from dbproxy.events import (
    ClosedBy,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    ConnectionRecord,
    Event,
    UpstreamConnected,
)
from dbproxy.identity import Identity, IdentityStore
from dbproxy.layers import LayerError
from dbproxy.protocols import Carry, DatabaseProtocol, UpstreamGreeting
from dbproxy.relay import LayeredStream, Relay, RelayEnd, keep_alive
from dbproxy.settings import Mode
from dbproxy.upstream import UpstreamConnection, UpstreamDialer, explain_early_end, explain_loss

__all__ = ["ConnectionHandler"]

_STOPPED: Final = "stopped"


@dataclass(slots=True)
class _Progress:
    """What the record will say, filled in as the connection goes on."""

    id: int
    peer: str
    opened_at: datetime
    started: float
    generation: int = 0
    relay: Relay | None = None
    user: str | None = None
    database: str | None = None
    closed_by: ClosedBy = ClosedBy.DBPROXY
    outcome: str = _STOPPED
    code: Code | None = None
    reason: str | None = "dbproxy was stopped"

    def end(
        self,
        outcome: str,
        closed_by: ClosedBy,
        reason: str | None = None,
        code: Code | None = None,
    ) -> None:
        self.outcome, self.closed_by, self.reason, self.code = outcome, closed_by, reason, code


@dataclass(slots=True, kw_only=True)
class ConnectionHandler:
    """Serves the connections of one listener.

    Attributes:
        mode: The listener's mode.
        protocol: The database protocol.
        store: The identity.
        dialer: Reaches the Teleport Proxy.
        admission: Lets clients in, as the mode has it.
        publish: Gets the events of each connection.
        prologue_timeout: Seconds for a client to connect, start TLS and send its first message.
        handshake_timeout: Seconds for the upstream to answer what dbproxy itself asks.
        clock: The time, in UTC.
    """

    mode: Mode
    protocol: DatabaseProtocol
    store: IdentityStore
    dialer: UpstreamDialer
    admission: Admission
    publish: Callable[[Event], None]
    prologue_timeout: float
    handshake_timeout: float
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    open_connections: int = 0
    ended_early: int = 0
    _ids: "count[int]" = field(default_factory=lambda: count(1))

    async def handle(self, transport: trio.SocketStream) -> None:
        """Serve one accepted connection until it ends; cancellation ends it at once.

        Never raises for what a client, the identity or the upstream do.
        """
        progress = self._begin(transport)
        keep_alive(transport)
        client = Client(transport)
        self.open_connections += 1
        try:
            await self._serve(client, progress)
        except Exception as bug:  # noqa: BLE001 - one connection's bug must not end the others
            self._report_bug(progress, bug)
        finally:
            self.open_connections -= 1
            self.ended_early += progress.outcome == _STOPPED
            try:
                await client.close()
            finally:
                self.publish(ConnectionClosed(record=self._record(progress)))

    def _begin(self, transport: trio.SocketStream) -> _Progress:
        try:
            peer = describe_peer(transport.socket)
        except OSError:  # it has been reset while it was in the queue
            peer = "gone"
        progress = _Progress(next(self._ids), peer, self.clock(), trio.current_time())
        self.publish(ConnectionOpened(id=progress.id, peer=peer))
        return progress

    async def _serve(self, client: Client, progress: _Progress) -> None:
        try:
            carry = await self._admit(client)
            progress.user, progress.database = carry.user, carry.database
            upstream = await self._dial(carry, progress)
            try:
                end = await self._relay(client, upstream.stream, carry, progress)
            finally:
                await trio.aclose_forcefully(upstream.stream)
        except ClientGone as gone:
            outcome = "abandoned" if client.spoke else "probe"
            reason = gone.reason if client.spoke else None
            progress.end(outcome, ClosedBy.CLIENT, reason, gone.code)
        except DBProxyError as error:
            closed_by = _closed_by(error)
            progress.end("refused", closed_by, error.message, error.code)
            await client.refuse(error)
        else:
            self._note_end(progress, carry, end)
            if end.upstream_error is not None:
                await client.break_off()  # half an answer must not look like a whole one
            elif not end.client_ended:
                await client.linger()

    def _note_end(self, progress: _Progress, carry: Carry, end: RelayEnd) -> None:
        if carry.reply_expected:
            outcome, lost = "relayed", end.upstream_error
            problem = explain_loss(self.dialer.address, lost) if lost is not None else None
        else:
            outcome, problem = "cancel-request", self._early_end(end.upstream_error)
            if problem.code is not Code.CERTIFICATE_REJECTED:
                problem = None  # the normal end: a cancel request is never answered
        if problem is not None:
            progress.end(outcome, end.closed_by, problem.message, problem.code)
        else:
            reason = None if end.error is None else str(end.error) or type(end.error).__name__
            progress.end(outcome, end.closed_by, reason)

    async def _admit(self, client: Client) -> Carry:
        with trio.move_on_after(self.prologue_timeout):
            return await self.admission.admit(client)
        raise ClientError(
            Code.CLIENT_STALLED,
            f"the client did not complete its first message within {self.prologue_timeout:g} s",
        )

    async def _dial(self, carry: Carry, progress: _Progress) -> UpstreamConnection:
        identity = await self._usable_identity()
        progress.generation = identity.generation
        upstream = await self.dialer.dial(
            self.protocol.alpn, identity, authenticate=carry.authenticate
        )
        self.publish(
            UpstreamConnected(
                id=progress.id,
                address=str(self.dialer.address),
                alpn=upstream.alpn,
                tls_version=upstream.tls_version,
                duration=upstream.duration,
            )
        )
        return upstream

    async def _usable_identity(self) -> Identity:
        identity = await self.store.fresh()
        identity.check_validity(self.clock())
        return identity

    async def _relay(
        self, client: Client, upstream: LayeredStream, carry: Carry, progress: _Progress
    ) -> RelayEnd:
        if carry.greeting is not None:
            await self._greet(upstream, carry.greeting)
        progress.relay = Relay(client.stream, upstream, carry.first_flight)
        end = await progress.relay.run()
        if carry.reply_expected and not end.upstream_spoke and end.closed_by is ClosedBy.UPSTREAM:
            raise self._early_end(end.upstream_error or end.error)
        return end

    async def _greet(self, upstream: LayeredStream, greeting: UpstreamGreeting) -> None:
        """Say what the upstream waits for and the client does not know about."""
        answer = b""
        try:
            with trio.move_on_after(self.handshake_timeout):
                await upstream.send_all(greeting.request)
                while len(answer) < len(greeting.answer):
                    received = await upstream.receive_some(len(greeting.answer) - len(answer))
                    if not received:
                        raise self._early_end(None)
                    answer += received
        except (trio.BrokenResourceError, LayerError) as error:
            raise self._early_end(error) from error
        if answer != greeting.answer:
            shown = repr(answer) if answer else f"nothing within {self.handshake_timeout:g} s"
            raise UpstreamError(
                Code.UPSTREAM_PROTOCOL_ERROR,
                f"the Teleport Proxy at {self.dialer.address} answered {shown} where the"
                f" {self.protocol.readable_name} protocol has {greeting.answer!r}",
            )

    def _early_end(self, error: Exception | None) -> UpstreamError:
        return explain_early_end(self.dialer.address, error)

    def _report_bug(self, progress: _Progress, bug: Exception) -> None:
        progress.end("failed", ClosedBy.DBPROXY, repr(bug), Code.INTERNAL_ERROR)
        self.publish(ConnectionFailed(id=progress.id, error=bug))

    def _record(self, progress: _Progress) -> ConnectionRecord:
        route = self.store.current.route
        relay = progress.relay
        return ConnectionRecord(
            id=progress.id,
            peer=progress.peer,
            mode=self.mode,
            service=route.service,
            protocol=self.protocol.name,
            database_user=progress.user,
            database_name=progress.database,
            generation=progress.generation,
            bytes_up=relay.bytes_up if relay else 0,
            bytes_down=relay.bytes_down if relay else 0,
            opened_at=progress.opened_at,
            duration=trio.current_time() - progress.started,
            closed_by=progress.closed_by,
            outcome=progress.outcome,
            code=progress.code,
            reason=progress.reason,
        )


def _closed_by(error: DBProxyError) -> ClosedBy:
    """A refusal is ours, unless the upstream had closed on us."""
    closed_on_us = error.problem.fault is Fault.UPSTREAM or error.code is Code.CERTIFICATE_REJECTED
    return ClosedBy.UPSTREAM if closed_on_us else ClosedBy.DBPROXY
