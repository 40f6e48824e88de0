"""A proxy that has renewed its identity many times holds what it held after the first times."""

import gc
import ssl
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from identities import Cluster, make_certificate, make_key, write_destination
from OpenSSL import SSL
from proxy_bench import Bench, running
from tls_peers import Credentials, client_context

from dbproxy.events import IdentityLoaded
from dbproxy.identity import Identity

WARM_UP = 3
ROUNDS = 20
KINDS = (SSL.Context, SSL.Connection, Identity, ssl.SSLObject)


class Renewals:
    """Renewals of a destination, each followed by a connection."""

    def __init__(self, directory: Path, cluster: Cluster, bench: Bench) -> None:
        self._directory = directory
        self._cluster = cluster
        self._bench = bench

    async def make(self, count: int, *, terminate: bool) -> None:
        for _ in range(count):
            key = make_key()
            certificate = make_certificate(self._cluster.user, key)
            write_destination(self._directory, self._cluster, key=key, certificate=certificate)
            await self._bench.proxy.reload()
            if terminate:
                context = client_context(credentials=Credentials(certificate, key))
                await self._bench.converse_inside_tls(context)
            else:
                await (await self._bench.connect_and_greet()).aclose()
        self._bench.events[:] = self._bench.published(IdentityLoaded)


def alive() -> Counter[type]:
    """How many objects there are of each kind that a generation or a connection makes."""
    gc.collect()
    return Counter(type(item) for item in gc.get_objects() if isinstance(item, KINDS))


@pytest.mark.parametrize("terminate", [False, True], ids=["tunnel", "terminate"])
async def test_renewals_and_connections_leave_nothing_behind(
    destination: Path, upstream_context: ssl.SSLContext, cluster: Cluster, terminate: bool
) -> None:
    mode: dict[str, Any] = {"tunnel": not terminate, "terminate": terminate}
    async with running(destination, upstream_context, **mode) as bench:
        renewals = Renewals(destination, cluster, bench)
        await renewals.make(WARM_UP, terminate=terminate)
        before = alive()
        await renewals.make(ROUNDS, terminate=terminate)
        grown = alive() - before
        assert len(bench.published(IdentityLoaded)) == 1 + WARM_UP + ROUNDS
    assert before[SSL.Context] > 0
    # The last connection may not be gone yet; each that was kept would be one of twenty.
    assert all(count <= 2 for count in grown.values()), grown
