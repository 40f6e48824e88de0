"""The Proxy's listener for PostgreSQL alone, for clusters whose TLS routing is off.

With ``proxy_listener_mode: separate`` each database protocol has a port of its own. This one speaks
PostgreSQL from the first byte: SSLRequest, then TLS with the host certificate, which requires a
client certificate of the User CA (lib/srv/db/proxyserver.go, ``ServePostgres``). There is no ALPN,
no ping framing and no connection upgrade.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dbproxy.lab.cluster import Lab
from dbproxy.lab.faults import NO_FAULTS, FaultPlan, Injector
from dbproxy.lab.faulty_stream import FaultyStream
from dbproxy.lab.serving import LOOPBACK, serving


class PostgresListener:
    """A running listener.

    Attributes:
        address: ``HOST:PORT``, what the Proxy publishes as ``postgres_public_addr``.
        accepted: how many connections have come.
        connections: how many are open now.
        faults: what goes wrong, and what has.
    """

    def __init__(self, lab: Lab, faults: FaultPlan) -> None:
        self.address = ""
        self.accepted = 0
        self.connections = 0
        self.faults = Injector(faults)
        self._lab = lab

    async def serve(self, transport: FaultyStream) -> None:
        """Serves one client."""
        self.accepted += 1
        self.connections += 1
        try:
            await self._lab.serve_postgres(transport)
        finally:
            self.connections -= 1


@asynccontextmanager
async def open_postgres_listener(
    lab: Lab, *, listen: str = LOOPBACK, faults: FaultPlan = NO_FAULTS
) -> AsyncIterator[PostgresListener]:
    """Runs a listener for a lab's PostgreSQL services for the length of the block.

    Clients find it by ``WebOptions(tls_routing=False, databases={"postgres_public_addr": …})``.

    Args:
        lab: whose services it serves.
        listen: ``HOST:PORT``; port 0 picks a free one.
        faults: what goes wrong with connections to it, as they are accepted.

    Raises:
        LabError: the address is malformed, or cannot be listened on.
    """
    listener = PostgresListener(lab, faults)
    async with serving(listen, listener.faults, listener.serve) as listener.address:
        yield listener
