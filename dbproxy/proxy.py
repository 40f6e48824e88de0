"""DatabaseProxy: wires the parts together, runs them and drains them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import trio

from dbproxy.downstream import (
    Admission,
    ConnectionHandler,
    ListenAddress,
    LocalAuthority,
    RelayedAdmission,
    ServerCertificate,
    TCPAddress,
    TerminatingAdmission,
    UnixAddress,
    client_endpoint,
    default_state_directory,
    describe_address,
    given_server_certificate,
    listen_address,
    open_listener,
)
from dbproxy.downstream.accept import accept_connections
from dbproxy.errors import Code, ConfigError, IdentityError, ListenError, UsageError
from dbproxy.events import (
    AuthoritiesPassedOver,
    DrainingStarted,
    EventStream,
    InsecureChoice,
    Listening,
    Stopped,
    Subscriber,
)
from dbproxy.identity import (
    Identity,
    IdentityStore,
    TbotConfig,
    load_tbot_config,
    watch,
)
from dbproxy.identity.choose_source import choose_source
from dbproxy.identity.tbot_words import in_one_sentence
from dbproxy.identity.waiting import load_within
from dbproxy.protocols import ConnectionFacts, DatabaseProtocol, protocol_named
from dbproxy.settings import Mode, Settings
from dbproxy.upstream import ProxyAddress, RootsFile, UpstreamDialer, UpstreamTrust

__all__ = ["DatabaseProxy", "Prepared", "Started", "open_database_proxy", "proxy_address"]

_START_AGAIN: Final = (
    "Check that tbot runs and renews (its log says why not), then start dbproxy again, or give"
    " --wait-for-identity."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What a client needs to know about a proxy that is listening.

    Attributes:
        address: `127.0.0.1:12345`, `[::1]:12345` or `unix:///path`.
        mode: How clients are authenticated.
        service: The Teleport database service.
        protocol: The database protocol.
        database_user: The database user, if known.
        database_name: The database name, if known.
        ca_file: What the client must trust; None in tunnel mode, and where the client's own roots
            must do.
        certificate_file: The certificate that the client must show; None in tunnel mode.
        key_file: Its key; None in tunnel mode.
        connect_command: A command line to paste.
    """

    address: str
    mode: Mode
    service: str
    protocol: str
    database_user: str | None
    database_name: str | None
    ca_file: Path | None
    certificate_file: Path | None
    key_file: Path | None
    connect_command: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """A proxy that listens and does not accept yet."""

    address: ListenAddress
    listener: trio.SocketListener
    handler: ConnectionHandler
    store: IdentityStore
    started: Started
    renewal_interval: timedelta | None


