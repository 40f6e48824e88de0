"""Tests in which hours pass at once, on trio's clock for tests.

That clock jumps whenever every task waits, also when one of them waits for a thread, which goes by
real time. So what would run in a thread runs in the task itself here.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio


def run_threads_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `trio.to_thread.run_sync` call the function in the task that calls it."""

    async def run_sync(function: Callable[..., object], *args: object, **_options: Any) -> object:
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


class Wall:
    """A system's clock that goes with trio's, until somebody sets it.

    Args:
        begin: What it shows now; aware.
    """

    def __init__(self, begin: datetime) -> None:
        self._offset = begin.timestamp() - trio.current_time()

    def __call__(self) -> datetime:
        return datetime.fromtimestamp(self._offset + trio.current_time(), UTC)

    def jump(self, span: timedelta) -> None:
        """Set it forward, or back."""
        self._offset += span.total_seconds()
