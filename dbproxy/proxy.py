"""DatabaseProxy: wires the parts together, runs them and drains them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import trio

from dbproxy.downstream import (
    ConnectionHandler,
    ListenAddress,
    ServerCertificate,
    listen_address,
    remove_name,
)
from dbproxy.downstream.accept import Acceptor
from dbproxy.downstream.listener import Listener
from dbproxy.errors import Code, IdentityError
from dbproxy.events import DrainingStarted, EventStream, Stopped, Subscriber
from dbproxy.identity import IdentityStore, load_tbot_config, watch
from dbproxy.identity.waiting import load_within
from dbproxy.protocols import ConnectionFacts, DatabaseProtocol
from dbproxy.settings import Settings
from dbproxy.upstream import UpstreamDialer
from dbproxy.wiring import (
    Started,
    announce,
    check_listen_address,
    configured_protocol,
    connection_facts,
    describe_start,
    find_identity,
    make_dialer,
    make_handler,
    open_listener_for,
    server_certificate,
)

__all__ = [
    "DatabaseProxy",
    "Inherited",
    "Prepared",
    "Started",
    "not_running_yet",
    "open_database_proxy",
    "serving",
]

_START_AGAIN: Final = (
    "Check that tbot runs and renews (its log says why not), then start dbproxy again, or give"
    " --wait-for-identity."
)


@dataclass(frozen=True, slots=True)
class Inherited:
    """What belongs to several processes that serve one port; another one has opened it.

    Attributes:
        listener: Where clients arrive. Its name in the file system, if it has one, is left alone.
        certificate: What `--terminate` shows to clients.
    """

    listener: Listener
    certificate: ServerCertificate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A proxy that listens and does not accept yet."""

    address: ListenAddress
    listener: Listener
    certificate: ServerCertificate | None
    protocol: DatabaseProtocol
    facts: ConnectionFacts
    dialer: UpstreamDialer
    handler: ConnectionHandler
    store: IdentityStore
    started: Started
    renewal_interval: timedelta | None


