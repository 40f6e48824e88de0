"""The life of one connection: admission, the bridge to the upstream, exactly one record, parting.

Read `ConnectionHandler.handle` and `_serve` from top to bottom: that is the order in which things
happen to a connection. What comes first, the client's words or the upstream's, depends on the
protocol, so there are two ways through the middle: `_hear_client_first` and `_hear_upstream_first`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Final

import trio

from dbproxy.downstream.admit import Admission
from dbproxy.downstream.bridge import Bridge
from dbproxy.downstream.client import Client, ClientGone
from dbproxy.downstream.parting import part
from dbproxy.downstream.peer import describe_peer
from dbproxy.downstream.progress import STOPPED, Progress
from dbproxy.errors import Code, DBProxyError, Fault
from dbproxy.events import (
    ClosedBy,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    ConnectionRecord,
    Event,
)
from dbproxy.identity import IdentityStore
from dbproxy.protocols import Carry, DatabaseProtocol, Greeting, GreetingReader, reason_for
from dbproxy.relay import Liveness, RelayEnd
from dbproxy.settings import Mode
from dbproxy.upstream import explain_early_end, explain_loss

__all__ = ["ConnectionHandler"]

_PROBE_MOMENT: Final = 0.005
"""Seconds in which a client that waits for a greeting may go away without costing a connection to
the Teleport Proxy. Port checks connect and close at once; a client that stays waits as long for the
Teleport Proxy anyway, several times over."""


@dataclass(slots=True, kw_only=True)
class ConnectionHandler:
    """Serves the connections of one listener.

    Attributes:
        mode: The listener's mode.
        protocol: The database protocol.
        store: The identity.
        admission: Lets clients in, as the mode has it.
        bridge: Brings them to the upstream.
        liveness: Looks after the client's connection.
        publish: Gets the events of each connection.
        prologue_timeout: Seconds for a client to connect, start TLS and send its first message.
        clock: The time, in UTC.
    """

    mode: Mode
    protocol: DatabaseProtocol
    store: IdentityStore
    admission: Admission
    bridge: Bridge
    liveness: Liveness
    publish: Callable[[Event], None]
    prologue_timeout: float
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    open_connections: int = 0
    ended_early: int = 0
    _ids: "count[int]" = field(default_factory=lambda: count(1))

    async def handle(self, transport: trio.SocketStream) -> None:
        """Serve one accepted connection until it ends; cancellation ends it at once.

        Never raises for what a client, the identity or the upstream do.
        """
        progress = self._begin(transport)
        self.liveness.watch(transport)
        try:
            await self._serve_and_record(Client(transport), progress)
        finally:
            if progress.parting is not None:
                await part(progress.parting)

    async def _serve_and_record(self, client: Client, progress: Progress) -> None:
        self.open_connections += 1
        try:
            await self._serve(client, progress)
        except Exception as bug:  # noqa: BLE001 - one connection's bug must not end the others
            self._report_bug(progress, bug)
        finally:
            self.open_connections -= 1
            self.ended_early += progress.outcome == STOPPED
            try:
                await client.close()
            finally:
                self.publish(ConnectionClosed(record=self._record(progress)))

    def _begin(self, transport: trio.SocketStream) -> Progress:
        try:
            peer = describe_peer(transport.socket)
        except OSError:  # it has been reset while it was in the queue
            peer = "gone"
        progress = Progress(next(self._ids), peer, self.clock(), trio.current_time())
        self.publish(ConnectionOpened(id=progress.id, peer=peer))
        return progress

    async def _serve(self, client: Client, progress: Progress) -> None:
        try:
            if self.protocol.greeting_reader() is None:
                carry, end = await self._hear_client_first(client, progress)
            else:
                carry, end = await self._hear_upstream_first(client, progress)
        except ClientGone as gone:
            self._note_gone(client, progress, gone)
            if gone.untold is not None:
                await client.refuse(gone.untold)
        except DBProxyError as error:
            closed_by = _closed_by(error)
            progress.end("refused", closed_by, error.message, error.code)
            await client.refuse(error)
        else:
            self._note_end(progress, carry, end)
            if end.client_ended:
                return  # it says nothing more, so closing destroys nothing on its way to it
            if end.upstream_error is not None:
                await client.break_off()  # half an answer must not look like a whole one
            else:
                await client.linger()

    async def _hear_client_first(
        self, client: Client, progress: Progress
    ) -> tuple[Carry, RelayEnd]:
        carry = await self._admit(client)
        progress.user, progress.database = carry.user, carry.database
        return carry, await self.bridge.carry(client, carry, progress)

    async def _hear_upstream_first(
        self, client: Client, progress: Progress
    ) -> tuple[Carry, RelayEnd]:
        await self._see_whether_it_stays(client, _PROBE_MOMENT)
        authenticate = self.mode is not Mode.PASSTHROUGH
        async with self.bridge.greeted(
            client, self._new_greeting_reader, authenticate, progress
        ) as upstream:
            await self._see_whether_it_stays(client, 0)  # who has spoken meanwhile did so too early
            progress.said_down += upstream.greeting.size
            carry = await self._admit(client, upstream.greeting)
            progress.user, progress.database = carry.user, carry.database
            return carry, await self.bridge.carry_on(client, upstream, carry, progress)

    async def _see_whether_it_stays(self, client: Client, moment: float) -> None:
        await client.see_whether_it_stays(self.protocol.prologue(self.mode), moment)

    def _new_greeting_reader(self) -> GreetingReader:
        reader = self.protocol.greeting_reader()
        assert reader is not None  # noqa: S101 - asked only in protocols that have one
        return reader

    def _note_gone(self, client: Client, progress: Progress, gone: ClientGone) -> None:
        if client.spoke:
            progress.end("abandoned", ClosedBy.CLIENT, gone.reason, gone.code)
        else:
            guess = gone.reason if gone.code is not None else None
            progress.end("probe", ClosedBy.CLIENT, guess)

    def _note_end(self, progress: Progress, carry: Carry, end: RelayEnd) -> None:
        refusal = progress.verdict.code if progress.verdict is not None else None
        if refusal is not None:
            progress.end("refused", ClosedBy.UPSTREAM, reason_for(refusal), refusal)
            return
        if carry.reply_expected:
            outcome, lost = "relayed", end.upstream_error
            problem = explain_loss(progress.upstream, lost) if lost is not None else None
        else:
            outcome = "cancel-request"
            problem = explain_early_end(progress.upstream, end.upstream_error)
            if problem.code is not Code.CERTIFICATE_REJECTED:
                problem = None  # the normal end: a cancel request is never answered
        if problem is not None:
            progress.end(outcome, end.closed_by, problem.message, problem.code)
        else:
            progress.end(outcome, end.closed_by, _how_broken(end.error))

    async def _admit(self, client: Client, greeting: Greeting | None = None) -> Carry:
        with client.hurried(self.prologue_timeout):
            return await self.admission.admit(client, greeting)

    def _report_bug(self, progress: Progress, bug: Exception) -> None:
        progress.end("failed", ClosedBy.DBPROXY, repr(bug), Code.INTERNAL_ERROR)
        self.publish(ConnectionFailed(id=progress.id, error=bug))

    def _record(self, progress: Progress) -> ConnectionRecord:
        return progress.record(
            self.mode,
            self.store.current.route.service,
            self.protocol.name,
            trio.current_time(),
        )


def _how_broken(error: Exception | None) -> str | None:
    """What ended a connection that nobody is to blame for, in the system's words if it has some."""
    if error is None:
        return None
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno is not None:
        return f"the connection broke: {os.strerror(cause.errno).lower()}"
    return str(error) or type(error).__name__


def _closed_by(error: DBProxyError) -> ClosedBy:
    """A refusal is ours, unless the upstream had closed on us."""
    closed_on_us = error.problem.fault is Fault.UPSTREAM or error.code is Code.CERTIFICATE_REJECTED
    return ClosedBy.UPSTREAM if closed_on_us else ClosedBy.DBPROXY
