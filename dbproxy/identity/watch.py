"""Noticing renewals while no connection asks."""

from typing import NoReturn

import trio

from dbproxy.identity.store import IdentityStore

__all__ = ["watch"]


async def watch(store: IdentityStore, *, interval: float = 5.0) -> NoReturn:
    """Keep `store` fresh until cancelled, by looking every `interval` seconds.

    Connections look for themselves before they dial; this is for what is told between connections:
    the events, and the checks of the clients' certificates.
    """
    while True:
        await trio.sleep(interval)
        await store.fresh()
