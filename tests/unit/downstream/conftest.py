"""A store and a bench for all tests of the downstream, which leave no descriptor open."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from connection_bench import MakeBench, bench_maker
from loopback import no_descriptor_left

from dbproxy.identity import DestinationSource, IdentityStore


@pytest.fixture(autouse=True)
def _no_descriptor_left() -> Iterator[None]:
    with no_descriptor_left():
        yield


@pytest.fixture
async def store(destination: Path) -> IdentityStore:
    """The identity in the destination, loaded."""
    store = IdentityStore(DestinationSource(destination))
    await store.load()
    return store


@pytest.fixture
def make_bench(store: IdentityStore) -> MakeBench:
    """Makes a handler whose dialer gives the upstreams named."""
    return bench_maker(store)
