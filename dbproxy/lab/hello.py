"""Read the ClientHello of a connection, before TLS gets to see it."""

from __future__ import annotations

from dbproxy.lab.client_hello import ClientHello, ClientHelloError, ClientHelloReader
from dbproxy.lab.faulty_stream import FaultyStream
from dbproxy.lab.streams import READ_SIZE


async def read_client_hello(
    transport: FaultyStream, prefix: bytes = b""
) -> tuple[ClientHello, bytes]:
    """Returns the ClientHello, and all bytes read for it; lets the transport know its ALPN list.

    Args:
        transport: where it comes from.
        prefix: bytes that have been read already.

    Raises:
        ClientHelloError: it is malformed, or the connection ended before it was complete.
    """
    reader = ClientHelloReader()
    hello = reader.feed(prefix)
    while hello is None:
        data = await transport.receive_some(READ_SIZE)
        if not data:
            raise ClientHelloError("the connection ended before the ClientHello was complete")
        hello = reader.feed(data)
    transport.offered = hello.alpn
    return hello, reader.received
