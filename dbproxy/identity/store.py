"""The identity in use, and how a newer one takes its place.

The problem: tbot renews every 20 minutes or so by rewriting the files one after another. Whoever
reads at a bad moment sees new and old mixed; whoever reads too rarely dials with a certificate that
has expired.

The choice: a read that fails in a way that a write under way can cause is repeated for about a
second, far longer than tbot takes from its first file to its last. What is good then replaces the
current generation in one assignment; what is not leaves it alone. Each connection asks `fresh()`
before it dials, which costs five `stat` calls as long as nothing was written.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import trio

from dbproxy.errors import Code, IdentityError
from dbproxy.events import Event, IdentityLoaded, IdentityReloadFailed
from dbproxy.identity.identity import Identity
from dbproxy.identity.source import IdentitySource
from dbproxy.identity.stamp import Stamp

__all__ = ["IdentityStore", "ignore", "utc_now"]

TORN_WRITE_PATIENCE: Final = 1.0
"""Seconds for which a torn read is repeated. tbot writes its files within milliseconds; a loaded
machine or a network file system stretches that; a user at a prompt still accepts a second."""
TORN_WRITE_PAUSE: Final = 0.05
"""Seconds between such attempts: one attempt costs about a millisecond."""
RECHECK_INTERVAL: Final = 1.0
"""Seconds after which files that look unchanged are read again, when there is reason to."""
TIMESTAMP_GRANULARITY: Final = 2.0
"""Seconds during which a further write may leave the same times in the file system: some network
file systems keep whole seconds, FAT keeps every second one."""

_NANOSECONDS: Final = 1e9
_TORN: Final = frozenset({Code.KEY_MISMATCH, Code.IDENTITY_MIXED, Code.IDENTITY_MALFORMED})


def ignore(_event: Event) -> None:
    """A subscriber that does nothing."""


def utc_now() -> datetime:
    """The time of the system's clock."""
    return datetime.now(UTC)


