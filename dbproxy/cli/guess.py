"""What somebody may have meant who mistyped a word."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["guess"]


def guess(word: str, known: Iterable[str]) -> str:
    """The likeliest of the known words, as the end of a sentence; empty when none is like it.

    Dashes in front do not count: alone they would make all options alike.
    """
    by_bare = {name.lstrip("-"): name for name in known}
    similar = get_close_matches(word.lstrip("-"), by_bare, n=1)
    return f"; did you mean {by_bare[similar[0]]}?" if similar else ""
