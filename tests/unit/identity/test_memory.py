"""Months of renewals leave nothing behind."""

import gc
import tracemalloc
from itertools import cycle
from pathlib import Path

from identities import Cluster, destination_files, make_certificate, make_cluster, make_key

from dbproxy.events import Event
from dbproxy.identity import DestinationSource, Identity, IdentityStore

WARM_UP = 50
RELOADS = 300


class Renewals:
    """Renewals of a destination, made in advance: making one costs more than reading it."""

    def __init__(self, directory: Path, cluster: Cluster, count: int = 4) -> None:
        self.directory = directory
        keys = [make_key() for _ in range(count)]
        self._next = cycle(
            destination_files(cluster, key, make_certificate(cluster.user, key)) for key in keys
        ).__next__
        directory.mkdir()

    def write(self) -> None:
        for name, content in self._next().items():
            (self.directory / name).write_bytes(content)


def forget(_event: Event) -> None:
    """A subscriber that keeps nothing."""


async def test_memory_does_not_grow_with_reloads(tmp_path: Path) -> None:
    renewals = Renewals(tmp_path / "machine-id", make_cluster())
    renewals.write()
    store = IdentityStore(DestinationSource(renewals.directory), publish=forget)
    await store.load()

    async def reload(times: int) -> int:
        for _ in range(times):
            renewals.write()
            await store.reload()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = await reload(WARM_UP)
        after = await reload(RELOADS)
    finally:
        tracemalloc.stop()
    assert store.current.generation == 1 + WARM_UP + RELOADS
    assert after - before < RELOADS * 200  # an identity kept for each would be many times that


async def test_an_earlier_generation_is_forgotten_with_its_key(tmp_path: Path) -> None:
    renewals = Renewals(tmp_path / "machine-id", make_cluster())
    renewals.write()
    store = IdentityStore(DestinationSource(renewals.directory), publish=forget)
    first = (await store.load()).certificate_der
    for _ in range(3):
        renewals.write()
        await store.reload()
    gc.collect()
    alive = [item for item in gc.get_objects() if isinstance(item, Identity)]
    here = [item for item in alive if item.files.directory == renewals.directory]
    assert {item.certificate for item in here} == {store.current.certificate}
    assert store.has_held(first)
