"""A server that rejects our certificate and is gone at once, with a reset: the alert is named.

In TLS 1.3 our own handshake is over by then, so the alert races with the client's bytes, which the
server leaves unread, and with the reset, which fails whoever is sending.
"""

import os
import socket
import ssl
import struct
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from identities import Cluster, make_authority
from loopback import open_server, wait_for_end
from proxy_bench import PATIENCE, STARTUP, running
from tls_peers import BOTH_VERSIONS, StdlibTLS, make_credentials, server_context

from dbproxy import Code
from dbproxy.events import ClosedBy, ConnectionClosed

CONNECTIONS = 40
STEPS = 5
READ_SIZE = 512
"""Small, so that the server does not take the client's bytes in with our certificate."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Rejecter:
    """Rejects one certificate, right when the client has sent something more.

    Then dbproxy may try to send before it has looked at what has come: when the reset falls into
    the step of the event loop in which it sends. Which one that is, the test need not know.

    Attributes:
        context: Requires a certificate of another authority.
        steps: How many steps of the event loop the reset comes later.
        judged: The certificate has been judged.
        sent: The client has sent something more.
    """

    context: ssl.SSLContext
    steps: int
    judged: trio.Event = field(default_factory=trio.Event)
    sent: trio.Event = field(default_factory=trio.Event)

    async def serve(self, transport: trio.SocketStream) -> None:
        """Shake hands until the certificate is judged; then the alert and a reset, at once."""
        end = StdlibTLS(self.context, server_side=True)
        end.start()
        while await self._goes_on(end, transport):
            await transport.send_all(end.outgoing())
        if self.context.minimum_version is ssl.TLSVersion.TLSv1_3:
            await trio.lowlevel.wait_readable(transport.socket)  # the client's, for nobody
        self.judged.set()
        await self.sent.wait()
        for _ in range(self.steps):
            await trio.lowlevel.checkpoint()
        os.write(transport.socket.fileno(), end.outgoing())
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        transport.socket.close()

    async def _goes_on(self, end: StdlibTLS, transport: trio.SocketStream) -> bool:
        """Take in a few bytes; whether no certificate was judged by then."""
        try:
            end.receive(await transport.receive_some(READ_SIZE))
        except ssl.SSLCertVerificationError:
            return False
        assert end.handshaking
        return True

    async def ask(self, client: trio.SocketStream) -> None:
        """Be the client that is refused."""
        async with client:
            await client.send_all(STARTUP)
            await self.judged.wait()
            os.write(client.socket.fileno(), b"more")  # without a step of the event loop
            self.sent.set()
            await wait_for_end(client)


@pytest.mark.parametrize("version", BOTH_VERSIONS, ids=lambda version: version.name)
async def test_an_alert_before_a_reset_is_named(
    version: ssl.TLSVersion, destination: Path, cluster: Cluster
) -> None:
    context = server_context(
        make_credentials(cluster.host, "127.0.0.1"),
        version=version,
        alpn=["teleport-postgres"],
        client_authority=make_authority("other"),
    )
    rejecters = [Rejecter(context, number % STEPS) for number in range(CONNECTIONS)]
    turns = iter(rejecters)

    async def serve(transport: trio.SocketStream) -> None:
        await next(turns).serve(transport)

    async with (
        open_server(serve) as port,
        running(destination, context, proxy=f"127.0.0.1:{port}") as bench,
    ):
        with trio.fail_after(PATIENCE):
            for rejecter in rejecters:
                await rejecter.ask(await bench.connect())
    records = [event.record for event in bench.published(ConnectionClosed)]
    assert len(records) == CONNECTIONS
    assert {(record.code, record.outcome, record.closed_by) for record in records} == {
        (Code.CERTIFICATE_REJECTED, "refused", ClosedBy.UPSTREAM)
    }
    assert all("with the TLS alert unknown_ca" in str(record.reason) for record in records)
