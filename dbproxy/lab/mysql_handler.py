"""How a Proxy talks to MySQL clients before the database service takes over.

A stand-in for lib/srv/db/mysql/proxy.go. The Proxy greets with a version of its own choice and the
native-password plugin, and ignores what the client answers to the scramble. In a tunnel the
greeting offers no TLS, because the client has been authenticated by the outer TLS; otherwise it
does, and a client that does not begin TLS is dropped without a word.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import ssl
from collections.abc import Callable, Sequence
from typing import Final

import trio

from dbproxy.lab import mysqlwire
from dbproxy.lab.alpn import MYSQL, PING_SUFFIX
from dbproxy.lab.database import DatabaseService
from dbproxy.lab.errors import LabError
from dbproxy.lab.identity import certificate_of, identity_of
from dbproxy.lab.mysqlwire import Packet, PacketBuffer
from dbproxy.lab.streams import READ_SIZE
from dbproxy.lab.subject import SubjectFields
from dbproxy.lab.tls import LastWord, TLSServerStream

DEFAULT_VERSION: Final = "8.0.0-Teleport"
SCRAMBLE_BYTES: Final = bytes(range(1, 128))
"""A scramble has no zero in it, which would end it, and clients take seven bits."""


class MySQLRefused(LabError):
    """The client did not follow the protocol, or may not do this here."""


class MySQLHandler:
    """Serves MySQL clients of the Proxy.

    Args:
        database: where sessions go.
        context: returns the TLS context of the non-tunnel mode: Host CA certificate, client
            certificate of the User CA required.
        handshake_timeout: seconds that the inner TLS handshake may take.
        last_word: may refuse the client at the end of the inner TLS handshake.
    """

    def __init__(
        self,
        database: DatabaseService,
        context: Callable[[], ssl.SSLContext],
        handshake_timeout: float,
        last_word: LastWord,
    ) -> None:
        self._database = database
        self._context = context
        self._handshake_timeout = handshake_timeout
        self._last_word = last_word

    async def serve_tunnel(
        self, stream: trio.abc.HalfCloseableStream, identity: SubjectFields
    ) -> None:
        """Serves a client whose outer connection carried the certificate of ``identity``.

        Raises:
            LabError: the client was refused; it has been told if MySQL provides for that.
        """
        version = self._database.find(identity.service).version or DEFAULT_VERSION
        buffer = PacketBuffer()
        packet = await _greet(stream, buffer, version, offer_ssl=False)
        await self._database.serve_mysql(stream, identity, packet, buffer.pop_rest())

    async def serve_tls(
        self, stream: trio.abc.HalfCloseableStream, alpn_offered: Sequence[str]
    ) -> None:
        """Serves a client that has to start TLS inside the MySQL protocol.

        Args:
            stream: to the client.
            alpn_offered: may have the version that the greeting tells.

        Raises:
            LabError: the client was refused, or its TLS handshake failed.
        """
        buffer = PacketBuffer()
        version = version_in(alpn_offered) or DEFAULT_VERSION
        packet = await _greet(stream, buffer, version, offer_ssl=True)
        if not mysqlwire.is_ssl_request(packet.payload):
            raise MySQLRefused("the client does not use TLS")
        tls = TLSServerStream(
            stream, self._context(), prefix=buffer.pop_rest(), last_word=self._last_word
        )
        with trio.fail_after(self._handshake_timeout):
            await tls.do_handshake()
        async with tls:
            login = await _receive(tls, buffer, expected=packet.number + 1)
            identity = identity_of(certificate_of(tls))
            if identity is None:
                raise MySQLRefused("no client certificate")
            await self._database.serve_mysql(tls, identity, login, buffer.pop_rest())


def version_in(alpn_offered: Sequence[str]) -> str | None:
    """Returns the server version in a client's ALPN list, ``None`` without a good one."""
    for value in alpn_offered:
        encoded = value.removeprefix(f"{MYSQL}-")
        if encoded == value or value.endswith(PING_SUFFIX):
            continue
        try:
            return base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue
    return None


async def _greet(
    stream: trio.abc.Stream, buffer: PacketBuffer, version: str, *, offer_ssl: bool
) -> Packet:
    """Returns the client's answer to the greeting."""
    scramble = bytes(secrets.choice(SCRAMBLE_BYTES) for _ in range(mysqlwire.SCRAMBLE_SIZE))
    await stream.send_all(mysqlwire.greeting(version, scramble, ssl=offer_ssl).encode())
    return await _receive(stream, buffer, expected=1)


async def _receive(stream: trio.abc.Stream, buffer: PacketBuffer, *, expected: int) -> Packet:
    while (packet := buffer.pop()) is None:
        data = await stream.receive_some(READ_SIZE)
        if not data:
            raise MySQLRefused("the client ended the connection before its login")
        buffer.feed(data)
    if packet.number != expected:
        raise MySQLRefused(f"packet {packet.number} came where {expected} was expected")
    return packet
