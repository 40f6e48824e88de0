"""TLS as a trio stream, either end of it.

Problem: ``trio.SSLStream`` cannot end one direction and go on reading the other, and a connection
through a Teleport Proxy may carry TLS inside framing inside TLS, with bytes already read from it.

Choice: the standard library's ``ssl`` on memory BIOs, over any stream. Buffers are bounded by one
read of the stream below. ``send_eof`` is a TLS close_notify (RFC 8446 §6.1: it closes one direction
only), after which reading goes on. OpenSSL reports an error when it meets application data while it
shuts down, so everything decryptable is taken out before (checked with OpenSSL 3.0, TLS 1.2 and
1.3, by ``tests/unit/lab/test_streams.py``).
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator

import trio

from dbproxy.lab.errors import LabError
from dbproxy.lab.streams import CLOSE_TIMEOUT, READ_SIZE


class HandshakeError(LabError):
    """A TLS handshake failed; the peer has been sent OpenSSL's alert."""


class TLSStream(trio.abc.HalfCloseableStream):
    """One end of a TLS connection over any stream; see the subclasses.

    One task may send and another receive at the same time. An end of the stream below without
    close_notify counts as the end of the data, as in Go's crypto/tls at a record boundary.
    """

    def __init__(
        self,
        transport: trio.abc.Stream,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
    ) -> None:
        self._transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
        )
        self._send_lock = trio.Lock()
        self._plaintext = bytearray()
        self._ended = False
        self._failure: ssl.SSLError | None = None
        self._established = False
        self._sent_eof = False

    @property
    def alpn(self) -> str | None:
        """The negotiated application protocol."""
        return self._tls.selected_alpn_protocol()

    @property
    def version(self) -> str | None:
        """The negotiated TLS version, such as ``TLSv1.3``."""
        return self._tls.version()

    @property
    def session_reused(self) -> bool:
        """Whether the client resumed an earlier session with its ticket."""
        return bool(self._tls.session_reused)

    @property
    def cipher(self) -> str:
        """The negotiated cipher suite as OpenSSL names it, empty before there is one."""
        negotiated = self._tls.cipher()
        return negotiated[0] if negotiated else ""

    async def do_handshake(self) -> None:
        """Completes the handshake, verifying the peer's certificate as the context says.

        Raises:
            HandshakeError: the peer broke off or was refused. An alert has been sent if TLS
                provides for one; the transport is still open and belongs to the caller.

        Cancelling leaves the stream fit for ``aclose`` only.
        """
        try:
            while not self._handshake_step():
                await self._flush()
                await self._fill()
            await self._finish_handshake()
        except ssl.SSLError as error:
            with contextlib.suppress(trio.BrokenResourceError):
                await self._flush()
            raise HandshakeError(describe(error)) from error
        except trio.BrokenResourceError as error:
            raise HandshakeError("the connection was reset during the handshake") from error
        self._established = True

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Returns decrypted bytes as soon as there are any, ``b""`` at the end of the data."""
        limit = READ_SIZE if max_bytes is None else max_bytes
        while True:
            self._decrypt(limit)
            if self._plaintext or self._ended:
                await trio.lowlevel.checkpoint()
                return self._take(limit)
            await self._answer()
            await self._fill()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypts and sends; returns when the transport has taken everything."""
        async with self._send_lock:
            if self._sent_eof:
                raise trio.ClosedResourceError("the sending direction is closed")
            view = memoryview(data)
            for start in range(0, len(view), READ_SIZE):
                with _broken_on_tls_error():
                    self._tls.write(view[start : start + READ_SIZE])
                await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        """Waits until the transport can take bytes."""
        async with self._send_lock:
            await self._transport.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Sends close_notify; ``receive_some`` goes on as before. Idempotent."""
        async with self._send_lock:
            if self._sent_eof:
                return
            self._sent_eof = True
            with _broken_on_tls_error():
                self._decrypt_everything()
                self._shut_down()
            await self._flush()

    async def aclose(self) -> None:
        """Sends close_notify if that is still possible, and closes the transport.

        When cancelled, or when the peer takes no bytes, it closes without it.
        """
        try:
            if self._established and not self._sent_eof:
                with (
                    trio.move_on_after(CLOSE_TIMEOUT),
                    contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError),
                ):
                    await self.send_eof()
        finally:
            await self._transport.aclose()

    async def _finish_handshake(self) -> None:
        """Sends what completes the handshake for the peer."""
        await self._flush()

    def _handshake_step(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def _take(self, limit: int) -> bytes:
        """Hands out plaintext, or the failure that came after the last of it."""
        if not self._plaintext and self._failure is not None:
            raise trio.BrokenResourceError(describe(self._failure)) from self._failure
        taken = bytes(self._plaintext[:limit])
        del self._plaintext[:limit]
        return taken

    def _decrypt(self, limit: int) -> None:
        """Moves plaintext out of the TLS machine until ``limit`` bytes wait here."""
        while len(self._plaintext) < limit and not self._ended:
            try:
                chunk = self._tls.read(READ_SIZE)
            except ssl.SSLWantReadError:
                return
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                chunk = b""
            except ssl.SSLError as error:
                self._failure, chunk = error, b""
            self._plaintext += chunk
            self._ended = not chunk

    def _decrypt_everything(self) -> None:
        """At most one unread batch of records can be waiting, so this stays bounded."""
        self._decrypt(len(self._plaintext) + 2 * READ_SIZE)

    def _shut_down(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLEOFError):
            self._tls.unwrap()

    async def _answer(self) -> None:
        """Sends what reading produced (a KeyUpdate's answer, an alert).

        When another task is sending, it takes these bytes along: waiting for it here could make
        two peers that both send wait for each other.
        """
        if self._outgoing.pending and not self._send_lock.locked():
            async with self._send_lock:
                await self._flush()

    async def _flush(self) -> None:
        while data := self._outgoing.read():
            await self._transport.send_all(data)

    async def _fill(self) -> None:
        await self._receive()

    async def _receive(self) -> bytes:
        data = bytes(await self._transport.receive_some(READ_SIZE))
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return data


def describe(error: ssl.SSLError) -> str:
    """Returns the reason of a TLS failure in words, without OpenSSL's source positions."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return "the peer ended the connection"
    return (error.reason or str(error)).lower().replace("_", " ")


@contextlib.contextmanager
def _broken_on_tls_error() -> Iterator[None]:
    """Maps a TLS failure of an established connection to trio's word for a broken stream."""
    try:
        yield
    except ssl.SSLError as error:
        raise trio.BrokenResourceError(describe(error)) from error