class IdentityStore:
    """Holds the current identity and the one before it.

    Safe to use from any number of tasks of one trio run.

    Args:
        source: Where the identity comes from; it is read in a worker thread.
        service: The database service that the certificate must be for; `None` takes the one that
            the first certificate names.
        publish: Gets `IdentityLoaded` and `IdentityReloadFailed`.
        clock: Tells the time, aware.
    """

    def __init__(
        self,
        source: IdentitySource,
        *,
        service: str | None = None,
        publish: Callable[[Event], None] = ignore,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._source = source
        self._service = service
        self._publish = publish
        self._clock = clock
        self._lock = trio.Lock()
        self._current: Identity | None = None
        self._previous: Identity | None = None
        self._look = _Look(Stamp(()), -RECHECK_INTERVAL, again=True)
        self._reported: tuple[Stamp, Code] | None = None

    @property
    def current(self) -> Identity:
        """The identity that new connections use.

        Raises:
            RuntimeError: `load` has not succeeded yet.
        """
        if self._current is None:
            raise RuntimeError("the identity has not been loaded")
        return self._current

    @property
    def previous(self) -> Identity | None:
        """The generation before the current one, whose certificate clients may still show."""
        return self._previous

    async def load(self) -> Identity:
        """Read the destination for the first time; a torn write is waited for, about a second.

        Cancelled, it has loaded nothing.

        Raises:
            IdentityError: The identity cannot be read, is for another service, or is not valid now.
        """
        async with self._lock:
            return self._adopt(await self._read_usable(TORN_WRITE_PATIENCE))

    async def reload(self) -> Identity:
        """Read the destination again, changed or not, and adopt what is new in it.

        On failure the current generation stays, and `IdentityReloadFailed` is published. Calls at
        the same time share one read. Cancelled, it keeps the current generation.

        Returns:
            The current identity afterwards, new or not.

        Raises:
            RuntimeError: `load` has not succeeded yet.
        """
        look_before = self._look
        async with self._lock:
            if self._look is look_before or self._has_changed():
                self._reported = None
                await self._renew(TORN_WRITE_PATIENCE)
            return self.current

    async def fresh(self) -> Identity:
        """The current identity, after a look whether tbot has written a newer one.

        Costs a few `stat` calls and a checkpoint when nothing has changed. What failed to load, or
        was read so soon after it was written that a further write could go unnoticed, is tried
        again at most once a second, in one attempt. Failures are published, once for each state of
        the files. Cancelled, it keeps the current generation, and the next call looks again.

        Raises:
            RuntimeError: `load` has not succeeded yet.
        """
        if not self._is_due():
            await trio.lowlevel.checkpoint()
            return self.current
        async with self._lock:
            if self._is_due():
                await self._renew(TORN_WRITE_PATIENCE if self._has_changed() else 0)
            return self.current

    def _is_due(self) -> bool:
        return self._has_changed() or self._look.is_due(trio.current_time())

    def _has_changed(self) -> bool:
        return self._source.stamp() != self._look.seen

    async def _renew(self, patience: float) -> None:
        """Adopt what is in the destination, or report why not."""
        current = self.current
        try:
            identity = await self._read_usable(patience)
        except IdentityError as error:
            self._look = replace(self._look, again=True)
            self._report(error)
        else:
            self._reported = None
            if not _is_same(identity, current):
                self._adopt(identity)

    def _report(self, error: IdentityError) -> None:
        """Publish a failure, once for each state of the files."""
        failure = (self._look.seen, error.code)
        if self._reported == failure:
            return
        self._reported = failure
        self._publish(
            IdentityReloadFailed(
                generation=self.current.generation,
                code=error.code,
                reason=error.message,
                next_step=error.next_step,
            )
        )

    def _adopt(self, identity: Identity) -> Identity:
        if self._current is not None:
            identity = replace(identity, generation=self._current.generation + 1)
        self._previous, self._current = self._current, identity
        self._service = identity.route.service
        self._publish(
            IdentityLoaded(
                generation=identity.generation,
                service=identity.route.service,
                not_valid_after=identity.not_valid_after,
            )
        )
        return identity

    async def _read_usable(self, patience: float) -> Identity:
        """Read until nothing is torn, for `patience` seconds at most; check service and time."""
        identity = await self._read_whole(trio.current_time() + patience)
        if self._service is not None:
            identity.check_service(self._service)
        identity.check_validity(self._clock())
        return identity

    async def _read_whole(self, deadline: float) -> Identity:
        while True:
            try:
                return await self._read_once()
            except IdentityError as error:
                if trio.current_time() >= deadline or not self._may_be_torn(error):
                    raise
            await trio.sleep(TORN_WRITE_PAUSE)

    async def _read_once(self) -> Identity:
        """One attempt, whose end is noted; a cancelled one leaves no note, as it saw nothing."""
        # The look comes before the read: what is written in between makes the next look differ.
        seen = self._source.stamp()
        try:
            # The read has no effects, so a cancelled task need not wait for a slow file system.
            identity = await trio.to_thread.run_sync(self._source.read, abandon_on_cancel=True)
        except IdentityError:
            self._look = _Look(seen, trio.current_time(), again=True)
            raise
        age = self._clock().timestamp() - seen.newest / _NANOSECONDS
        self._look = _Look(seen, trio.current_time(), again=age < TIMESTAMP_GRANULARITY)
        return identity

    def _may_be_torn(self, error: IdentityError) -> bool:
        """Whether a write under way can be the cause; a missing directory cannot come from one."""
        if error.code is Code.IDENTITY_MISSING:
            return os.path.isdir(self._source.directory)  # noqa: PTH112 (is_dir raises in Python 3.11)
        return error.code in _TORN


@dataclass(frozen=True, slots=True)
class _Look:
    """What the files looked like when they were read last."""

    seen: Stamp
    at: float
    """In trio's time."""
    again: bool
    """Whether to read them once more although they look the same."""

    def is_due(self, now: float) -> bool:
        return self.again and now - self.at >= RECHECK_INTERVAL


def _is_same(one: Identity, other: Identity) -> bool:
    return (
        one.certificate == other.certificate
        and one.host_cas == other.host_cas
        and one.user_cas == other.user_cas
        and one.database_cas == other.database_cas
    )
