"""Connections to the Teleport Proxy that are ready before a client comes (`--prewarm`).

The problem: a new client waits for TCP, maybe for an outbound proxy and an upgrade, and for TLS: a
few round trips to a Teleport Proxy that may be far away, and the arithmetic of both sides.

The choice: so many tasks as connections are to be ready; each makes one, watches it until it is
taken or of no use any more, and makes the next.

| state     | who owns it | what ends it                                                          |
|-----------|-------------|-----------------------------------------------------------------------|
| `WAITING` | its task    | a client, its age, a renewal, another address, a word of the upstream |
| `TAKEN`   | the client  |                                                                       |
| `OVER`    | nobody      | it is closed                                                          |

- **What waits is read.** So pings are absorbed, TLS's tickets are taken in, and an upstream that
  closes, rejects our certificate or says anything before the client did is noticed at once. When
  one is taken, the socket is looked at once more. What is noticed too late is no harm: whoever
  carries the client dials afresh as long as the upstream has not answered.
- **Taking one takes no time.** Reading never waits (`dbproxy.relay.quiet`), so a client changes the
  state, ends the watch, and has it. A turn of trio's loop would cost a tenth of what a handshake
  on the same host does.
- **It does not wait long.** Teleport's PostgreSQL handler sets no limit for the first message
  (`lib/srv/db/postgres/proxy.go`), but balancers and firewalls forget idle connections, after a
  minute or so, and a host that vanishes says nothing. `LIFETIME` is far below.
- **It belongs to a generation of the identity, and to an address.** A renewal ends all earlier
  ones at once, and a connection that was made to another address ends those to the former.
- **It is kept for clients that come.** So many handshakes every `LIFETIME` are a load on the
  Teleport Proxy, so a minute after the last client no more are made. The first client after a
  longer pause waits for its own handshake, and has the next ones made.
- **A failing upstream is left in peace.** After a failure one connection is tried at a time, with
  growing pauses, which count as over only when one has stayed for a while: with TLS 1.3 a
  rejection comes after a handshake that looked fine.

Only for protocols whose session begins with the client's first message
(`DatabaseProtocol.session_awaits_client`): elsewhere Teleport would count each one as a session.

Tested in `tests/unit/upstream/test_prewarm.py` on a virtual clock, and in
`tests/integration/test_prewarm.py`.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum, auto
from math import inf
from typing import Final

import trio

from dbproxy.backoff import Backoff
from dbproxy.errors import Code, DBProxyError, IdentityError, UpstreamError
from dbproxy.events import PrewarmFailed, Subscriber, UpstreamReady
from dbproxy.identity import Identity, IdentityStore
from dbproxy.layers import LayerError
from dbproxy.relay import SilenceError, take_in, wait_until_readable
from dbproxy.upstream.dial import UpstreamConnection
from dbproxy.upstream.explain import explain_early_end

__all__ = ["Dial", "ReadyConnections"]

Dial = Callable[[Identity], Awaitable[UpstreamConnection]]
"""Makes a connection, with an identity; raises `DBProxyError`. Cancelled, it leaves no socket."""

LIFETIME: Final = 15.0
"""Seconds that a connection waits for a client."""
BUSY: Final = 60.0
"""Seconds after the latest client in which connections are made for the next."""
AT_ONCE: Final = 4
"""Handshakes at a time: clients that found none ready have theirs beside these."""
AFTER_CLIENT: Final = 0.005
"""Seconds until the next is made for one that was taken: the client's own first round trip should
not wait for the arithmetic of a handshake."""
TRIAL: Final = 2.0
"""Seconds in which a rejection arrives, as slow as networks are."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""Seconds after failures. While it lasts clients dial for themselves, and try more often."""
QUIET: Final = 60.0
"""Seconds between events about failures."""


class _State(Enum):
    WAITING = auto()
    TAKEN = auto()
    OVER = auto()


