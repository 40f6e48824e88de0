"""Waiting at start for tbot to write a first usable identity."""

from collections.abc import Callable
from math import inf
from typing import Final

import trio

from dbproxy.errors import Code, IdentityError
from dbproxy.events import Event, IdentityAwaited
from dbproxy.identity.identity import Identity
from dbproxy.identity.store import IdentityStore, ignore

__all__ = ["load_within"]

PAUSE: Final = 0.25
"""Seconds between attempts."""
TELL_INTERVAL: Final = 10.0
"""Seconds after which the same reason is told again."""


async def load_within(
    store: IdentityStore, patience: float, *, publish: Callable[[Event], None] = ignore
) -> Identity:
    """Load the identity, waiting until there is a usable one.

    Whatever is wrong may become right: the directory appears, permissions are given, an expired
    certificate of an earlier run is replaced. Cancelled, it has loaded nothing.

    Args:
        store: Not loaded yet.
        patience: Seconds to wait at most; 0 makes one attempt.
        publish: Gets an `IdentityAwaited` when the wait begins, whenever its code changes, and
            every ten seconds.

    Raises:
        IdentityError: The last attempt's, when the time is over.
    """
    deadline = trio.current_time() + patience
    told: tuple[Code | None, float] = (None, -inf)
    while True:
        try:
            return await store.load()
        except IdentityError as error:
            now = trio.current_time()
            if now >= deadline:
                raise
            if error.code is not told[0] or now - told[1] >= TELL_INTERVAL:
                told = (error.code, now)
                publish(
                    IdentityAwaited(code=error.code, reason=error.message, remaining=deadline - now)
                )
        await trio.sleep(min(PAUSE, deadline - now))
