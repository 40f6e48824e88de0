"""The ALPN values of a Teleport Proxy and who serves them.

Source: lib/srv/alpnproxy/common/protocols.go and lib/srv/alpnproxy/proxy.go of Teleport.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

PING_SUFFIX: Final = "-ping"
HTTP: Final = "http/1.1"
POSTGRES: Final = "teleport-postgres"
MYSQL: Final = "teleport-mysql"
REVERSE_TUNNEL: Final = "teleport-reversetunnel"
"""What clients offer alone to learn whether a balancer stands in front of the Proxy."""

DATABASE_TLS: Final = tuple(
    f"teleport-{name}"
    for name in (
        *("mongodb", "oracle", "redis", "sqlserver", "snowflake", "cassandra"),
        *("elasticsearch", "opensearch", "dynamodb", "clickhouse", "spanner"),
    )
)
"""Protocols whose client speaks TLS from its first byte."""

DATABASES: Final = (POSTGRES, MYSQL, *DATABASE_TLS)
OTHERS: Final = ("teleport-tcp", REVERSE_TUNNEL, "teleport-proxy-ssh", "h2", HTTP)
KNOWN: Final = (
    *(value + PING_SUFFIX for value in (*DATABASES, "teleport-tcp")),
    *DATABASES,
    *OTHERS,
)
"""Everything that the stand-in supports, in the server's order of preference: pings first."""


class Handler(Enum):
    """Who serves a connection that carries no route in its outer client certificate."""

    POSTGRES = "postgres"
    MYSQL = "mysql"
    DATABASE_TLS = "database-tls"
    HTTP = "http"
    UNSUPPORTED = "unsupported"
    """A real Proxy serves it, the stand-in does not: handshake, then close."""


def supported(
    only: Sequence[str] | None, *, ping: bool, prefer_plain: bool = False
) -> tuple[str, ...]:
    """Returns the server's list, in its order of preference.

    Args:
        only: restrict the list to these values, in their order; ``None`` means all.
        ping: whether the ``-ping`` variants belong to it (Teleport 10 and later).
        prefer_plain: whether they come last instead of first.
    """
    values = KNOWN if only is None else tuple(only)
    known = (value for value in values if ping or not value.endswith(PING_SUFFIX))
    return tuple(sorted(known, key=_is_ping) if prefer_plain else known)


def _is_ping(value: str) -> bool:
    return value.endswith(PING_SUFFIX)


def choose_handler(offered: Sequence[str], server: Sequence[str]) -> Handler | None:
    """Walks the client's list in its order; the first value somebody serves decides.

    An empty list means HTTP. ``None``: nobody serves any of them.
    """
    for value in offered or (HTTP,):
        if value in server or _is_mysql_version(value, server):
            return _handler_of(value.removesuffix(PING_SUFFIX))
    return None


def negotiate(offered: Sequence[str], server: Sequence[str]) -> str | None:
    """Returns the value that a Go TLS server negotiates: the server's order decides.

    ``None`` with a non-empty ``offered`` means the alert ``no_application_protocol``.
    """
    return next((value for value in server if value in offered), None)


def _is_mysql_version(value: str, server: Sequence[str]) -> bool:
    """A server version in the ALPN list, which MySQL clients' proxies append to it."""
    return value.startswith(MYSQL + "-") and MYSQL in server


def _handler_of(value: str) -> Handler:
    if value == POSTGRES:
        return Handler.POSTGRES
    if value == MYSQL or value.startswith(f"{MYSQL}-"):
        return Handler.MYSQL
    if value in DATABASE_TLS:
        return Handler.DATABASE_TLS
    return Handler.HTTP if value == HTTP else Handler.UNSUPPORTED
