"""How a Proxy talks to PostgreSQL clients before the database service takes over.

A stand-in for lib/srv/db/postgres/proxy.go. In a tunnel the client has been authenticated by the
outer TLS and encryption is declined; otherwise the client is asked into TLS, which authenticates
it. Everything else is the same, down to what counts as an error.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

import trio

from dbproxy.lab.database import DatabaseService
from dbproxy.lab.errors import LabError
from dbproxy.lab.identity import certificate_of, identity_of
from dbproxy.lab.pgwire import (
    CancelRequest,
    FirstMessage,
    FirstMessageReader,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    error_response,
)
from dbproxy.lab.streams import READ_SIZE
from dbproxy.lab.subject import SubjectFields
from dbproxy.lab.tls import LastWord, TLSServerStream

ACCEPT_TLS: Final = b"S"
DECLINE: Final = b"N"
REPEATED: Final = {
    SSLRequest: "received more than one SSLRequest",
    GSSENCRequest: "received more than one GSSEncRequest",
}


class PostgresRefused(LabError):
    """The client did not follow the protocol, or may not do this here."""


class PostgresHandler:
    """Serves PostgreSQL clients of the Proxy.

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
            LabError: the client was refused; it has been told if PostgreSQL provides for that.
        """
        negotiation = _Negotiation(stream)
        message = await negotiation.receive(answer_ssl=DECLINE)
        await self._serve(stream, identity, message, negotiation.rest())

    async def serve_tls(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Serves a client that has to start TLS inside the PostgreSQL protocol.

        Raises:
            LabError: the client was refused, or its TLS handshake failed.
        """
        negotiation = _Negotiation(stream)
        message = await negotiation.receive(answer_ssl=ACCEPT_TLS)
        if not isinstance(message, SSLRequest):
            raise PostgresRefused(f"expected tls connection, got {type(message).__name__}")
        tls = TLSServerStream(
            stream, self._context(), prefix=negotiation.rest(), last_word=self._last_word
        )
        with trio.fail_after(self._handshake_timeout):
            await tls.do_handshake()
        async with tls:
            negotiation.continue_on(tls)
            message = await negotiation.receive(answer_ssl=DECLINE)
            identity = identity_of(certificate_of(tls))
            await self._serve(tls, identity, message, negotiation.rest())

    async def _serve(
        self,
        stream: trio.abc.HalfCloseableStream,
        identity: SubjectFields | None,
        message: FirstMessage,
        rest: bytes,
    ) -> None:
        if identity is None:
            raise PostgresRefused("no client certificate")
        if isinstance(message, CancelRequest):
            await self._database.cancel(identity, message)
        elif isinstance(message, StartupMessage):
            await self._database.serve_postgres(stream, identity, message, rest)


class _Negotiation:
    """Answers encryption requests until the client says something else."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream
        self._reader = FirstMessageReader()
        self._seen: set[type[SSLRequest] | type[GSSENCRequest]] = set()

    def continue_on(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Goes on inside TLS, remembering what has been asked already."""
        self._stream = stream

    def rest(self) -> bytes:
        """Returns, and forgets, what the client sent after the last message."""
        return self._reader.pop_rest()

    async def receive(self, *, answer_ssl: bytes) -> FirstMessage:
        """Returns the first message that is not a declined request."""
        while True:
            message = await self._receive_one()
            if not isinstance(message, SSLRequest | GSSENCRequest):
                return message
            await self._refuse_repetition(message)
            answer = answer_ssl if isinstance(message, SSLRequest) else DECLINE
            await self._stream.send_all(answer)
            if answer == ACCEPT_TLS:
                return message

    async def _refuse_repetition(self, message: SSLRequest | GSSENCRequest) -> None:
        if type(message) in self._seen:
            await self._stream.send_all(error_response(REPEATED[type(message)]))
            raise PostgresRefused(REPEATED[type(message)])
        self._seen.add(type(message))

    async def _receive_one(self) -> FirstMessage:
        while (message := self._reader.next_message()) is None:
            data = await self._stream.receive_some(READ_SIZE)
            if not data:
                raise PostgresRefused("the client ended the connection before the startup message")
            self._reader.feed(data)
        return message
