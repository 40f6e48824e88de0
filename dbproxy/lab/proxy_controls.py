"""What a test sees of the running Proxy, and what it can change."""

from __future__ import annotations

from collections import deque
from datetime import datetime

import trio

from dbproxy.lab.admission import Admission
from dbproxy.lab.alerts import Alert
from dbproxy.lab.certificate_authority import current_time
from dbproxy.lab.database import DatabaseService
from dbproxy.lab.faults import Injector
from dbproxy.lab.gatekeeper import Gatekeeper, Rejection
from dbproxy.lab.handshake import Handshake
from dbproxy.lab.proxy import Proxy
from dbproxy.lab.upgrade import UpgradeOptions
from dbproxy.lab.upgrade_record import Upgrade
from dbproxy.lab.web import WebServer
from dbproxy.lab.webapi import WebOptions


class ProxyControls:
    """The Proxy's side of a `Lab`."""

    def __init__(
        self, proxy: Proxy, web: WebServer, gatekeeper: Gatekeeper, database: DatabaseService
    ) -> None:
        self._proxy = proxy
        self._database = database
        self._web = web
        self._gatekeeper = gatekeeper

    @property
    def handshakes(self) -> deque[Handshake]:
        """Facts about the latest connections to the Proxy, oldest first."""
        return self._proxy.handshakes

    @property
    def connections(self) -> int:
        """How many connections to the Proxy are open."""
        return self._proxy.connections

    @property
    def faults(self) -> Injector:
        """What goes wrong with connections to the Proxy, and what has: ``lab.faults.plan = …``."""
        return self._proxy.injector

    @property
    def upgrade_faults(self) -> Injector:
        """The same for answers of the upgrade endpoint and for connections inside of upgrades."""
        return self._proxy.upgrades.injector

    @property
    def upgrade(self) -> UpgradeOptions:
        """Which upgrade endpoint there is, from the next request on."""
        return self._proxy.upgrades.options

    @upgrade.setter
    def upgrade(self, options: UpgradeOptions) -> None:
        self._proxy.upgrades.options = options

    @property
    def upgrades(self) -> deque[Upgrade]:
        """The latest requests for a connection upgrade, oldest first."""
        return self._web.upgrades

    @property
    def web(self) -> WebOptions:
        """What the web API says, from the next request on."""
        return self._web.options

    @web.setter
    def web(self, options: WebOptions) -> None:
        self._web.options = options

    @property
    def web_requests(self) -> deque[str]:
        """Targets of the latest web requests, oldest first."""
        return self._web.requests

    @property
    def admission(self) -> Admission:
        """Locks and the limit of connections: ``lab.admission.locked.add("bot-app")``."""
        return self._proxy.admission

    @property
    def rejected(self) -> int:
        """How many client certificates ``reject_certificates`` has rejected so far."""
        return self._gatekeeper.rejected

    async def serve_postgres(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Serves a client of a listener for PostgreSQL alone; does not close the stream.

        Raises:
            LabError: the client was refused, or its TLS handshake failed.
        """
        await self._proxy.serve_postgres(stream)

    def reject_certificates(
        self,
        alert: Alert = Alert.CERTIFICATE_EXPIRED,
        *,
        issued_before: datetime | None = None,
    ) -> None:
        """Makes the Proxy reject client certificates that it would take, from now on.

        It does so in each TLS handshake that shows one: the outer one, the one inside of an upgrade
        and the one of a database client. With TLS 1.2 the client's handshake fails; with TLS 1.3 it
        succeeds, and the alert is what the client reads first. TLS sessions that began before are
        not resumed.

        Args:
            alert: what the client is told.
            issued_before: certificates issued from this moment on are accepted; by default those
                that are issued from now on. ``datetime.max`` with a time zone rejects all.
        """
        moment = current_time() if issued_before is None else issued_before
        self._gatekeeper.rejection = Rejection(moment, alert)

    def refuse_sessions(self, message: str) -> None:
        """Makes the database service refuse sessions of PostgreSQL and MySQL, from now on.

        Clients are told in their protocol, as by a real one: PostgreSQL's get a message and nothing
        else, MySQL's get it with the number 1105 and the SQLSTATE `HY000`.

        Args:
            message: such as ``database "x" not found among registered databases in cluster "y"``.
        """
        self._database.refusal = message

    def serve_sessions(self) -> None:
        """Ends ``refuse_sessions``."""
        self._database.refusal = None

    def accept_certificates(self) -> None:
        """Ends ``reject_certificates``."""
        self._gatekeeper.rejection = None
