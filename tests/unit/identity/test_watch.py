"""The slow poll."""

from pathlib import Path

import trio
import trio.testing
from identities import Cluster, write_destination

from dbproxy.events import Event, IdentityLoaded
from dbproxy.identity import DestinationSource, Identity, IdentityStore, watch


async def test_a_renewal_is_noticed_without_a_connection(
    destination: Path, cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    send, receive = trio.open_memory_channel[Event](10)
    store = IdentityStore(DestinationSource(destination), publish=send.send_nowait)
    await store.load()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, store)
        assert await receive.receive() == loaded(store.current)
        certificate = write_destination(destination, cluster)
        assert await receive.receive() == loaded(store.current)
        assert store.current.certificate == certificate
        nursery.cancel_scope.cancel()


def loaded(identity: Identity) -> IdentityLoaded:
    return IdentityLoaded(
        generation=identity.generation,
        service=identity.route.service,
        not_valid_after=identity.not_valid_after,
    )


async def test_the_interval_can_be_chosen(
    destination: Path, autojump_clock: trio.testing.MockClock
) -> None:
    looks: list[float] = []

    class Observed(IdentityStore):
        async def fresh(self) -> Identity:
            looks.append(trio.current_time())
            return self.current

    store = Observed(DestinationSource(destination))
    await store.load()
    begin = trio.current_time()
    with trio.move_on_after(7.5):
        await watch(store, interval=2)
    assert [look - begin for look in looks] == [2, 4, 6]