class DatabaseProxy:
    """One local listener for one Teleport database service.

    Args:
        settings: What to carry, from where to where, and how.
        subscribers: Get every event.
        inherited: What is served instead of opening a listener.
    """

    def __init__(
        self, settings: Settings, *subscribers: Subscriber, inherited: Inherited | None = None
    ) -> None:
        self._settings = settings
        self._inherited = inherited
        self._events = EventStream(*subscribers)
        self._accepting = trio.CancelScope()
        self._serving = trio.CancelScope()
        self._store: IdentityStore | None = None

    async def run(
        self, *, task_status: trio.TaskStatus[Started] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Load the identity, listen, and serve until `stop`; then drain.

        Reports a `Started` once the listener accepts connections. Cancelling it ends every
        connection at once.

        Raises:
            UsageError: The settings are incomplete.
            ConfigError: The tbot configuration cannot be used.
            IdentityError: The identity cannot be used.
            ListenError: The listener cannot be opened.
        """
        with not_running_yet():
            prepared = await self.prepare()
        task_status.started(prepared.started)
        await self.serve(prepared)

    async def prepare(self) -> Prepared:
        """Load the identity and open the listener, without accepting yet.

        Here fails what the operator must know at once; `run` says how.
        """
        settings, publish = self._settings, self._events.publish
        config = load_tbot_config(settings.config) if settings.config is not None else None
        address = listen_address(
            settings.listen, settings.port, anywhere=settings.unsafe_listen_anywhere
        )
        store, renewal_interval = find_identity(settings, config, publish)
        dialer = make_dialer(settings, config, store, publish)
        await load_within(store, settings.wait_for_identity, publish=publish)
        self._store = store
        protocol = configured_protocol(settings, store.current.route.protocol)
        check_listen_address(address, protocol, settings.mode)
        if (inherited := self._inherited) is not None:
            certificate, listener = inherited.certificate, inherited.listener
        else:
            certificate = server_certificate(settings)
            listener = await open_listener_for(settings, address)
        name = listener.socket.getsockname()
        facts = connection_facts(settings, name, store.current, protocol, certificate)
        started = describe_start(name, store.current, protocol, facts)
        announce(settings, started, publish)
        handler = make_handler(settings, store, protocol, dialer, certificate, publish)
        return Prepared(
            address=address,
            listener=listener,
            certificate=certificate,
            protocol=protocol,
            facts=facts,
            dialer=dialer,
            handler=handler,
            store=store,
            started=started,
            renewal_interval=renewal_interval,
        )

    def stop(self) -> None:
        """Stop accepting; open connections have the drain timeout to end. May be called again."""
        self._accepting.cancel()

    def stop_now(self) -> None:
        """Stop accepting and end open connections at once."""
        self._accepting.cancel()
        self._serving.cancel()

    async def reload(self) -> None:
        """Read the identity again; a failure is an event, and the last good one stays in use."""
        if self._store is not None:
            await self._store.reload()

    async def serve(self, prepared: Prepared) -> None:
        """Accept and serve until `stop`, then drain; cancelling it ends every connection at once.

        Closes the listener in any case.
        """
        handler = prepared.handler
        try:
            with self._serving:
                async with trio.open_nursery() as machinery:
                    machinery.start_soon(handler.bridge.relays.run)
                    machinery.start_soon(handler.liveness.run)
                    await self._serve_connections(prepared)
                    machinery.cancel_scope.cancel()
        finally:
            self._close_listener(prepared)
        self._events.publish(Stopped(ended_early=handler.ended_early))

    async def _serve_connections(self, prepared: Prepared) -> None:
        # Two nurseries, so that connections can go on when all else has ended.
        handler = prepared.handler
        handler.bridge.relays.look_out_for_clients(prepared.listener.socket)
        publish = self._events.publish
        async with trio.open_nursery() as connections:
            acceptor = Acceptor(prepared.listener, handler.handle, connections, publish)
            acceptor.start()
            with self._accepting:
                async with trio.open_nursery() as background:
                    background.start_soon(self._keep_fresh, prepared)
                    if handler.bridge.ready is not None:
                        background.start_soon(handler.bridge.ready.run)
                    await self._wait_for_the_end(prepared, acceptor)

    async def _wait_for_the_end(self, prepared: Prepared, acceptor: Acceptor) -> None:
        """Told to stop, stop accepting at once, however long the others take to end."""
        try:
            await trio.sleep_forever()
        finally:
            drains = self._accepting.cancel_called and not self._serving.cancel_called
            arrived = acceptor.take_arrived() if drains else 0
            self._close_listener(prepared)
            if drains:
                self._drain(prepared.handler, arrived)

    def _close_listener(self, prepared: Prepared) -> None:
        """Do not listen any more; may be called again.

        The name goes first: as soon as nobody listens, another process may take it over.
        """
        listener = prepared.listener.socket
        if self._inherited is None and listener.fileno() >= 0:
            remove_name(prepared.address)
        listener.close()

    async def _keep_fresh(self, prepared: Prepared) -> None:
        await watch(
            prepared.store,
            publish=self._events.publish,
            renewal_interval=prepared.renewal_interval,
        )

    def _drain(self, handler: ConnectionHandler, arrived: int) -> None:
        handler.bridge.retries.stop()
        grace = self._settings.drain_timeout
        self._events.publish(
            DrainingStarted(open_connections=handler.open_connections + arrived, grace=grace)
        )
        self._serving.deadline = min(self._serving.deadline, trio.current_time() + grace)


@contextmanager
def not_running_yet() -> Iterator[None]:
    """Whoever fails in the block ends, so the error must not say that it recovers by itself."""
    try:
        yield
    except IdentityError as error:
        if error.code is not Code.CERTIFICATE_EXPIRED:
            raise
        raise IdentityError(error.code, error.message, next_step=_START_AGAIN) from error


@asynccontextmanager
async def open_database_proxy(
    settings: Settings, *subscribers: Subscriber
) -> AsyncIterator[Started]:
    """Run a `DatabaseProxy` for the length of an `async with` block; drains at its end.

    An exception that leaves the block ends open connections at once, and goes on as it is.

    Raises:
        DBProxyError: As `DatabaseProxy.run` does.
    """
    async with serving(DatabaseProxy(settings, *subscribers)) as prepared:
        yield prepared.started


@asynccontextmanager
async def serving(proxy: DatabaseProxy) -> AsyncIterator[Prepared]:
    """Run `proxy` for the length of an `async with` block; as `open_database_proxy` does."""
    with not_running_yet():
        prepared = await proxy.prepare()
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.serve, prepared)
        try:
            yield prepared
        except Exception as error:  # noqa: BLE001 - raised again below, outside of the nursery's group
            failure = error
            proxy.stop_now()
        proxy.stop()
    if failure is not None:
        raise failure