class DatabaseProxy:
    """One local listener for one Teleport database service.

    Args:
        settings: What to carry, from where to where, and how.
        subscribers: Get every event.
    """

    def __init__(self, settings: Settings, *subscribers: Subscriber) -> None:
        self._settings = settings
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
        with _not_running_yet():
            prepared = await self.prepare()
        task_status.started(prepared.started)
        await self.serve(prepared)

    async def prepare(self) -> Prepared:
        """Load the identity and open the listener, without accepting yet.

        Here fails what the operator must know at once; `run` says how.
        """
        settings = self._settings
        config = load_tbot_config(settings.config) if settings.config is not None else None
        address = listen_address(
            settings.listen, settings.port, anywhere=settings.unsafe_listen_anywhere
        )
        store, renewal_interval = self._find_identity(config)
        dialer = self._dialer(config)
        await load_within(store, settings.wait_for_identity, publish=self._events.publish)
        self._store = store
        protocol = protocol_named(store.current.route.protocol)
        self._check_listen_address(address, protocol)
        server_certificate = self._server_certificate()
        listener = await self._open_listener(address)
        started = self._started(listener, store.current, protocol, server_certificate)
        self._announce(started)
        handler = self._handler(store, protocol, dialer, server_certificate)
        return Prepared(address, listener, handler, store, started, renewal_interval)

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

    def _find_identity(self, config: TbotConfig | None) -> tuple[IdentityStore, timedelta | None]:
        """Where the identity is, and how often tbot renews it, if that is known."""
        settings = self._settings
        chosen = choose_source(settings, config)
        store = IdentityStore(chosen.source, service=settings.service, publish=self._events.publish)
        return store, chosen.lifetime.renewal_interval

    def _check_listen_address(self, address: ListenAddress, protocol: DatabaseProtocol) -> None:
        if not isinstance(address, UnixAddress):
            return
        if self._settings.mode is not Mode.TUNNEL:
            raise UsageError(
                f"{protocol.readable_name} clients do not use TLS on a Unix socket, and"
                f" {self._settings.mode} mode needs it",
                next_step="Add --tunnel (the socket's permissions decide who may connect), or"
                " listen on a TCP port.",
            )
        if protocol.port_of_socket(address.path.name) is None:
            raise _misnamed_socket(address.path, protocol)

    async def _open_listener(self, address: ListenAddress) -> trio.SocketListener:
        try:
            return await open_listener(address)
        except ListenError as error:
            is_tcp = isinstance(address, TCPAddress)
            if self._settings.listen is None or not is_tcp or error.code is not Code.ADDRESS_IN_USE:
                raise
            next_step = "Choose another address with --listen."
            raise ListenError(error.code, error.message, next_step=next_step) from error

    def _dialer(self, config: TbotConfig | None) -> UpstreamDialer:
        settings = self._settings
        address = proxy_address(settings, config)
        insecure = settings.insecure or (config is not None and config.insecure)
        if insecure:
            self._events.publish(
                InsecureChoice(
                    option="--insecure" if settings.insecure else f"insecure in {settings.config}",
                    consequence="the certificate of the Teleport Proxy is not verified: anyone on"
                    " the network path can pose as the database and read everything",
                )
            )
        return UpstreamDialer(
            address,
            UpstreamTrust(self._roots(config), insecure=insecure),
            connect_timeout=settings.connect_timeout,
            handshake_timeout=settings.handshake_timeout,
        )

    def _roots(self, config: TbotConfig | None) -> RootsFile | tuple[()]:
        """The authorities to trust besides the system's: those named for us, or else for tbot."""
        if self._settings.proxy_ca is not None:
            return RootsFile(self._settings.proxy_ca, self._events.publish)
        if config is None or config.ca_path is None:
            return ()
        try:
            return RootsFile(config.ca_path, self._events.publish)
        except ConfigError as error:
            what = f"onboarding.ca_path in {config.path}: {error.message}"
            next_step = "If the Teleport Proxy is not trusted, name its authority with --proxy-ca."
            self._events.publish(
                AuthoritiesPassedOver(code=error.code, reason=what, next_step=next_step)
            )
            return ()

    def _server_certificate(self) -> ServerCertificate | None:
        settings = self._settings
        if settings.mode is not Mode.TERMINATE:
            return None
        if settings.server_cert is None or settings.server_key is None:
            return LocalAuthority.open(default_state_directory()).issue_server_certificate()
        return given_server_certificate(settings.server_cert, settings.server_key)

    def _handler(
        self,
        store: IdentityStore,
        protocol: DatabaseProtocol,
        dialer: UpstreamDialer,
        server_certificate: ServerCertificate | None,
    ) -> ConnectionHandler:
        admission: Admission
        if server_certificate is not None:
            admission = TerminatingAdmission(protocol, server_certificate, store)
        else:
            admission = RelayedAdmission(protocol, self._settings.mode)
        return ConnectionHandler(
            mode=self._settings.mode,
            protocol=protocol,
            store=store,
            dialer=dialer,
            admission=admission,
            publish=self._events.publish,
            prologue_timeout=self._settings.prologue_timeout,
            handshake_timeout=self._settings.handshake_timeout,
        )

    def _announce(self, started: Started) -> None:
        if self._settings.unsafe_listen_anywhere:
            self._events.publish(
                InsecureChoice(
                    option="--unsafe-listen-anywhere",
                    consequence=f"other hosts can connect to {started.address}",
                )
            )
        if started.mode is Mode.TUNNEL and not started.address.startswith("unix:"):
            self._events.publish(
                InsecureChoice(
                    option="--tunnel",
                    consequence=f"every user of this host can use {started.address} as the"
                    " certificate's user; a Unix socket's permissions could decide",
                )
            )
        self._events.publish(
            Listening(
                address=started.address,
                mode=started.mode,
                service=started.service,
                protocol=started.protocol,
            )
        )

    async def serve(self, prepared: Prepared) -> None:
        """Accept and serve until `stop`, then drain; cancelling it ends every connection at once.

        Closes the listener in any case.
        """
        # Two nurseries, so that accepting can end while connections go on.
        handler = prepared.handler
        try:
            with self._serving:
                async with trio.open_nursery() as connections:
                    with self._accepting:
                        async with trio.open_nursery() as background:
                            background.start_soon(self._keep_fresh, prepared)
                            await accept_connections(
                                prepared.listener,
                                handler.handle,
                                connections,
                                self._events.publish,
                            )
                    await trio.aclose_forcefully(prepared.listener)
                    self._drain(handler)
        finally:
            prepared.listener.socket.close()
            if isinstance(prepared.address, UnixAddress):
                prepared.address.path.unlink(missing_ok=True)
        self._events.publish(Stopped(ended_early=handler.ended_early))

    async def _keep_fresh(self, prepared: Prepared) -> None:
        await watch(
            prepared.store,
            publish=self._events.publish,
            renewal_interval=prepared.renewal_interval,
        )

    def _drain(self, handler: ConnectionHandler) -> None:
        grace = self._settings.drain_timeout
        self._events.publish(
            DrainingStarted(open_connections=handler.open_connections, grace=grace)
        )
        self._serving.deadline = min(self._serving.deadline, trio.current_time() + grace)

    def _started(
        self,
        listener: trio.SocketListener,
        identity: Identity,
        protocol: DatabaseProtocol,
        server_certificate: ServerCertificate | None,
    ) -> Started:
        settings, files = self._settings, identity.files
        plain = settings.mode is Mode.TUNNEL
        ca_file = server_certificate.ca_file if server_certificate else files.host_ca
        name = listener.socket.getsockname()
        shown_name = server_certificate.host if server_certificate else "localhost"
        endpoint = client_endpoint(name, protocol, shown_name)
        facts = ConnectionFacts(
            host=endpoint.host,
            hostaddr=endpoint.hostaddr,
            port=endpoint.port,
            mode=settings.mode,
            user=settings.db_user or identity.route.username,
            database=settings.db_name or identity.route.database,
            ca_file=None if plain or ca_file is None else ca_file.absolute(),
            certificate_file=None if plain else files.certificate.absolute(),
            key_file=None if plain else files.key.absolute(),
        )
        return Started(
            address=describe_address(name),
            mode=settings.mode,
            service=identity.route.service,
            protocol=protocol.name,
            database_user=facts.user,
            database_name=facts.database,
            ca_file=facts.ca_file,
            certificate_file=facts.certificate_file,
            key_file=facts.key_file,
            connect_command=protocol.connect_command(facts),
        )


