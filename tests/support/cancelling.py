"""Cancelling what opens something, at whatever step it is."""

from collections.abc import Awaitable, Callable

import trio


async def cancel_after(
    checkpoints: int, open_one: Callable[[], Awaitable[trio.abc.AsyncResource]]
) -> None:
    """Cancel after so many checkpoints; what was opened by then is closed."""
    opened: list[trio.abc.AsyncResource] = []

    async def keep() -> None:
        opened.append(await open_one())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep)
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    for resource in opened:
        await resource.aclose()
