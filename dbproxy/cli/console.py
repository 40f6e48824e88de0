"""Longer answers on standard output: coloured and wrapped for people, plain for everything else."""

import io
import sys
import textwrap
from typing import Final

from rich.console import Console
from rich.text import Text

from dbproxy.cli.printable import printable

__all__ = ["Answer"]

WIDTH: Final = 100
"""Columns of text: longer lines are hard to read, on however wide a terminal."""

_CODE: Final = r"`[^`]+`"


class Answer:
    """Writes lines to standard output.

    Colours and the terminal's width count only where standard output is a terminal. Whatever is
    not printable is escaped. That nothing can be written passes through, to where errors are told.
    """

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A file's name need not be text, and not every terminal knows every character.
            sys.stdout.reconfigure(errors="backslashreplace")
        self._console = Console(markup=False, emoji=False, highlight=False)
        self._width = min(self._console.width, WIDTH) if self._console.is_terminal else WIDTH

    def line(self, *parts: str | tuple[str, str]) -> None:
        """Write one line as it is, however long.

        Args:
            parts: Text, or text with a style of rich's.
        """
        shown = [part if isinstance(part, tuple) else (part, "") for part in parts]
        text = Text.assemble(*((printable(text), style) for text, style in shown))
        self._console.print(text, soft_wrap=True)

    def prose(self, text: str, *, indent: str = "", first: str | None = None) -> None:
        """Write text wrapped, with what stands in backquotes in another colour.

        Args:
            text: One paragraph.
            indent: Begins each line.
            first: Begins the first line instead.
        """
        lines = textwrap.wrap(
            printable(text),
            max(self._width, len(indent) + 20),
            initial_indent=indent if first is None else first,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        wrapped = Text("\n".join(lines))
        wrapped.highlight_regex(_CODE, "cyan")
        self._console.print(wrapped, soft_wrap=True)
