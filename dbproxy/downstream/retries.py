"""Beginning anew for a client, as long as it can be served by another attempt.

The problem: TLS 1.3 tells us that our certificate was rejected only when we read, and by then we
have sent what the client said. An upstream that is being restarted, and one that closes without a
word, look just like that.

The choice: until the upstream's first byte nobody has consumed what the client said, so it is kept
(`FirstFlight`). When the upstream fails before that byte, `Attempts` decides whether another one is
dialled: after a pause, or once tbot has written a newer identity. The client waits, and is told why
only when the grace is over.

Tested in `tests/unit/downstream/test_bridge.py`.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import trio

from dbproxy.downstream.client import Client, ClientGone
from dbproxy.downstream.departures import wait_unless
from dbproxy.downstream.progress import Progress
from dbproxy.errors import UpstreamError
from dbproxy.events import Event, UpstreamRetried
from dbproxy.identity import IdentityStore
from dbproxy.relay import FirstFlight
from dbproxy.upstream import Attempts, Retry

__all__ = ["Retries"]

T = TypeVar("T")


class Retries:
    """Tries again for the clients of one listener.

    Args:
        store: The identity; a newer one may be what an attempt needs.
        grace: Seconds in which attempts may begin.
        publish: Gets an `UpstreamRetried` before each further attempt.
    """

    def __init__(
        self, store: IdentityStore, grace: float, publish: Callable[[Event], None]
    ) -> None:
        self._store = store
        self._grace = grace
        self._publish = publish
        self._rejections: dict[int, float] = {}
        self._stopping = trio.Event()

    def stop(self) -> None:
        """Make no further attempt for anybody: clients that wait are told why at once."""
        self._stopping.set()

    def note_accepted(self, generation: int) -> None:
        """The upstream has taken this generation's certificate.

        A later rejection is a new one, which a renewal may explain.
        """
        self._rejections.pop(generation, None)

    async def until_it_works(
        self,
        attempt: Callable[[], Awaitable[T]],
        watched: Client | None,
        flight: FirstFlight,
        progress: Progress,
    ) -> T:
        """Make attempts until one succeeds, and return its result.

        Args:
            attempt: Makes one.
            watched: The client whose leaving ends a wait.
            flight: What it has said; once that cannot be said again, there is no further attempt.
            progress: Notes how many attempts were made, and what the latest one was made with.

        Raises:
            UpstreamError: No attempt was successful; the last one's failure.
            ClientGone: The client left while it was kept waiting for another attempt.
        """
        attempts = Attempts(self._grace, trio.current_time())
        while True:
            progress.attempts = attempts.made
            try:
                return await attempt()
            except UpstreamError as error:
                if not flight.replayable or not await self._pause(
                    watched, attempts, error, progress
                ):
                    raise

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
        self._publish(
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
                await wait_unless(ends, partial(self._store.newer_than, progress.generation))
            else:
                await wait_unless(ends, trio.sleep_forever)
        if watched is not None and watched.left:
            reason = f"the client left while it was kept waiting, because {error.message}"
            raise ClientGone(reason, error.code, untold=error) from error
        if self._stopping.is_set():
            return False
        return not retry.renewed or self._store.current.generation > progress.generation

    def _wait_for_renewal(self, generation: int, longest: float) -> float:
        """Seconds to wait for a newer identity, now that this generation has been rejected.

        A renewal that explains the rejection is not far. Once a generation has been rejected for as
        long as the grace, clients need not wait for it one by one.
        """
        now = trio.current_time()
        if generation not in self._rejections:
            self._rejections = {generation: now}
        return min(longest, max(0.0, self._rejections[generation] + self._grace - now))
