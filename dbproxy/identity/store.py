"""The identity in use, and how a newer one takes its place.

The problem: tbot renews every 20 minutes or so by rewriting the files one after another. Whoever
reads at a bad moment sees new and old mixed; whoever reads too rarely dials with a certificate that
has expired.

The choice: the files are read when a rewrite of them looks complete (`dbproxy.identity.rewrite`),
and again when what was read does not belong together or has changed meanwhile. What is good then
replaces the current generation in one assignment; what is not leaves it alone. Each connection asks
`fresh()` before it dials, which costs a few `stat` calls as long as nothing was written, and never
waits for a writer as long as the current generation is valid.
"""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import trio

from dbproxy.errors import Code, IdentityError
from dbproxy.events import Event, IdentityLoaded, IdentityReloadFailed
from dbproxy.identity.identity import Identity
from dbproxy.identity.rewrite import PAUSE, Rewrites, Verdict
from dbproxy.identity.source import IdentitySource
from dbproxy.identity.stamp import Stamp

__all__ = ["IdentityStore", "ignore", "utc_now"]

MOST_REMEMBERED: Final = 256
"""Certificates that are remembered after their time: days of renewals, in a few kilobytes."""

_TORN: Final = frozenset({Code.KEY_MISMATCH, Code.IDENTITY_MIXED, Code.IDENTITY_MALFORMED})


def ignore(_event: Event) -> None:
    """A subscriber that does nothing."""


def utc_now() -> datetime:
    """The time of the system's clock."""
    return datetime.now(UTC)