@dataclass(slots=True, eq=False)
class _Ready:
    """A connection that is, or was, ready.

    Attributes:
        connection: The connection.
        identity: What it was made with.
        began: When its making began, on trio's clock.
        watch: What its task does with it; cancelled to end the waiting.
        state: Who owns it.
    """

    connection: UpstreamConnection
    identity: Identity
    began: float
    watch: trio.CancelScope = field(default_factory=trio.CancelScope)
    state: _State = _State.WAITING


class ReadyConnections:
    """Keeps connections ready, for clients of one kind.

    Args:
        dial: Makes one.
        store: The identity.
        size: How many are to be ready.
        authenticate: Whether those that `dial` makes present the identity's certificate.
        publish: Gets an `UpstreamReady` for each, and a `PrewarmFailed` when they cannot be made,
            at most once a minute.
        backoff: The pauses after failures.
        clock: The time, in UTC.
    """

    def __init__(
        self,
        dial: Dial,
        store: IdentityStore,
        *,
        size: int,
        authenticate: bool,
        publish: Subscriber,
        backoff: Backoff | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._dial = dial
        self._store = store
        self._size = size
        self._authenticate = authenticate
        self._publish = publish
        self._backoff = backoff or Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._clock = clock
        self._ready: deque[_Ready] = deque()
        self._turns = trio.CapacityLimiter(AT_ONCE)
        self._busy_until = -inf
        self._failed_at = -inf
        self._paused_until = -inf
        self._quiet_until = -inf
        self._client_came = trio.Event()

    @property
    def waiting(self) -> int:
        """How many are ready now."""
        return len(self._ready)

    async def run(self) -> None:
        """Keep connections ready until cancelled; then those that nobody has taken are closed.

        The first client may come any moment, so they are made at once.
        """
        self._note_client()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_renewals)
            for _ in range(self._size):
                nursery.start_soon(self._keep_one)

    def take(self, *, authenticate: bool) -> UpstreamConnection | None:
        """A connection that is ready and was not closed up to now; `None` when there is none.

        It is of the store's present generation, and the caller's to close.

        Args:
            authenticate: Whether it must have presented the identity's certificate.
        """
        self._note_client()
        identity = self._store.current
        if authenticate is not self._authenticate or not self._is_valid(identity):
            return None
        while self._ready:
            oldest = self._ready.popleft()
            oldest.watch.cancel()
            if oldest.identity is not identity:
                continue  # its task closes it
            if _what_came(oldest.connection) is None:
                oldest.state = _State.TAKEN
                self._note_success(oldest.began)
                return oldest.connection
            oldest.state = _State.OVER
        return None

    def _is_valid(self, identity: Identity) -> bool:
        try:
            identity.check_validity(self._clock())
        except IdentityError:
            return False
        return True

    async def _keep_one(self) -> None:
        while True:
            await self._until_due()
            ready = await self._make()
            if ready is not None:
                await self._offer(ready)
                if ready.state is _State.TAKEN:
                    await trio.sleep(AFTER_CLIENT)

    async def _until_due(self) -> None:
        while not self._is_due():
            if trio.current_time() >= self._busy_until:
                await self._client_came.wait()
            else:
                await trio.sleep_until(self._paused_until)

    def _is_due(self) -> bool:
        return self._paused_until <= trio.current_time() < self._busy_until

    async def _make(self) -> _Ready | None:
        async with self._turns:
            if not self._is_due():
                return None  # it has failed for another, while this one waited for its turn
            began = trio.current_time()
            try:
                identity = await self._store.fresh()
                identity.check_validity(self._clock())
                connection = await self._dial(identity)
            except DBProxyError as error:
                self._fail(error, began)
                return None
            if self._failing:
                self._paused_until = trio.current_time() + TRIAL
            return _Ready(replace(connection, prewarmed=True), identity, began)

    async def _offer(self, ready: _Ready) -> None:
        """Watch it until it is taken or of no use any more, which closes it."""
        address = ready.connection.address
        self._drop(lambda other: other.connection.address != address)
        if ready.identity is not self._store.current:
            ready.watch.cancel()  # renewed meanwhile
        else:
            self._ready.append(ready)
            self._tell(ready)
        ready.watch.deadline = trio.current_time() + LIFETIME
        try:
            with ready.watch:
                await self._watch(ready)
                ready.state = _State.OVER
        finally:
            if ready in self._ready:
                self._ready.remove(ready)
            if ready.state is _State.WAITING:
                ready.state = _State.OVER
                ready.connection.remember()  # nothing was wrong with it, and its tickets have come
            if ready.state is _State.OVER:
                await ready.connection.stream.abandon()

    async def _watch(self, ready: _Ready) -> None:
        """Returns when the upstream has ended it, or has said what it must not."""
        with trio.move_on_after(TRIAL) as trial:
            self._fail(await _what_is_wrong(ready), ready.began)
        if trial.cancelled_caught:
            self._note_success(ready.began)
            await _what_is_wrong(ready)
            self._pause(ready.began)

    async def _follow_renewals(self) -> None:
        generation = self._store.current.generation
        while True:
            generation = (await self._store.newer_than(generation)).generation
            self._drop(lambda ready: ready.identity is not self._store.current)

    def _drop(self, is_stale: Callable[[_Ready], bool]) -> None:
        for ready in [ready for ready in self._ready if is_stale(ready)]:
            self._ready.remove(ready)
            ready.watch.cancel()

    def _note_client(self) -> None:
        now = trio.current_time()
        if now >= self._busy_until:
            self._client_came.set()
            self._client_came = trio.Event()
        self._busy_until = now + BUSY

    def _tell(self, ready: _Ready) -> None:
        connection = ready.connection
        self._publish(
            UpstreamReady(
                address=str(connection.address),
                generation=ready.identity.generation,
                resumed=connection.resumed,
                duration=connection.duration,
            )
        )

    @property
    def _failing(self) -> bool:
        """Whether something has gone wrong, and nothing well since."""
        return self._turns.total_tokens < AT_ONCE

    def _note_success(self, began: float) -> None:
        if began < self._failed_at:
            return  # it was made before all went wrong
        self._turns.total_tokens = AT_ONCE
        self._backoff.worked_for(inf)
        self._paused_until = -inf

    def _pause(self, began: float) -> None:
        if began < self._failed_at:
            return  # others have failed at the same time
        now = trio.current_time()
        self._turns.total_tokens = 1
        self._failed_at = now
        self._paused_until = now + self._backoff.next()

    def _fail(self, error: DBProxyError, began: float) -> None:
        self._pause(began)
        now = trio.current_time()
        if now < self._quiet_until:
            return
        self._quiet_until = now + QUIET
        self._publish(
            PrewarmFailed(code=error.code, reason=error.message, next_step=error.next_step)
        )


async def _what_is_wrong(ready: _Ready) -> UpstreamError:
    """Wait until there is something wrong: nothing may come before the client has spoken."""
    connection = ready.connection
    while True:
        try:
            await wait_until_readable(connection.stream)
        except SilenceError as error:
            return explain_early_end(connection.address, error)
        if ready.state is not _State.WAITING:  # what has come is for whoever has taken it
            await trio.sleep_forever()
        if (wrong := _what_came(connection)) is not None:
            return wrong


def _what_came(connection: UpstreamConnection) -> UpstreamError | None:
    """Take in what is for the layers, such as a ping; anything else is wrong."""
    address = connection.address
    try:
        said = take_in(connection.stream)
    except (trio.BrokenResourceError, LayerError) as error:
        return explain_early_end(address, error)
    if said is None:
        return None
    if not said:
        return explain_early_end(address, None)
    return UpstreamError(
        Code.UPSTREAM_PROTOCOL_ERROR,
        f"the Teleport Proxy at {address} sent {len(said)} bytes before any client had spoken",
    )
