"""The whole chain for each test: a real client, dbproxy, the lab, a real PostgreSQL."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from database_clients import Psql
from mariadb_server import SCHEMA, MariaDB, mariadb_server
from odd_pieces import MEBIBYTE
from running_proxy import Destination, ProxyIn, running_proxy
from stage import Stage, running_stage

from dbproxy import Mode
from dbproxy.lab import Lab
from dbproxy.lab.keys import PrivateKey, new_rsa_key
from dbproxy.lab.postgres import EmbeddedPostgres


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A running MariaDB with database `example` and its user `alice`.

    User `bob` and database `secret` exist too, for what a role must not allow, and user `carol`,
    who has a password.
    """
    with mariadb_server() as server:
        server.execute(SCHEMA)
        yield server


@pytest.fixture(scope="session")
def rsa_keys() -> tuple[PrivateKey, PrivateKey]:
    """Two keys as tbot makes them, made once, because that is slow; renewals take turns."""
    return new_rsa_key(), new_rsa_key()


@pytest.fixture(autouse=True)
def state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of the test's own for the local certificate authority."""
    directory = tmp_path / "state"
    monkeypatch.setenv("STATE_DIRECTORY", str(directory))
    return directory


@pytest.fixture
async def destination(
    lab: Lab, tmp_path: Path, rsa_keys: tuple[PrivateKey, PrivateKey]
) -> Destination:
    """The destination of the bot `app`, written once."""
    destination = Destination(tmp_path / "machine-id", lab, rsa_keys)
    await destination.renew()
    return destination


@pytest.fixture
def proxy_in(lab: Lab, destination: Destination) -> ProxyIn:
    """Runs dbproxy in a mode, for `lab` and `destination`."""

    def run(mode: Mode, **settings: Any) -> Any:
        return running_proxy(mode, lab, destination.directory, **settings)

    return run


@pytest.fixture(scope="module")
def stage(
    postgres: EmbeddedPostgres,
    mariadb: MariaDB,
    rsa_keys: tuple[PrivateKey, PrivateKey],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    """Databases of many protocols, and dbproxy in front of each, for tests that block."""
    directory = tmp_path_factory.mktemp("stage")
    with running_stage(postgres, mariadb, directory, rsa_keys) as stage:
        yield stage


@pytest.fixture(scope="session")
def psql() -> Psql:
    """The psql on the PATH. Without one the tests fail: the main job is to serve it."""
    return Psql.find()


@pytest.fixture(scope="session")
def blob() -> bytes:
    """64 MiB that do not repeat."""
    return random.Random(2).randbytes(64 * MEBIBYTE)
