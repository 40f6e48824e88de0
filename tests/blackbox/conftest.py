"""Destinations that tests of the command point it at."""

from functools import partial
from pathlib import Path

import pytest
from commands import Run, run_dbproxy
from identities import Cluster, make_cluster, write_destination


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The authorities of a cluster that is nowhere to be reached."""
    return make_cluster()


@pytest.fixture
def destination(tmp_path: Path, cluster: Cluster) -> Path:
    """A directory as tbot leaves it."""
    directory = tmp_path / "machine-id"
    write_destination(directory, cluster)
    return directory


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command that ends by itself."""

    return partial(run_dbproxy, home=tmp_path)
