"""A page, put together from the table of errors and the longer text: headings and paragraphs.

What it looks like is left to whoever shows it: a terminal, or the documentation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dbproxy.errors import PROBLEMS, Code, Fault
from dbproxy.explain.lookup import page_of
from dbproxy.explain.page import Look, Page, Sees
from dbproxy.protocols.teleport_words import hint_for
from dbproxy.protocols.wire.postgres import sqlstate_of

__all__ = ["Section", "put_right_by", "sections"]

_WHO: Final = {
    Fault.CLIENT: "The program that connects to dbproxy.",
    Fault.OPERATOR: "Whoever runs dbproxy and tbot on this host.",
    Fault.UPSTREAM: "The Teleport Proxy, or the network on the way to it.",
    Fault.DBPROXY: "dbproxy itself.",
}


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what stands under it.

    Attributes:
        title: The heading; empty for the beginning of the page.
        paragraphs: Text to be wrapped.
        looks: Commands with what they show.
        related: Other codes.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    looks: tuple[Look, ...] = ()
    related: tuple[Code, ...] = ()


def put_right_by(code: Code) -> str:
    """Who can end the problem, as a sentence."""
    return _WHO[PROBLEMS[code].fault]


def sections(code: Code) -> Iterator[Section]:
    """The page of `code`, from top to bottom."""
    problem = PROBLEMS[code]
    page = page_of(code)
    story = tuple(" ".join(text.split()) for text in page.story.split("\n\n"))
    yield Section("", (problem.meaning, *story))
    yield Section("Put right by", (put_right_by(code),))
    yield Section("Next step", (problem.next_step,))
    yield Section("What the client sees", tuple(_what_the_client_sees(code, page)))
    if page.looks:
        yield Section("How to check", looks=page.looks)
    if problem.fault in {Fault.OPERATOR, Fault.DBPROXY}:
        text = f"{problem.exit_status}, when dbproxy ends because of it."
        yield Section("Exit status", (text,))
    if page.related:
        yield Section("Related", related=page.related)


def _what_the_client_sees(code: Code, page: Page) -> Iterator[str]:
    yield page.sees.value
    if page.sees.is_message:
        yield f"`FATAL: dbproxy: … [{code}]` (in other protocols than PostgreSQL without `FATAL`)"
        yield f"`HINT: {PROBLEMS[code].client_hint}`"
    if page.sees is Sees.TELEPORTS_MESSAGE:
        yield "`FATAL: …` (PostgreSQL)"
        yield f"`HINT: {hint_for(code)}` (in MySQL at the end of the message)"
    if page.sees.is_message or page.sees is Sees.TELEPORTS_MESSAGE:
        yield f"SQLSTATE (PostgreSQL): {sqlstate_of(code)}"
