"""The lab: a miniature Teleport cluster on loopback, in one task tree.

It stands in for the Auth Service, the Proxy Service and the Database Service of a real cluster, so
that the other side of the wire is at hand for demos, tests and continuous integration.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from dbproxy.lab.address import parse_tcp_address
from dbproxy.lab.audit import AuditLog, Event
from dbproxy.lab.authority import Authority, KeyPair
from dbproxy.lab.bots import Bots, JoinToken
from dbproxy.lab.contexts import ContextSource
from dbproxy.lab.database import DatabaseResource, DatabaseService
from dbproxy.lab.destination_files import Layout
from dbproxy.lab.destination_writer import BeforeWrite
from dbproxy.lab.faults import NO_FAULTS, FaultPlan
from dbproxy.lab.gatekeeper import Gatekeeper
from dbproxy.lab.handshake import ConnectionHandler
from dbproxy.lab.keys import PrivateKey, new_rsa_key
from dbproxy.lab.listener import Listener
from dbproxy.lab.proxy import Proxy, supported_alpn
from dbproxy.lab.proxy_controls import ProxyControls
from dbproxy.lab.proxy_options import HANDSHAKE_TIMEOUT, PING_INTERVAL, ProxyOptions, Variant
from dbproxy.lab.roles import Role
from dbproxy.lab.rotation import Phase
from dbproxy.lab.tbot import Tbot, load_tbot_config
from dbproxy.lab.upgrade import UpgradeOptions
from dbproxy.lab.web import WebServer
from dbproxy.lab.webapi import WebOptions

DEFAULT_CLUSTER: Final = "lab.example.com"
DEFAULT_LISTEN: Final = "127.0.0.1:0"
WEB_CA_FILE: Final = "web-ca.pem"
AUDIT_FILE: Final = "audit.jsonl"
PROXY_DIRECTORY: Final = "proxy"


class Lab(ProxyControls):
    """A running cluster; ``open_lab`` makes one.

    Attributes:
        cluster: the cluster's name.
        directory: where the cluster keeps its files.
        authority: the certificate authorities.
        bots: the bots and their tokens.
        roles: the roles by name.
        tokens: what ``add_bot`` returned, by bot name.
        audit: the record of database sessions.
        web_ca_file: PEM file of the authority that issued the Proxy's web certificate; clients
            reach the Proxy with ``--proxy-ca`` and this file.
    """

    def __init__(
        self,
        *,
        databases: Sequence[DatabaseResource],
        directory: Path,
        cluster: str,
        listen: str,
        split_database_ca: bool,
        options: ProxyOptions,
        on_audit_event: Callable[[Event], object] | None,
    ) -> None:
        self.cluster = cluster
        self.directory = directory
        self.authority = Authority.create(cluster, split_database_ca=split_database_ca)
        self.roles: dict[str, Role] = {}
        self.tokens: dict[str, JoinToken] = {}
        self.bots = Bots(self.authority, self.roles)
        self.audit = AuditLog(directory / AUDIT_FILE, on_audit_event)
        self.web_ca_file = directory / WEB_CA_FILE
        self.web_ca_file.write_bytes(self.authority.web_ca.pem)
        database = DatabaseService(cluster, databases, self.roles, self.audit)
        self._gatekeeper = Gatekeeper(self.authority, directory / PROXY_DIRECTORY)
        web = WebServer(cluster, lambda: self.address, options.web)
        proxy = Proxy(self._contexts(options), self._gatekeeper, database, web, options)
        super().__init__(proxy, web, self._gatekeeper, database)
        self._listener = Listener(parse_tcp_address(listen), proxy.serve)
        self._restart = trio.Event()

    @property
    def address(self) -> str:
        """The Proxy's address, ``HOST:PORT``."""
        return str(self._listener.address)

    def create_role(self, yaml_text: str) -> None:
        """Creates roles, or replaces those of the same name: ``tctl create -f role.yaml``.

        Raises:
            RoleError: the text is not one or several role documents.
        """
        self.roles.update((role.name, role) for role in Role.from_yaml(yaml_text))

    def add_bot(self, name: str, roles: Sequence[str]) -> JoinToken:
        """Creates a bot: ``tctl bots add NAME --roles=…``.

        Raises:
            LabError: the bot exists, or has no role.
            RoleError: the cluster does not have one of the roles.
        """
        self.tokens[name] = self.bots.add(name, roles)
        return self.tokens[name]

    def rotate(self, phase: Phase) -> None:
        """Goes to another phase of a CA rotation: ``tctl auth rotate --phase=…``, all CAs at once.

        The Proxy shows and trusts what the phase asks for from the next connection on, and running
        tbots renew at once in the phases in which tbot does.

        Raises:
            LabError: the present phase does not lead there.
        """
        self.authority.enter(phase)

    def protocol_of(self, service: str) -> str:
        """Returns the database protocol of a service.

        Raises:
            LabError: there is no such service.
        """
        return self._database.find(service).protocol

    def tbot(
        self,
        config: str | Path,
        *,
        layout: Layout = "v14",
        gap: float = 0.0,
        before_write: BeforeWrite | None = None,
        generate_key: Callable[[], PrivateKey] = new_rsa_key,
    ) -> Tbot:
        """Makes a tbot-like writer for this cluster; its ``run`` is the caller's to start.

        Args:
            config: the text of a tbot.yaml, or the path of one.
            layout: which generation of tbot to imitate.
            gap: seconds between two files of a destination.
            before_write: called with the path before each file is opened.
            generate_key: makes the key of each renewal, in a worker thread.

        Raises:
            TbotConfigError: the configuration is malformed.
            OSError: the file cannot be read.
        """
        source = str(config) if isinstance(config, Path) else "tbot.yaml"
        text = config.read_text(encoding="utf-8") if isinstance(config, Path) else config
        return Tbot(
            load_tbot_config(text, source),
            self,
            layout=layout,
            gap=gap,
            before_write=before_write,
            generate_key=generate_key,
        )

    async def start_proxy(self) -> None:
        """Brings the Proxy up, on the port that it had before.

        Raises:
            LabError: the port is in use, by others or by this Proxy.
        """
        await self._listener.bind()
        self._restart.set()

    async def stop_proxy(self) -> None:
        """Takes the Proxy down: closes its port and all its connections. Idempotent."""
        await self._listener.close()

    async def run(self) -> None:
        """Serves connections whenever the Proxy is up. ``open_lab`` runs this."""
        try:
            while True:
                await self._restart.wait()
                self._restart = trio.Event()
                await self._listener.run()
        finally:
            self._listener.abandon()

    def _web_certificate(self, options: ProxyOptions) -> KeyPair | None:
        if options.web_from_host_ca:
            return None
        return options.web_certificate or self.authority.issue_web_certificate(
            options.variant.names
        )

    def _contexts(self, options: ProxyOptions) -> ContextSource:
        return ContextSource(
            self.authority,
            self.directory / PROXY_DIRECTORY,
            web=self._web_certificate(options),
            alpn=supported_alpn(options),
            minimum_version=options.minimum_tls_version,
            maximum_version=options.maximum_tls_version,
            tickets=options.variant.session_tickets,
            names=options.variant.names,
            key_log=lambda: self._gatekeeper.key_log,
        )


