from __future__ import annotations

import pytest

from dbproxy.lab.alpn import KNOWN, Handler, choose_handler, negotiate, supported

SERVER = supported(None, ping=True)


def test_all_ping_values_precede_all_plain_ones() -> None:
    pings = [value.endswith("-ping") for value in SERVER]
    assert pings == sorted(pings, reverse=True)
    assert pings.count(True) == 14


def test_without_ping_only_plain_values_remain() -> None:
    assert not any(value.endswith("-ping") for value in supported(None, ping=False))


def test_a_restricted_list_keeps_its_order() -> None:
    only = ("teleport-redis", "teleport-postgres-ping")
    assert supported(only, ping=True) == only
    assert supported(only, ping=False) == ("teleport-redis",)


@pytest.mark.parametrize(
    ("offered", "handler"),
    [
        (("teleport-postgres-ping", "teleport-postgres"), Handler.POSTGRES),
        (("unknown", "teleport-mongodb", "teleport-postgres"), Handler.DATABASE_TLS),
        (("teleport-redis-ping",), Handler.DATABASE_TLS),
        (("teleport-mysql-OC4wLjM0",), Handler.MYSQL),
        (("teleport-reversetunnel",), Handler.UNSUPPORTED),
        (("http/1.1",), Handler.HTTP),
        ((), Handler.HTTP),
        (("teleport-redis-db", "postgres"), None),
    ],
)
def test_the_clients_order_picks_the_handler(
    offered: tuple[str, ...], handler: Handler | None
) -> None:
    assert choose_handler(offered, SERVER) is handler


def test_a_value_outside_the_servers_list_is_not_served() -> None:
    assert choose_handler(("teleport-postgres",), ("teleport-redis",)) is None
    assert choose_handler((), ("teleport-redis",)) is None


def test_the_servers_order_picks_the_value() -> None:
    offered = ("teleport-postgres", "teleport-postgres-ping")
    assert negotiate(offered, SERVER) == "teleport-postgres-ping"
    assert negotiate(("teleport-mysql-OC4wLjM0",), SERVER) is None


def test_no_value_is_listed_twice() -> None:
    assert len(set(KNOWN)) == len(KNOWN)
