"""Tests in which hours pass at once, on trio's clock for tests.

That clock jumps whenever every task waits, also when one of them waits for a thread, which goes by
real time. So what would run in a thread runs in the task itself here.
"""

from collections.abc import Callable
from typing import Any

import pytest
import trio


def run_threads_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `trio.to_thread.run_sync` call the function in the task that calls it."""

    async def run_sync(function: Callable[..., object], *args: object, **_options: Any) -> object:
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
