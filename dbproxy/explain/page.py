"""What a page about an error code consists of, beyond its row in the table of errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, unique

from dbproxy.errors import Code

__all__ = ["Area", "Look", "Page", "Sees"]


@unique
class Sees(Enum):
    """What a database client notices of a problem."""

    NO_PORT = "Nothing: dbproxy ends before it opens its port, so connections are refused."
    LAST_GOOD = (
        "Nothing, while dbproxy runs: connections go on with the last good identity. At start"
        " dbproxy ends before it opens its port."
    )
    NOTHING = "Nothing: connections go on as usual."
    NO_CLIENT = "There is no client: it is what could not be started."
    MESSAGE = "The error below, in the database's own protocol."
    MESSAGE_BEFORE_TLS = (
        "The error below, in the database's own protocol. In passthrough mode it comes before TLS"
        " has begun; psql and everything else built on a recent libpq then hides its text and"
        " prints `server sent an error response during SSL exchange`."
    )
    TELEPORTS_MESSAGE = (
        "Teleport's own message. With `--terminate` and `--tunnel`, clients of PostgreSQL and MySQL"
        " get what it lacks as well, unless `--no-rewrite` is given."
    )
    ALERT = "No text of ours: it says itself that TLS failed, or that it is not offered."
    CLOSED = "A connection that is closed without a word."

    @property
    def is_message(self) -> bool:
        """Whether the client gets message, hint and SQLSTATE."""
        return self in {Sees.MESSAGE, Sees.MESSAGE_BEFORE_TLS}


@dataclass(frozen=True, slots=True)
class Look:
    """One way to find out more.

    Attributes:
        command: A command line to type.
        shows: What to look for in its output.
    """

    command: str
    shows: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The longer text about one code.

    Attributes:
        story: How it comes about, with what to tell the causes apart by; paragraphs are separated
            by an empty line, `backquotes` mark what is typed or printed.
        sees: What a client notices.
        looks: How to find out more, the most telling first.
        related: Codes that are confused with this one, or come with it.
    """

    story: str
    sees: Sees
    looks: tuple[Look, ...] = ()
    related: tuple[Code, ...] = ()


@dataclass(frozen=True, slots=True)
class Area:
    """Codes that belong together.

    Attributes:
        title: The heading.
        pages: In the order of reading.
    """

    title: str
    pages: Mapping[Code, Page]
