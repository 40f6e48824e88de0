"""Whether the terminal that we were started from is still there.

A foreground program gets SIGHUP when its terminal is closed, and is expected to end; a service gets
SIGHUP as the word to read its configuration again. The two are told apart by the terminal: its
controlling terminal cannot be opened any more once it is gone (tty(4): ENXIO).
"""

import os
import signal
from typing import Final, Self

__all__ = ["ControllingTerminal"]

_TERMINAL: Final = "/dev/tty"
_HOW: Final = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
_FROM_KEYS: Final = frozenset({signal.SIGINT, signal.SIGQUIT})


class ControllingTerminal:
    """The terminal at the moment of starting; with `nohup` there is none that matters."""

    def __init__(self, *, matters: bool) -> None:
        self._matters = matters

    @classmethod
    def at_start(cls) -> Self:
        """Look now; to be called before SIGHUP gets a handler."""
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup(1), or a wish like it
        return cls(matters=not ignored and _can_be_opened())

    def has_told_everybody(self, number: int) -> bool:
        """Whether a signal that has just come went to all programs in its foreground.

        Its keys send SIGINT and SIGQUIT to them, its end SIGHUP.
        """
        if number == signal.SIGHUP:
            return self.is_gone()
        return number in _FROM_KEYS and _is_in_foreground()

    def is_gone(self) -> bool:
        """Whether there was one, and now there is none."""
        return self._matters and not _can_be_opened()


def _is_in_foreground() -> bool:
    """Whether our process group is the one that the terminal's keys are for."""
    try:
        terminal = os.open(_TERMINAL, _HOW)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _can_be_opened() -> bool:
    try:
        os.close(os.open(_TERMINAL, _HOW))
    except OSError:
        return False
    return True
