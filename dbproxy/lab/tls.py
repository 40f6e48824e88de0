"""The two ends of a TLS connection as trio streams; what they share is in `tls_stream`."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final, TypeAlias

import trio

from dbproxy.lab.tls_stream import HandshakeError, TLSStream

HELLO_START: Final = 43
"""Bytes of a connection up to and with the ClientHello's random (RFC 8446 §4.1.2 and §5.1)."""
RANDOM_START: Final = 11

LastWord: TypeAlias = Callable[["TLSServerStream"], bytes | None]
"""Looks at a handshake that is complete but for the server's last bytes. What it returns, an alert,
is sent instead of them and ends the connection; ``None`` lets it go on."""


class TLSServerStream(TLSStream):
    """The server's end of a TLS connection.

    Args:
        transport: the stream below; this object owns it.
        context: a server context.
        prefix: bytes that have been read from the transport already.
        last_word: may refuse the client at the end of the handshake.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        context: ssl.SSLContext,
        *,
        prefix: bytes = b"",
        last_word: LastWord | None = None,
    ) -> None:
        super().__init__(transport, context, server_side=True)
        self._last_word = last_word
        self._hello = prefix[:HELLO_START]
        self._incoming.write(prefix)

    @property
    def client_certificate(self) -> bytes | None:
        """The client's verified certificate in DER form, ``None`` if it showed none."""
        return self._tls.getpeercert(binary_form=True)

    @property
    def key_log(self) -> str | None:
        """Where this connection's secrets are, if they were logged."""
        return self._tls.context.keylog_filename

    @property
    def client_random(self) -> bytes:
        """The random of the ClientHello, which names this connection in key logs."""
        return self._hello[RANDOM_START:HELLO_START]

    async def _fill(self) -> None:
        data = await self._receive()
        if len(self._hello) < HELLO_START:
            self._hello = (self._hello + data)[:HELLO_START]

    async def _finish_handshake(self) -> None:
        refusal = self._last_word(self) if self._last_word is not None else None
        if refusal is None:
            await self._flush()
            return
        self._outgoing.read()
        await self._transport.send_all(refusal)
        raise HandshakeError("the client certificate was rejected")


class TLSClientStream(TLSStream):
    """The client's end of a TLS connection.

    Args:
        transport: the stream below; this object owns it.
        context: a client context.
        server_hostname: what the server's certificate has to be for.
    """

    def __init__(
        self, transport: trio.abc.Stream, context: ssl.SSLContext, *, server_hostname: str
    ) -> None:
        super().__init__(transport, context, server_side=False, server_hostname=server_hostname)
