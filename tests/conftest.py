"""What all tests share: a real PostgreSQL for the whole run, a lab for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dbproxy.lab import DatabaseResource, Lab, guide, open_lab
from dbproxy.lab.postgres import (
    EmbeddedPostgres,
    execute,
    start_embedded_postgres,
    stop_embedded_postgres,
)

RELAYS = {"reactor": True, "trio": False}

CREATE_ROLES = """
CREATE ROLE alice LOGIN;
CREATE ROLE bob LOGIN;
CREATE DATABASE example OWNER alice;
CREATE DATABASE secret OWNER bob;
"""
CREATE_ROWS = """
SET ROLE alice;
CREATE TABLE greetings (id int PRIMARY KEY, words text NOT NULL);
INSERT INTO greetings VALUES (1, 'hello'), (2, 'bonjour'), (3, 'grüß Gott');
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the whole suite run on the relay that systems without epoll use."""
    parser.addoption(
        "--relay", choices=[*RELAYS], default="reactor", help="the relay that proxies in tests use"
    )


@pytest.fixture(autouse=True)
def relay_of_choice(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxies that tests run in their own process use the relay of `--relay`."""
    if (choice := request.config.getoption("--relay")) != "reactor":
        monkeypatch.setattr("dbproxy.relay.engine.HAS_EPOLL", RELAYS[choice])


@pytest.fixture(params=[*RELAYS])
def each_relay(
    request: pytest.FixtureRequest, relay_of_choice: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test runs once with each relay."""
    monkeypatch.setattr("dbproxy.relay.engine.HAS_EPOLL", RELAYS[request.param])


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A running PostgreSQL 18 with database ``example`` and its owner ``alice``.

    Role ``bob`` and database ``secret`` exist too, for what a role must not allow.
    """
    server = start_embedded_postgres(tmp_path_factory.mktemp("postgres"))
    try:
        execute(server, CREATE_ROLES)
        execute(server, CREATE_ROWS, "example")
        yield server
    finally:
        stop_embedded_postgres(server)


@pytest.fixture
async def lab(postgres: EmbeddedPostgres, tmp_path: Path) -> AsyncIterator[Lab]:
    """A cluster with the guide's database ``example-server``, role and bot ``app``.

    The bot's join token is ``lab.tokens["app"]``.
    """
    database = DatabaseResource(guide.SERVICE, postgres.address, labels={"env": "dev"})
    async with open_lab(databases=[database], directory=tmp_path / "lab") as cluster:
        cluster.create_role(guide.role_yaml())
        cluster.add_bot(guide.BOT, roles=[guide.ROLE_NAME])
        yield cluster
