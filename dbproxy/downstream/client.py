"""One accepted client: reading its first packets, and telling it why not.

A refusal is a message in the client's own protocol. It must also arrive: closing a socket with
unread bytes in it makes the system send a reset, which can destroy the message on its way. So a
refused client is listened to for a moment after the end has been sent (a lingering close).
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from typing import Final

import trio

from dbproxy.errors import ClientError, Code, DBProxyError
from dbproxy.layers import Layer, LayerError, TDSHandshakeLayer
from dbproxy.protocols import Answering, Carry, Prologue, Refuser, Reply, StartTLS
from dbproxy.relay import LayeredStream, SilenceError

__all__ = ["Client", "ClientGone"]

_REFUSAL_TIMEOUT: Final = 5.0
"""Seconds for a refusal to leave: the client may not be reading."""
_LINGER: Final = 1.0
"""Seconds in which a refused client may still send: it needs a round trip to read and close."""
_MOST_KEPT: Final = 64 * 1024
"""Bytes that are kept of a client that is kept waiting; one that has more to say is not read any
further, so that its end is not seen either."""


class ClientGone(Exception):
    """The client ended the connection before it was answered.

    Attributes:
        reason: How.
        code: The problem that goes with it, if there is one.
        untold: What it would have been told; it may still read, if it has only ended its direction.
    """

    def __init__(
        self, reason: str, code: Code | None = None, *, untold: DBProxyError | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.untold = untold


class Client:
    """A client, from accept to close.

    Args:
        transport: The accepted connection.
    """

    def __init__(self, transport: trio.abc.HalfCloseableStream) -> None:
        self.stream = LayeredStream(transport)
        self._prologue: Prologue | None = None
        self._refuser: Refuser | None = None
        self._spoke = False  # before the present prologue
        self._can_be_told = True
        self._in_tls = False
        self._left = False
        self._limit = inf
        self._until = inf

    @property
    def left(self) -> bool:
        """Whether it has been seen to end its direction, or to be gone."""
        return self._left

    @property
    def spoke(self) -> bool:
        """Whether the client has sent a byte."""
        return self._spoke or (self._prologue is not None and self._prologue.started)

    @contextmanager
    def hurried(self, limit: float) -> Iterator[None]:
        """Within the block the client has so many seconds for all that it is waited for.

        Only waiting is limited: a client that has said everything costs no deadline.

        Raises:
            ClientError: `client-stalled`: it takes longer.
        """
        self._limit, self._until = limit, trio.current_time() + limit
        patience, self.stream.patience = self.stream.patience, self._time_left
        try:
            yield
        except SilenceError as error:
            raise self._stalled() from error
        finally:
            self.stream.patience = patience
            self._until = inf

    def _time_left(self) -> float:
        return max(0.0, self._until - trio.current_time())

    def _stalled(self) -> ClientError:
        return ClientError(
            Code.CLIENT_STALLED,
            f"the client did not complete its first message within {self._limit:g} s",
        )

    async def read_prologue(self, prologue: Prologue) -> StartTLS | Carry:
        """Drive a prologue until it says how to go on.

        Raises:
            ClientError: The client cannot be served.
            ClientGone: The client went away first.
        """
        if not self._in_tls:  # the few bytes that it is answered fit into any socket
            return await self._read_prologue(prologue)
        with trio.CancelScope(deadline=self._until):  # it may not read what TLS itself answers
            return await self._read_prologue(prologue)
        raise self._stalled()

    async def _read_prologue(self, prologue: Prologue) -> StartTLS | Carry:
        self._spoke, self._prologue = self.spoke, prologue
        self._refuser = prologue
        try:
            if prologue.opening:
                await self.stream.send_all(prologue.opening)
            while data := await self.stream.receive_promptly():
                for event in prologue.receive(data):
                    if not isinstance(event, Reply):
                        return event
                    await self.stream.send_all(event.data)
        except SilenceError:
            raise
        except trio.BrokenResourceError as error:
            raise ClientGone("the client reset the connection") from error
        except LayerError as error:
            raise ClientGone(f"the client broke off: {error}") from error
        if (parting := prologue.parting) is not None:
            raise ClientGone(parting.message, parting.code)
        raise ClientGone("the client closed the connection before its first message was complete")

    async def see_whether_it_stays(self, prologue: Prologue, moment: float) -> None:
        """Give a client that only looks whether somebody listens a moment to go away.

        Args:
            prologue: Knows what to make of a client that speaks already.
            moment: Seconds; 0 for a look at what it has done already.

        Raises:
            ClientError: The client speaks although it should listen first.
            ClientGone: It went away.
        """
        with trio.move_on_after(moment):
            await self.read_prologue(prologue)

    def continue_with(self, refuser: Refuser) -> None:
        """From now on, what a refusal must look like is known by another one."""
        self._refuser = refuser

    async def start_tls(
        self, layer: Layer, received: bytes, packing: TDSHandshakeLayer | None = None
    ) -> None:
        """Complete a TLS handshake as the server.

        Args:
            layer: TLS.
            received: The first bytes of the handshake, when they came already.
            packing: Packs the handshake, where the protocol wants that.

        Raises:
            ClientError: `client-tls-failed`.
            ClientGone: The client went away first.
        """
        self._can_be_told = False  # a client whose handshake failed has been sent an alert
        try:
            with trio.CancelScope(deadline=self._until) as patience:  # it may not read, either
                if packing is None:
                    await self.stream.add_layer(layer, received)
                else:
                    await self.stream.add_layer(packing, received)
                    await self.stream.add_layer(layer)
                    packing.finish()
        except SilenceError:
            raise
        except trio.BrokenResourceError as error:
            raise ClientGone("the client reset the connection during the TLS handshake") from error
        except LayerError as error:
            raise ClientError(
                Code.CLIENT_TLS_FAILED, f"the TLS handshake with the client failed: {error}"
            ) from error
        if patience.cancelled_caught:
            raise self._stalled()
        self._can_be_told = self._in_tls = True

    async def wait_until_left(self) -> None:
        """Wait until the client ends its direction or is gone, while nobody else reads from it.

        What it says meanwhile is there for whoever reads next, cancelled or not. A client that says
        more than a first message has is waited for in vain.
        """
        said = b""
        try:
            with suppress(trio.BrokenResourceError, LayerError):
                while data := await self.stream.receive_some():
                    said += data
                    if len(said) > _MOST_KEPT:
                        await trio.sleep_forever()
            self._left = True
        finally:
            self.stream.unread(said)

    async def refuse(self, error: DBProxyError) -> None:
        """Tell the client why, as well as its protocol and its present state allow, and close."""
        if self._refuser is None:
            return
        if not self._can_be_told:
            await self.break_off()
            return
        with trio.move_on_after(_REFUSAL_TIMEOUT):
            try:
                if refusal := self._refuser.refusal(error):
                    await self.stream.send_all(refusal)
                if (answering := self._refuser.further(error)) is not None:
                    await self._answer_on(answering)
            except (trio.BrokenResourceError, LayerError):
                return  # it is gone; the record has the reason
            await self.linger()

    async def _answer_on(self, answering: Answering) -> None:
        """Answer a refused client that goes on speaking, for a moment."""
        with trio.move_on_after(_LINGER):
            while said := await self.stream.receive_some():
                if answer := answering(said):
                    await self.stream.send_all(answer)

    async def linger(self) -> None:
        """End our direction, and give the client a moment to read what it was sent."""
        with trio.move_on_after(_LINGER):
            try:
                await self.stream.send_eof()
                while await self.stream.receive_some():
                    pass  # what it still says is of no use any more
            except (trio.BrokenResourceError, LayerError):
                return  # it is gone

    async def break_off(self) -> None:
        """End without saying that this is the end: TLS's close_notify is left out.

        What has been sent still arrives, an alert for example; the client has a moment to read it.
        """
        transport = self.stream.transport
        with trio.move_on_after(_LINGER):
            try:
                await transport.send_eof()
                while await transport.receive_some():
                    pass
            except trio.BrokenResourceError:
                return  # it is gone

    async def close(self) -> None:
        """Close the socket, at once."""
        await self.stream.abandon()
