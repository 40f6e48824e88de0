"""What a signal to dbproxy means for a command that runs beside it. No I/O, no clock.

The problem: whoever starts `dbproxy run … -- COMMAND` sends signals to dbproxy and means the
command. But those from a terminal's keys go to every process in the foreground, so the command has
them already; a second delivery can do harm: many programs end at once at a second Ctrl-C. And the
port must stay open while the command winds up: a program that is told to stop may want to commit.

The choice:

| signal     | starting | running                                    | draining    |
|------------|----------|--------------------------------------------|-------------|
| INT        | give up  | pass on unless heard; the second one kills | end at once |
| TERM       | give up  | pass on                                    | end at once |
| HUP, QUIT  | give up  | pass on unless heard                       | end at once |
| USR1, USR2 | nothing  | pass on                                    | nothing     |

"Heard" is a signal that the command has from the terminal. *Starting* lasts until the command is
started, *draining* begins when it has ended. While the system starts it, nobody knows whether it is
there to hear anything: signals are kept for a moment, and passed on then. With a client that people
talk with, no Ctrl-C kills: such programs cancel a query with it, or a line, and go on.

Tested in `tests/unit/run/test_supervision.py`.
"""

import signal
from collections.abc import Sequence
from enum import Enum, auto, unique
from typing import Final

__all__ = ["FORWARDED", "Do", "Supervision", "shell_status"]

FORWARDED: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Signals that are taken for the command's."""
_FROM_TERMINALS: Final = frozenset({signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
_FOR_THE_COMMAND_ONLY: Final = frozenset({signal.SIGUSR1, signal.SIGUSR2})

_BY_SIGNAL: Final = 128
"""What shells add to the number of a signal that has ended a program."""


@unique
class Do(Enum):
    """What to do about a signal."""

    NOTHING = auto()
    PASS_ON = auto()
    """Send the signal to the command."""
    KILL = auto()
    """End the command and the connections at once."""
    GIVE_UP = auto()
    """End without having started the command."""
    END_NOW = auto()
    """End the connections that are left at once."""


@unique
class _Phase(Enum):
    STARTING = auto()
    LAUNCHING = auto()
    RUNNING = auto()
    DRAINING = auto()


class Supervision:
    """Decides about signals.

    Args:
        interactive: Whether the command is a client that people talk with.
    """

    def __init__(self, *, interactive: bool = False) -> None:
        self._interactive = interactive
        self._phase = _Phase.STARTING
        self._interrupted = False
        self._kept: list[int] = []

    def launching(self) -> None:
        """The command is about to be started."""
        self._phase = _Phase.LAUNCHING

    def started(self) -> Sequence[int]:
        """The command runs; returns the signals that it has yet to have, in their order."""
        self._phase = _Phase.RUNNING
        kept, self._kept = self._kept, []
        return kept

    def ended(self) -> None:
        """The command has ended."""
        self._phase = _Phase.DRAINING

    def signal(self, number: int, *, heard: bool) -> Do:
        """What to do about a signal to dbproxy.

        Args:
            number: One of `FORWARDED`.
            heard: Whether the command has had it too, if a terminal can send it at all.
        """
        if self._phase is _Phase.LAUNCHING:
            self._kept.append(number)
            return Do.NOTHING
        if self._phase is _Phase.RUNNING:
            return self._while_running(number, heard=heard and number in _FROM_TERMINALS)
        if number in _FOR_THE_COMMAND_ONLY:
            return Do.NOTHING
        return Do.GIVE_UP if self._phase is _Phase.STARTING else Do.END_NOW

    def _while_running(self, number: int, *, heard: bool) -> Do:
        if number == signal.SIGINT and not self._interactive:
            if self._interrupted:
                return Do.KILL
            self._interrupted = True
        return Do.NOTHING if heard else Do.PASS_ON


def shell_status(returncode: int) -> int:
    """The exit status that a shell reports.

    Args:
        returncode: As `subprocess` has it: negative for a signal.
    """
    return returncode if returncode >= 0 else _BY_SIGNAL - returncode
