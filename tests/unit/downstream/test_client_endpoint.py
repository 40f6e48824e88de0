"""The name and the address that clients are told, for each address to listen on."""

from pathlib import Path

import pytest

from dbproxy.downstream import ClientEndpoint, client_endpoint
from dbproxy.protocols import protocol_named

POSTGRES = protocol_named("postgres")


@pytest.mark.parametrize(
    ("listening", "hostaddr"),
    [
        ("127.0.0.1", None),
        ("127.0.0.2", "127.0.0.2"),
        ("::1", "::1"),
        ("0.0.0.0", None),
        ("::", None),
        ("10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_localhost_is_called_by_its_name_and_reached_by_the_address(
    listening: str, hostaddr: str | None
) -> None:
    endpoint = client_endpoint((listening, 5432, 0, 0), POSTGRES, "localhost")
    assert endpoint == ClientEndpoint("localhost", hostaddr, 5432)


@pytest.mark.parametrize(
    ("listening", "hostaddr"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::1", "::1")],
)
def test_another_name_may_lead_anywhere_so_the_address_is_told_too(
    listening: str, hostaddr: str
) -> None:
    endpoint = client_endpoint((listening, 5432), POSTGRES, "db.example.com")
    assert endpoint == ClientEndpoint("db.example.com", hostaddr, 5432)


def test_a_name_that_is_the_address_is_enough() -> None:
    endpoint = client_endpoint(("127.0.0.1", 5432), POSTGRES, "127.0.0.1")
    assert endpoint == ClientEndpoint("127.0.0.1", None, 5432)


@pytest.mark.parametrize("name", ["/run/db/.s.PGSQL.6543", b"/run/db/.s.PGSQL.6543"])
def test_a_unix_socket_is_named_by_its_directory(name: str | bytes) -> None:
    endpoint = client_endpoint(name, POSTGRES, "localhost")
    socket = Path("/run/db/.s.PGSQL.6543")
    assert endpoint == ClientEndpoint("/run/db", None, 6543, socket)
