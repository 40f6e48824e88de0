"""Keeping the identity fresh while no connection asks, and telling when tbot does not renew.

Connections look for themselves before they dial. This is for everything between connections: what
is told as events, what clients' certificates are compared with, and that the first connection after
a renewal need not read.

A change notice, a slow poll and a jump of the system's clock all lead to the store's one way of
reloading. The notice is quick, but not every file system gives any; the poll always works.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, NoReturn

import trio

from dbproxy.errors import PROBLEMS, Code
from dbproxy.events import (
    ChangeNoticesUnavailable,
    ClockJumped,
    Event,
    IdentityExpired,
    IdentityNotRenewed,
)
from dbproxy.identity.duration import in_words
from dbproxy.identity.expiry import ClockComparison, Expired, ExpirySchedule, Overdue
from dbproxy.identity.identity import Identity
from dbproxy.identity.notices import NoticesUnavailableError, watch_directory
from dbproxy.identity.store import IdentityStore, ignore, utc_now

__all__ = ["watch"]

POLL_INTERVAL: Final = 5.0
"""Seconds between looks."""
RETRY_INTERVAL: Final = 60.0
"""Seconds until a system that could not watch the directory is asked again."""
WITHOUT_NOTICES: Final = (
    "Nothing has to be done: renewals are found all the same, a little later. Linux has the limits"
    " fs.inotify.max_user_watches and fs.inotify.max_user_instances."
)
SHORTEST_PAUSE: Final = 0.05
"""Seconds: the least between looks, however close the next moment of the schedule is."""


async def watch(
    store: IdentityStore,
    *,
    publish: Callable[[Event], None] = ignore,
    clock: Callable[[], datetime] = utc_now,
    renewal_interval: timedelta | None = None,
    interval: float = POLL_INTERVAL,
) -> NoReturn:
    """Keep `store` fresh until cancelled.

    Args:
        store: Has been loaded.
        publish: Gets `IdentityNotRenewed` and `IdentityExpired` when their moment has come,
            `ClockJumped`, and `ChangeNoticesUnavailable` once.
        clock: Tells the time, aware.
        renewal_interval: How often tbot renews, if that is known.
        interval: Seconds between looks, whatever the system notices.
    """
    keeper = _Keeper(store, publish, clock, renewal_interval, interval)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.heed_notices)
        nursery.start_soon(keeper.poll)
    raise AssertionError("neither task ends by itself")


class _Keeper:
    """The two tasks, and what they share."""

    def __init__(
        self,
        store: IdentityStore,
        publish: Callable[[Event], None],
        clock: Callable[[], datetime],
        renewal_interval: timedelta | None,
        interval: float,
    ) -> None:
        self._store = store
        self._publish = publish
        self._clock = clock
        self._renewal_interval = renewal_interval
        self._interval = interval
        self._scheduled = store.current
        self._schedule = self._schedule_for(store.current)

    async def heed_notices(self) -> NoReturn:
        """Look whenever the system says that something has changed, if it can."""
        told = False
        while True:
            try:
                await watch_directory(self._store.source.directory, self._store.settled)
            except NoticesUnavailableError as error:
                if not told:
                    self._tell_unavailable(error)
                told = True
            await trio.sleep(RETRY_INTERVAL)

    def _tell_unavailable(self, error: NoticesUnavailableError) -> None:
        self._publish(
            ChangeNoticesUnavailable(
                reason=str(error), interval=self._interval, next_step=WITHOUT_NOTICES
            )
        )

    async def poll(self) -> NoReturn:
        """Look now and then, at each moment of the schedule, and when the clock jumps."""
        comparison = ClockComparison(self._clock().timestamp(), trio.current_time())
        while True:
            self._warn()
            await trio.sleep(self._pause())
            gained = comparison.jump(self._clock().timestamp(), trio.current_time())
            if gained is None:
                await self._store.settled()
            else:
                self._publish(ClockJumped(seconds=gained))
                await self._store.reload()

    def _pause(self) -> float:
        """Seconds until the next look."""
        next_moment = self._schedule.until_next(self._clock())
        if next_moment is None:
            return self._interval
        return max(SHORTEST_PAUSE, min(self._interval, next_moment.total_seconds()))

    def _warn(self) -> None:
        """Publish what the schedule of the current certificate has to say by now."""
        current = self._store.current
        if current.certificate != self._scheduled.certificate:
            self._schedule = self._schedule_for(current)
        self._scheduled = current
        match self._schedule.poll(self._clock()):
            case Overdue(due, remaining):
                self._publish(_not_renewed(current, due, remaining))
            case Expired():
                self._publish(_expired(current))

    def _schedule_for(self, identity: Identity) -> ExpirySchedule:
        return ExpirySchedule(
            identity.not_valid_before, identity.not_valid_after, self._renewal_interval
        )


def _not_renewed(identity: Identity, due: datetime, remaining: timedelta) -> IdentityNotRenewed:
    return IdentityNotRenewed(
        generation=identity.generation,
        code=Code.IDENTITY_NOT_RENEWED,
        due=due,
        not_valid_after=identity.not_valid_after,
        reason=f"tbot should have renewed the certificate in {identity.files.certificate} by"
        f" {due:%Y-%m-%d %H:%M:%S} UTC; it is valid for another {in_words(remaining)}",
        next_step=PROBLEMS[Code.IDENTITY_NOT_RENEWED].next_step,
    )


def _expired(identity: Identity) -> IdentityExpired:
    return IdentityExpired(
        generation=identity.generation,
        code=Code.CERTIFICATE_EXPIRED,
        not_valid_after=identity.not_valid_after,
        reason=f"the certificate in {identity.files.certificate} expired at"
        f" {identity.not_valid_after:%Y-%m-%d %H:%M:%S} UTC; connections are refused until tbot"
        " renews it",
        next_step=PROBLEMS[Code.CERTIFICATE_EXPIRED].next_step,
    )
