"""Whether a connection through the tunnel works, found out before anybody needs one.

A real dial to the Teleport Proxy, with our certificate, as for a client; then a moment in which it
can be rejected. No session begins. What may pass is waited for, by the rules that hold for clients.
"""

from datetime import UTC, datetime
from functools import partial

import trio

from dbproxy.errors import Code, UpstreamError
from dbproxy.events import Subscriber, UpstreamAwaited
from dbproxy.identity import Identity
from dbproxy.proxy import Prepared
from dbproxy.settings import Mode
from dbproxy.upstream import Attempts, Retry, UpstreamConnection, check_not_rejected

__all__ = ["wait_until_ready"]


async def wait_until_ready(prepared: Prepared, limit: float, publish: Subscriber) -> None:
    """Return when a connection works. Cancelled or failed, it leaves no socket behind.

    Args:
        prepared: What listens.
        limit: Seconds that it may take; 0: one attempt, for as long as it takes.
        publish: Gets an `UpstreamAwaited` when the wait begins, and whenever its code changes.

    Raises:
        UpstreamError: Why there is no connection: the last attempt's failure.
        IdentityError: The identity is not valid now.
    """
    wait = _Wait(prepared, limit, publish)
    if not limit:
        await wait.attempt()
        return
    with trio.move_on_after(limit) as patience:
        await wait.repeat()
    if patience.cancelled_caught:
        raise wait.failure or UpstreamError(
            Code.UPSTREAM_UNREACHABLE, f"no connection to the Teleport Proxy within {limit:g} s"
        )


class _Wait:
    def __init__(self, prepared: Prepared, limit: float, publish: Subscriber) -> None:
        self._prepared = prepared
        self._publish = publish
        self._deadline = trio.current_time() + limit
        self._attempts = Attempts(limit, trio.current_time())
        self._generation = 0
        self.failure: UpstreamError | None = None

    async def repeat(self) -> None:
        while True:
            try:
                await self.attempt()
            except UpstreamError as error:
                retry = self._attempts.after(error.prospect, trio.current_time())
                if retry is None:
                    raise
                self._note(error)
                await self._pause(retry)
            else:
                return

    async def attempt(self) -> None:
        prepared = self._prepared
        identity = await prepared.store.fresh()
        identity.check_validity(datetime.now(UTC))
        self._generation = identity.generation
        upstream = await self._dial(identity)
        try:
            await check_not_rejected(upstream)
        finally:
            await trio.aclose_forcefully(upstream.stream)

    async def _dial(self, identity: Identity) -> UpstreamConnection:
        dial = partial(self._prepared.dialer.dial, self._prepared.protocol, identity)
        try:
            return await dial(authenticate=True)
        except UpstreamError as error:
            passthrough = self._prepared.facts.mode is Mode.PASSTHROUGH
            if not passthrough or error.code is not Code.TLS_ROUTING_OFF:
                raise
        return await dial(authenticate=False)  # only the client itself does TLS there

    def _note(self, error: UpstreamError) -> None:
        if self.failure is None or self.failure.code is not error.code:
            remaining = max(0.0, self._deadline - trio.current_time())
            self._publish(
                UpstreamAwaited(code=error.code, reason=error.message, remaining=remaining)
            )
        self.failure = error

    async def _pause(self, retry: Retry) -> None:
        if retry.renewed:
            await self._prepared.store.newer_than(self._generation)
        else:
            await trio.sleep(retry.pause)
