"""Results of the upgrade test, kept for each address.

The test costs a handshake, and its result changes only when somebody puts a balancer in front of
the Teleport Proxy or takes it away. So an answer is kept for an hour, and a failed dial asks for a
new test sooner. Where the server did not answer the question, no upgrade is only a guess, which
must not outlive an outage: it is kept for a few seconds, so that many connections at once do not
test one after the other. It contradicts no earlier answer: a balancer that is being restarted will
be a balancer afterwards. And it ends at once where the server has answered a dial that followed it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import trio

from dbproxy.upstream.address import ProxyAddress
from dbproxy.upstream.upgrade_need import UpgradeNeed

__all__ = ["UpgradeDecisions", "UpgradeTest"]

UpgradeTest: TypeAlias = Callable[[ProxyAddress], Awaitable[UpgradeNeed]]

_LIFETIME: Final = 3600.0
"""Seconds that an answer is kept."""
_GUESS_LIFETIME: Final = 5.0
"""Seconds that a guess is kept, and that an answer is kept in spite of failures: when a Teleport
Proxy goes down, hundreds of connections fail at once, and one test does for all of them."""


@dataclass(slots=True)
class _Entry:
    lock: trio.Lock = field(default_factory=trio.Lock)
    latest: UpgradeNeed | None = None  # None where there was no test, or it is forgotten
    answer: UpgradeNeed | None = None  # the latest that was none of our guesses
    tested_at: float = 0.0

    @property
    def age(self) -> float:
        return trio.current_time() - self.tested_at

    @property
    def current(self) -> UpgradeNeed | None:
        if self.latest is None:
            return None
        lifetime = _LIFETIME if self.latest.certain else _GUESS_LIFETIME
        return (self.answer or self.latest) if self.age < lifetime else None

    def note(self, tested: UpgradeNeed) -> UpgradeNeed:
        """Take note of a test's result; returns what follows from it."""
        self.tested_at = trio.current_time()
        self.latest = tested
        if tested.certain:
            self.answer = tested
        return self.answer or tested

    def forget(self, *, answered: bool) -> None:
        guessed = self.latest is not None and not self.latest.certain
        if self.age >= _GUESS_LIFETIME or (answered and guessed):
            self.latest = None


class UpgradeDecisions:
    """Knows for each address whether connections to it need an upgrade.

    Args:
        test: Makes the test.
    """

    def __init__(self, test: UpgradeTest) -> None:
        self._test = test
        self._entries: dict[ProxyAddress, _Entry] = {}

    async def need(self, address: ProxyAddress) -> UpgradeNeed:
        """The result that is known, or that of a test now; callers at the same time share it.

        Where the caller that makes the test is cancelled or fails, the next one makes it.
        """
        entry = self._entries.get(address)
        if entry is None:
            entry = self._entries[address] = _Entry()
        elif not entry.lock.locked() and (known := entry.current) is not None:
            return known
        async with entry.lock:
            if (known := entry.current) is not None:
                return known
            return entry.note(await self._test(address))

    def forget(self, address: ProxyAddress, *, answered: bool = False) -> None:
        """Test again before the next connection: one has just failed.

        A result of the last few seconds stays, since it is as new as the failure.

        Args:
            address: Where the connection led.
            answered: Whether the server has refused it, so that it would answer a test as well:
                then a guess does not stay.
        """
        if (entry := self._entries.get(address)) is not None:
            entry.forget(answered=answered)
