"""The usual client of a protocol: a line to paste into a shell, and a program to start.

Both come from one list of words, so that they cannot differ. Some clients take something only from
a file that nobody has written: certificate and key in one, or a configuration. The shell makes such
a file of a pipe for as long as it takes to read it, `<(…)`, and so does whoever starts the program;
a private key is never written anywhere.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

__all__ = ["ClientCommand", "Piped", "Word", "plain_words"]


@dataclass(frozen=True, slots=True)
class Piped:
    """A file that is only a pipe. Its word on the command line is the pipe's name.

    Attributes:
        files: What it consists of, one after the other.
        text: What it consists of instead, when there are no files.
    """

    files: tuple[Path, ...] = ()
    text: str = ""

    def __str__(self) -> str:
        """As bash, zsh and ksh write it (process substitution)."""
        if self.files:
            return f"<({shlex.join(['cat', *map(str, self.files)])})"
        return f"<(echo {shlex.quote(self.text)})"


Word: TypeAlias = str | Piped


@dataclass(frozen=True, slots=True)
class ClientCommand:
    """The command line of a client.

    Attributes:
        words: The program, and its arguments.
        variables: Environment variables that it needs.
        also_called: Other names of the program, where one line serves several.
        instead: Where this is not for talking with the database: why, and what to use instead.
    """

    words: tuple[Word, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    also_called: tuple[str, ...] = ()
    instead: str | None = None

    @property
    def line(self) -> str:
        """Ready to paste into a shell."""
        shown = [shlex.quote(word) if isinstance(word, str) else str(word) for word in self.words]
        if not self.variables:
            return " ".join(shown)
        named = [f"{name}={shlex.quote(value)}" for name, value in self.variables.items()]
        return " ".join(["env", *named, *shown])

    @property
    def programs(self) -> tuple[str, ...]:
        """The names of the program, the usual one first."""
        return (str(self.words[0]), *self.also_called)


def plain_words(words: Sequence[Word], name_of: Callable[[Piped], str]) -> list[str]:
    """The words as the system takes them.

    Args:
        words: Of a command line.
        name_of: Makes a pipe, and returns its name.
    """
    return [word if isinstance(word, str) else name_of(word) for word in words]