def _misnamed_socket(path: Path, protocol: DatabaseProtocol) -> UsageError:
    directory = path if path.is_dir() else path.parent
    fitting = UnixAddress(directory / protocol.socket_name(protocol.default_port))
    pattern = protocol.socket_name("PORT")
    return UsageError(
        f"{protocol.readable_name} clients look for a Unix socket by the name {pattern}, and would"
        f" not find {path}",
        next_step=f"Listen on {fitting} instead.",
    )


def proxy_address(settings: Settings, config: TbotConfig | None) -> ProxyAddress:
    """The address of the Teleport Proxy, from the settings or else from tbot's configuration.

    Raises:
        UsageError: It is not known, or what the settings name is no address.
        ConfigError: `config-malformed`: what the configuration names is no address.
    """
    if settings.proxy is not None:
        return ProxyAddress.parse(settings.proxy)
    text = config.proxy_server or config.auth_server if config is not None else None
    if config is None or text is None:
        raise UsageError(
            f"the address of the Teleport Proxy is not known{_misspelt_proxy(config)}",
            next_step="Give it with --proxy=HOST:PORT, or with --config a tbot configuration"
            " that has proxy_server or auth_server.",
        )
    try:
        return ProxyAddress.parse(text)
    except UsageError as error:
        raise ConfigError(
            Code.CONFIG_MALFORMED,
            f"{config.proxy_place}: {error.message}",
            next_step="Correct it there (HOST:PORT), or give the address with --proxy.",
        ) from error


def _misspelt_proxy(config: TbotConfig | None) -> str:
    if config is None:
        return ""
    meant = ("proxy_server", "auth_server")
    words = tuple(word for word in config.unknown_words if word.similar in meant)
    return f"; in {config.path}, {in_one_sentence(words)[2:]}" if words else ""


@contextmanager
def _not_running_yet() -> Iterator[None]:
    """Whoever fails here ends, so nothing recovers by itself later."""
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
    proxy = DatabaseProxy(settings, *subscribers)
    with _not_running_yet():
        prepared = await proxy.prepare()
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.serve, prepared)
        try:
            yield prepared.started
        except Exception as error:  # noqa: BLE001 - raised again below, outside of the nursery's group
            failure = error
            proxy.stop_now()
        proxy.stop()
    if failure is not None:
        raise failure
