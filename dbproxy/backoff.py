"""How long to wait before trying again."""

from collections.abc import Callable
from random import SystemRandom
from typing import Final

__all__ = ["Backoff"]

_draw: Final = SystemRandom().random


class Backoff:
    """Pauses that double from `first` to `longest` seconds, each cut by up to a half at random.

    The cut keeps those that failed for one reason from all trying again at one moment.

    Args:
        first: The first pause, before its cut.
        longest: What no pause exceeds.
        draw: Draws from 0 to 1.
    """

    def __init__(
        self,
        first: float,
        longest: float,
        *,
        draw: Callable[[], float] = _draw,
    ) -> None:
        self._first = first
        self._pause = first
        self._longest = longest
        self._draw = draw

    def next(self) -> float:
        """The seconds to wait now."""
        pause = min(self._pause, self._longest)
        self._pause = min(pause * 2, self._longest)
        return pause * (1 + self._draw()) / 2

    def worked_for(self, seconds: float) -> None:
        """Take note of how long it went well; longer than any pause, and they are short again."""
        if seconds > self._longest:
            self._pause = self._first
