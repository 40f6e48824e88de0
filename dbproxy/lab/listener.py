"""A listener that can go down and come up again on the same port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from dbproxy.lab.address import TcpAddress
from dbproxy.lab.errors import LabError

Serve = Callable[[trio.SocketStream], Awaitable[None]]


class Listener:
    """Accepts connections on one TCP address.

    Args:
        address: where to listen; port 0 picks a free port, once.
        serve: serves one connection; must not raise on anything a peer can cause.

    Attributes:
        address: where it listens; names the real port from the first ``bind`` on.
    """

    def __init__(self, address: TcpAddress, serve: Serve) -> None:
        self.address = address
        self._serve = serve
        self._listener: trio.SocketListener | None = None
        self._scope = trio.CancelScope()
        self._down = trio.Event()

    async def bind(self) -> None:
        """Opens the socket; clients can connect from now on and wait for ``run``.

        Raises:
            LabError: the address cannot be listened on, or it is open already.
        """
        if self._listener is not None:
            raise LabError(f"the Proxy already listens on {self.address}")
        try:
            first, *others = await trio.open_tcp_listeners(
                self.address.port, host=self.address.host
            )
        except OSError as error:
            reason = error.strerror or str(error)
            raise LabError(f"cannot listen on {self.address}: {reason}") from error
        for other in others:
            await other.aclose()
        self._listener, self._scope, self._down = first, trio.CancelScope(), trio.Event()
        self.address = TcpAddress(self.address.host, first.socket.getsockname()[1])

    async def run(self) -> None:
        """Serves until ``close`` or cancellation; both end all connections at once."""
        if self._listener is None:
            raise LabError("the Proxy has to be bound before it can serve")
        try:
            async with self._listener as listener:
                with self._scope:
                    await trio.serve_listeners(self._serve, [listener])
        finally:
            self._listener = None
            self._down.set()

    async def close(self) -> None:
        """Closes the listener and every connection, and waits until that is done. Idempotent."""
        if self._listener is not None:
            self._scope.cancel()
            await self._down.wait()

    def abandon(self) -> None:
        """Closes a socket that was bound and never served; no effect after ``run``."""
        if self._listener is not None:
            self._listener.socket.close()
            self._listener = None
