"""A cluster, a destination and a store for all tests of the downstream."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from identities import Cluster, make_cluster, write_destination
from loopback import no_descriptor_left

from dbproxy.identity import DestinationSource, IdentityStore


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return make_cluster()


@pytest.fixture(autouse=True)
def _no_descriptor_left() -> Iterator[None]:
    with no_descriptor_left():
        yield


@pytest.fixture
def destination(tmp_path: Path, cluster: Cluster) -> Path:
    """A destination with a good identity for `example-server` in it."""
    directory = tmp_path / "machine-id"
    write_destination(directory, cluster)
    return directory


@pytest.fixture
async def store(destination: Path) -> IdentityStore:
    """The identity in the destination, loaded."""
    store = IdentityStore(DestinationSource(destination))
    await store.load()
    return store
