"""A SOCKS5 proxy (RFC 1928), with or without user names and passwords (RFC 1929)."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import trio

from dbproxy.lab.errors import LabError
from dbproxy.lab.faulty_stream import FaultyStream
from dbproxy.lab.outbound import Credentials, OutboundOptions, OutboundProxy
from dbproxy.lab.serving import serving
from dbproxy.lab.socks import (
    CONNECT,
    Method,
    Reply,
    Request,
    SocksError,
    choose_method,
    encode_reply,
    parse_greeting,
    parse_password,
    parse_request,
    password_status,
)
from dbproxy.lab.streams import READ_SIZE, PrefixedStream

T = TypeVar("T")

REPLIES: Final[Mapping[int, Reply]] = {
    errno.ECONNREFUSED: Reply.CONNECTION_REFUSED,
    errno.ENETUNREACH: Reply.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Reply.HOST_UNREACHABLE,
}


@asynccontextmanager
async def open_socks_proxy(options: OutboundOptions | None = None) -> AsyncIterator[OutboundProxy]:
    """Runs a SOCKS5 proxy for the length of the block.

    ``planned`` takes reply codes, see `Reply`. The faults before, in and after the answer concern
    the reply to the request.

    Args:
        options: how it behaves.
    """
    proxy = _SocksProxy("socks5", options or OutboundOptions())
    async with serving(proxy.options.listen, proxy.faults, proxy.serve) as proxy.address:
        yield proxy


class _SocksProxy(OutboundProxy):
    async def serve(self, transport: FaultyStream) -> None:
        """Serves one client."""
        reader = _Reader(transport)
        shown = await self._authenticate(reader, transport)
        try:
            request = await reader.next(parse_request)
        except SocksError:
            self.note("", shown, Reply.ADDRESS_TYPE_NOT_SUPPORTED)
            await transport.answer(transport, encode_reply(Reply.ADDRESS_TYPE_NOT_SUPPORTED))
            raise
        if (reply := self._judge(request)) != Reply.SUCCEEDED:
            await self._refuse(transport, request, shown, reply)
            return
        try:
            server = await self.open_target(request.target)
        except (OSError, LabError) as error:
            await self._refuse(transport, request, shown, _reply_for(error))
            return
        async with server:
            self.note(request.target, shown, Reply.SUCCEEDED)
            reply_bytes = encode_reply(Reply.SUCCEEDED, *server.socket.getsockname()[:2])
            await transport.answer(transport, reply_bytes + self.options.extra)
            await self.carry(PrefixedStream(transport, reader.rest), server)

    async def _authenticate(self, reader: _Reader, transport: FaultyStream) -> Credentials | None:
        """Returns the credentials that the client showed, which are right."""
        offered = await reader.next(parse_greeting)
        wanted = self.options.credentials
        method = Method.NONE if wanted is None else Method.PASSWORD
        if method not in offered:
            self.note("", None, Method.NOTHING_ACCEPTABLE)
            await transport.send_all(choose_method(Method.NOTHING_ACCEPTABLE))
            raise SocksError(f"the client does not offer method {method}")
        await transport.send_all(choose_method(method))
        if wanted is None:
            return None
        shown = Credentials(*await reader.next(parse_password))
        if shown != wanted:
            self.note("", shown, Method.NOTHING_ACCEPTABLE)
        await transport.send_all(password_status(accepted=shown == wanted))
        if shown != wanted:
            raise SocksError("wrong user name or password")
        return shown

    def _judge(self, request: Request) -> int:
        if self.planned:
            return self.planned.popleft()
        return Reply.SUCCEEDED if request.command == CONNECT else Reply.COMMAND_NOT_SUPPORTED

    async def _refuse(
        self, transport: FaultyStream, request: Request, shown: Credentials | None, reply: int
    ) -> None:
        self.note(request.target, shown, reply)
        await transport.answer(transport, encode_reply(reply))


class _Reader:
    """Reads one message after another."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self.rest = b""
        self._stream = stream

    async def next(self, parse: Callable[[bytes], tuple[T, int] | None]) -> T:
        """Returns the next message.

        Raises:
            SocksError: it is malformed, or the client has gone.
        """
        while (parsed := parse(self.rest)) is None:
            data = await self._stream.receive_some(READ_SIZE)
            if not data:
                raise SocksError("the client ended the connection")
            self.rest += data
        message, size = parsed
        self.rest = self.rest[size:]
        return message


def _reply_for(error: Exception) -> Reply:
    """Finds the reply for a failure; trio puts the attempts at all addresses behind one error."""
    cause: BaseException | None = error
    while isinstance(cause, OSError) and cause.errno is None and cause.__cause__ is not None:
        cause = cause.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if not isinstance(cause, OSError):
        return Reply.GENERAL_FAILURE
    return REPLIES.get(cause.errno or 0, Reply.HOST_UNREACHABLE)
