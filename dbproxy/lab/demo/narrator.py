"""How the demo tells what happens: numbered steps, each line as soon as it is true.

Everything goes through one rich console, which leaves out colours when the output is not a
terminal. No line is ever rewritten, so a log file reads the same as a terminal.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio
from rich.console import Console
from rich.text import Text

from dbproxy.lab.errors import LabError

__all__ = ["DemoConsole", "Narrator", "NobodyListens", "StepFailed", "first_leaf"]

EXPECTED: Final = (LabError, OSError, trio.TooSlowError)
"""What a failed step raises; anything else is a mistake of the demo itself."""


class NobodyListens(Exception):
    """Whoever read the demo's output has gone, as in `dbproxy demo | head`."""


class DemoConsole(Console):
    """A console that says in its own words that nobody reads any more.

    rich would raise SystemExit, which trio's nurseries would put into a group.
    """

    def on_broken_pipe(self) -> None:
        """Write nothing more, and say why.

        Raises:
            NobodyListens: Always.
        """
        self.quiet = True
        with Path(os.devnull).open("wb") as nowhere:  # for what the interpreter flushes at its end
            os.dup2(nowhere.fileno(), self.file.fileno())
        raise NobodyListens


class StepFailed(Exception):
    """A step did not do what it claims.

    Attributes:
        step: The title of the step.
        reason: What went wrong, in words.
    """

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


class Narrator:
    """Writes the steps.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps = 0
        unicode = console.encoding.lower().startswith("utf")
        self._done, self._failed = ("✓", "✗") if unicode else ("ok", "FAILED")

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step and run it.

        Raises:
            StepFailed: One of the expected errors came out of the block.
        """
        self._steps += 1
        self._write(("", ""))
        self._write((f"{self._steps}. ", "bold cyan"), (title, "bold"))
        try:
            yield
        except EXPECTED as error:
            raise StepFailed(title, _reason(error)) from error
        except BaseExceptionGroup as group:
            expected, rest = group.split(EXPECTED)
            if expected is None or rest is not None:
                raise
            raise StepFailed(title, _reason(first_leaf(expected))) from group

    def title(self, text: str) -> None:
        """The first line."""
        self._write((text, "bold"))

    def command(self, text: str) -> None:
        """A command line that is run now."""
        self._write(("   $ ", "dim"), (text, "cyan"))

    def like(self, command: str) -> None:
        """A command of Teleport's whose work the lab does now."""
        self._write(("   like ", "dim"), (command, "cyan"))

    def quote(self, lines: Iterable[str]) -> None:
        """What another program said."""
        for line in lines:
            self._write(("   | ", "dim"), (line, ""))

    def done(self, text: str) -> None:
        """Something that was just verified."""
        self._write((f"   {self._done} ", "bold green"), (text, ""))

    def note(self, text: str) -> None:
        """Something to know."""
        self._write(("   ", ""), (text, "dim"))

    def failed(self, failure: BaseException) -> None:
        """Why a step did not do what it claims."""
        reason = failure.reason if isinstance(failure, StepFailed) else str(failure)
        self._write((f"   {self._failed} ", "bold red"), (reason, ""))

    def end(self, text: str) -> None:
        """The last line."""
        self._write(("", ""))
        self._write((text, "bold"))

    def paste(self, what: str, command: str) -> None:
        """A line to copy: it is neither wrapped nor decorated."""
        self._write(("", ""))
        self._write((f"{what}:", "bold"))
        self._write((command, ""))

    def _write(self, *parts: tuple[str, str]) -> None:
        self._console.print(Text.assemble(*parts), soft_wrap=True)


def _reason(error: BaseException) -> str:
    return "it took too long" if isinstance(error, trio.TooSlowError) else str(error)


def first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group that is not a group itself."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
