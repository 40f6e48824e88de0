"""A server that rejects our certificate and is gone at once, with a reset: the alert is named.

In TLS 1.3 our own handshake is over by then, so the alert races with the client's bytes, which the
server leaves unread, and with the reset, which fails whoever is sending.
"""

import socket
import ssl
import struct
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from identities import Cluster, make_authority
from loopback import open_server, wait_for_end
from proxy_bench import PATIENCE, STARTUP, Bench, running
from tls_peers import BOTH_VERSIONS, StdlibTLS, make_credentials, server_context

from dbproxy import Code
from dbproxy.events import ClosedBy, ConnectionClosed

CONNECTIONS = 40
AT_ONCE = 8
READ_SIZE = 512
"""Small, so that the server does not take the client's bytes in with our certificate."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


async def reject(transport: trio.SocketStream, context: ssl.SSLContext) -> None:
    """Shake hands until the certificate is judged; then the alert and a reset, at once."""
    end = StdlibTLS(context, server_side=True)
    end.start()
    while await goes_on(end, transport):
        await transport.send_all(end.outgoing())
    if end.tls.version() == "TLSv1.3":
        await trio.lowlevel.wait_readable(transport.socket)  # what the client sent, for nobody
    await transport.send_all(end.outgoing())
    transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    await transport.aclose()


async def goes_on(end: StdlibTLS, transport: trio.SocketStream) -> bool:
    """Take in a few bytes; whether no certificate was judged by then."""
    try:
        end.receive(await transport.receive_some(READ_SIZE))
    except ssl.SSLCertVerificationError:
        return False
    assert end.handshaking
    return True


async def talk_in_vain(bench: Bench) -> None:
    """A client that goes on sending while it is refused."""
    async with await bench.connect() as client, trio.open_nursery() as nursery:

        async def send() -> None:
            with suppress(trio.BrokenResourceError):
                await client.send_all(STARTUP + bytes(1 << 20))

        nursery.start_soon(send)
        await wait_for_end(client)
        nursery.cancel_scope.cancel()


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
    limit = trio.CapacityLimiter(AT_ONCE)

    async def serve(transport: trio.SocketStream) -> None:
        await reject(transport, context)

    async with (
        open_server(serve) as port,
        running(destination, context, proxy=f"127.0.0.1:{port}") as bench,
    ):

        async def one() -> None:
            async with limit:
                await talk_in_vain(bench)

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(CONNECTIONS):
                    nursery.start_soon(one)
    records = [event.record for event in bench.published(ConnectionClosed)]
    assert len(records) == CONNECTIONS
    assert {(record.code, record.outcome, record.closed_by) for record in records} == {
        (Code.CERTIFICATE_REJECTED, "refused", ClosedBy.UPSTREAM)
    }
    assert all("with the TLS alert unknown_ca" in str(record.reason) for record in records)