class IdentityStore:
    """Holds the current identity, and remembers which certificates were current before.

    Safe to use from any number of tasks of one trio run.

    Args:
        source: Where the identity comes from; it is read in a worker thread.
        service: The database service that the certificate must be for; `None` takes the one that
            the first certificate names.
        publish: Gets `IdentityLoaded` and `IdentityReloadFailed`.
        clock: Tells the time, aware.

    Attributes:
        source: Where the identity comes from.
    """

    def __init__(
        self,
        source: IdentitySource,
        *,
        service: str | None = None,
        publish: Callable[[Event], None] = ignore,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.source = source
        self._service = service
        self._publish = publish
        self._clock = clock
        self._lock = trio.Lock()
        self._rewrites = Rewrites(source.ends_with_a_list)
        self._seen = Stamp(())
        self._reads = 0
        self._current: Identity | None = None
        self._adoption = trio.Event()
        self._known: deque[bytes] = deque(maxlen=MOST_REMEMBERED)
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

    def has_held(self, certificate_der: bytes) -> bool:
        """Whether this is the current certificate, or was it before: of any generation.

        Clients may go on with a certificate that they loaded once, for as long as it is valid; that
        is for the caller to check. Only the latest 256 are remembered.

        Args:
            certificate_der: The certificate in DER.
        """
        return _fingerprint(certificate_der) in self._known

    async def load(self) -> Identity:
        """Read the identity for the first time; a torn write is waited for, as in `settled`.

        May be called again when it has failed. Cancelled, it has loaded nothing.

        Raises:
            IdentityError: The identity cannot be read, is for another service, or is not valid now.
        """
        while True:
            if self._look() is not Verdict.UNDER_WAY:
                identity = await self._read()
                if identity is not None:
                    return self._adopt(identity)
            await trio.sleep(PAUSE)

    async def reload(self) -> Identity:
        """Read the identity again, changed or not, and adopt what is new in it.

        A rewrite under way is waited for, as in `settled`. On failure the current generation
        stays, and `IdentityReloadFailed` is published. Calls at the same time share one read.
        Cancelled, it keeps the current generation.

        Returns:
            The current identity afterwards, new or not.

        Raises:
            RuntimeError: `load` has not succeeded yet.
        """
        self._check_loaded()
        self._reported = None
        if self._look() is Verdict.UNDER_WAY or not await self._renew():
            await self._renew_patiently()
        return self.current

    async def settled(self) -> Identity:
        """The current identity, once a rewrite under way has ended.

        That is waited for until a second has gone by without a change, and for five seconds in all.
        Otherwise as `fresh`.
        """
        self._check_loaded()
        await self._renew_patiently()
        return self.current

    async def fresh(self) -> Identity:
        """The current identity, after a look whether tbot has written a newer one.

        Costs a few `stat` calls, and waits for nothing, when nothing has changed and while tbot is
        writing; only when the current identity is not valid is a rewrite waited for, as in
        `settled`. What failed to load, or was read so soon after it was written that a further
        write could go unnoticed, is tried again at most once a second. Failures are published, once
        for each state of the files. Cancelled, it keeps the current generation, and the next call
        looks again.

        Raises:
            RuntimeError: `load` has not succeeded yet.
        """
        valid = self._is_valid(self.current)
        verdict = self._look()
        if verdict is Verdict.UNCHANGED or (valid and verdict is Verdict.UNDER_WAY):
            return self.current
        if valid:
            await self._renew()
        else:
            await self._renew_patiently()
        return self.current

    async def newer_than(self, generation: int) -> Identity:
        """The current identity, once it is of a later generation than `generation`.

        Looks at once, as in `settled`; then whoever adopts a newer one ends the wait. Waits for
        ever if nobody does, so the caller sets a limit.

        Raises:
            RuntimeError: `load` has not succeeded yet.
        """
        if self.current.generation <= generation:
            await self.settled()
        while self.current.generation <= generation:
            await self._adoption.wait()
        return self.current

    def _check_loaded(self) -> None:
        _ = self.current

    def _is_valid(self, identity: Identity) -> bool:
        return identity.not_valid_before <= self._clock() <= identity.not_valid_after

    def _look(self) -> Verdict:
        stamp = self.source.stamp()
        return self._rewrites.look(stamp, trio.current_time(), self._clock().timestamp())

    async def _renew_patiently(self) -> None:
        """Follow a change to its end: what was written is adopted, or reported as unusable."""
        while (verdict := self._look()) is not Verdict.UNCHANGED:
            if verdict is Verdict.READ and await self._renew():
                return
            await trio.sleep(PAUSE)

    async def _renew(self) -> bool:
        """Read once, and adopt what is new; returns False when it is to be tried again soon."""
        reads = self._reads
        async with self._lock:
            if self._reads != reads and (verdict := self._look()) is not Verdict.READ:
                return verdict is Verdict.UNCHANGED  # somebody else has read meanwhile
            try:
                identity = await self._read()
            except IdentityError as error:
                self._report(error)
                return True
            if identity is None:
                return False
            self._reported = None
            if not self._is_current(identity):
                self._adopt(identity)
            return True

    async def _read(self) -> Identity | None:
        """One attempt; `None` when it may have met a write, and is to be tried again soon.

        Cancelled, it leaves no trace, as it saw nothing.
        """
        self._seen = self.source.stamp()
        try:
            # The read has no effects, so a cancelled task need not wait for a slow file system.
            identity = await trio.to_thread.run_sync(self.source.read, abandon_on_cancel=True)
            self._check(identity)
        except IdentityError as error:
            self._reads += 1
            if self._is_final(error):
                raise
            return None
        self._reads += 1
        self._rewrites.read_good(self._seen, trio.current_time(), self._clock().timestamp())
        return identity

    def _check(self, identity: Identity) -> None:
        """Whether what was read was not written meanwhile, and can be used."""
        if self.source.stamp() != self._seen:
            raise IdentityError(
                Code.IDENTITY_MIXED, f"files in {self.source.directory} change while they are read"
            )
        if self._is_current(identity):
            return
        if self._service is not None:
            identity.check_service(self._service)
        identity.check_validity(self._clock())

    def _is_final(self, error: IdentityError) -> bool:
        """Take note of a failure; whether it is one for good, until the files look otherwise."""
        self._look()  # what was written meanwhile has its own time to become readable
        now = trio.current_time()
        final = not self._may_be_torn(error) or self._rewrites.is_patience_over(now)
        note = self._rewrites.read_failed if final else self._rewrites.read_torn
        note(self._seen, now)
        return final

    def _may_be_torn(self, error: IdentityError) -> bool:
        """Whether a write under way can be the cause; a missing directory cannot come from one."""
        if error.code is Code.IDENTITY_MISSING:
            return os.path.isdir(self.source.directory)  # noqa: PTH112 (is_dir raises in 3.11)
        return error.code in _TORN

    def _is_current(self, identity: Identity) -> bool:
        current = self._current
        return current is not None and (
            identity.certificate == current.certificate
            and identity.host_cas == current.host_cas
            and identity.user_cas == current.user_cas
            and identity.database_cas == current.database_cas
        )

    def _adopt(self, identity: Identity) -> Identity:
        if self._current is not None:
            identity = replace(identity, generation=self._current.generation + 1)
        self._current = identity
        self._adoption.set()
        self._adoption = trio.Event()
        self._service = identity.route.service
        self._remember(identity)
        self._publish(
            IdentityLoaded(
                generation=identity.generation,
                service=identity.route.service,
                not_valid_after=identity.not_valid_after,
            )
        )
        return identity

    def _remember(self, identity: Identity) -> None:
        fingerprint = _fingerprint(identity.certificate_der)
        if fingerprint not in self._known:
            self._known.append(fingerprint)

    def _report(self, error: IdentityError) -> None:
        """Publish a failure, once for each state of the files."""
        failure = (self._seen, error.code)
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


def _fingerprint(certificate_der: bytes) -> bytes:
    return sha256(certificate_der).digest()
