"""URIs that say where a database is and how it is to be talked to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import quote

from dbproxy.protocols.connection_facts import ConnectionFacts, place_of

__all__ = ["URI", "Unavailable", "database_uri", "encoded", "with_query"]


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A driver that cannot be told by a URI how to connect here.

    Attributes:
        reason: Why, and what to do instead.
    """

    reason: str


URI: TypeAlias = str | Unavailable

NO_SOCKETS: Final = "this driver has no Unix sockets: listen on a TCP port"


def encoded(text: str) -> str:
    """Text for any part of a URI: whatever has a meaning there is percent-encoded (RFC 3986).

    A blank becomes `%20`: not every reader takes `+` for one. The name of a file need not be text.
    """
    return quote(text, safe="", errors="surrogateescape")


def with_query(base: str, parameters: Mapping[str, str]) -> str:
    """The URI with parameters behind it."""
    query = "&".join(f"{name}={encoded(value)}" for name, value in parameters.items())
    return f"{base}?{query}" if query else base


def database_uri(
    scheme: str,
    facts: ConnectionFacts,
    parameters: Mapping[str, str] | None = None,
    *,
    place: str | None = None,
    user: str | None = None,
    path: str | None = None,
) -> str:
    """`SCHEME://USER@HOST:PORT/DATABASE?PARAMETERS`.

    Args:
        scheme: As the driver knows it.
        facts: User, place and database, unless these are given.
        parameters: By name; they are encoded here.
        place: What stands in place of host and port, encoded already.
        user: Instead of the one in `facts`; empty for none.
        path: Instead of the database, encoded already and without its slash.
    """
    user = facts.user if user is None else user
    before = f"{encoded(user)}@" if user else ""
    behind = encoded(facts.database or "") if path is None else path
    where = place_of(facts) if place is None else place
    return with_query(f"{scheme}://{before}{where}/{behind}", parameters or {})