@asynccontextmanager
async def open_lab(
    *,
    databases: Sequence[DatabaseResource],
    directory: Path,
    cluster: str = DEFAULT_CLUSTER,
    listen: str = DEFAULT_LISTEN,
    split_database_ca: bool = False,
    ping: bool = True,
    ping_interval: float = PING_INTERVAL,
    alpn: Sequence[str] | None = None,
    handler: ConnectionHandler | None = None,
    web_certificate: KeyPair | None = None,
    web_from_host_ca: bool = False,
    handshake_timeout: float = HANDSHAKE_TIMEOUT,
    minimum_tls_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    maximum_tls_version: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
    variant: Variant | None = None,
    web: WebOptions | None = None,
    upgrade: UpgradeOptions | None = None,
    faults: FaultPlan = NO_FAULTS,
    on_audit_event: Callable[[Event], object] | None = None,
) -> AsyncIterator[Lab]:
    """Runs a cluster for the length of the block; its Proxy accepts connections from the start.

    Args:
        databases: what the cluster offers.
        directory: where the cluster keeps the web CA's certificate, the audit log and the Proxy's
            key pairs; created when missing.
        cluster: the cluster's name.
        listen: ``HOST:PORT`` of the Proxy; port 0 picks a free one.
        split_database_ca: whether the Database CA is an authority of its own, as in clusters made
            by Teleport 10 or later; else it is the Host CA.
        ping: whether the Proxy knows ``-ping`` ALPN values (Teleport 10 and later).
        ping_interval: seconds between the pings that the Proxy sends.
        alpn: ALPN values that the Proxy knows, in its order of preference; ``None`` means all.
        handler: serves every established connection, but those to the web server, instead of the
            Proxy's own handlers; gets the stream (ping framing already removed) and the
            connection's facts.
        web_certificate: shown instead of one of the web CA: untrusted, wrong name, expired.
        web_from_host_ca: whether the Proxy shows its host certificate to the web as well, as one
            without a public certificate does; it then follows a rotation of the Host CA.
        handshake_timeout: seconds for the ClientHello, and again for each handshake.
        minimum_tls_version: oldest TLS version of outer connections.
        maximum_tls_version: newest TLS version of outer connections.
        variant: further differences from a usual Proxy.
        web: what the web API says; ``lab.web`` changes it later.
        upgrade: which upgrade endpoint there is; ``lab.upgrade`` changes it later.
        faults: what goes wrong with connections to the Proxy; ``lab.faults`` changes it later.
        on_audit_event: called with each event of the audit log.

    Raises:
        LabError: an address is malformed, or cannot be listened on.
        OSError: the directory cannot be written.

    When the block ends or is cancelled, all connections are closed at once. Exceptions of the
    block come out in an exception group, as from any trio nursery.
    """
    options = ProxyOptions(
        ping=ping,
        ping_interval=ping_interval,
        alpn=alpn,
        handler=handler,
        handshake_timeout=handshake_timeout,
        web_certificate=web_certificate,
        web_from_host_ca=web_from_host_ca,
        minimum_tls_version=minimum_tls_version,
        maximum_tls_version=maximum_tls_version,
        variant=variant or Variant(),
        web=web or WebOptions(),
        upgrade=upgrade or UpgradeOptions(),
        faults=faults,
    )
    _make_private(directory)
    lab = Lab(
        databases=databases,
        directory=directory,
        cluster=cluster,
        listen=listen,
        split_database_ca=split_database_ca,
        options=options,
        on_audit_event=on_audit_event,
    )
    await lab.start_proxy()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lab.run)
        yield lab
        nursery.cancel_scope.cancel()


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
