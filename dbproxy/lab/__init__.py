"""The lab: a miniature Teleport cluster on loopback, for demos, tests and your own CI.

It is the other side of the wire and shares no code with the part of the package that speaks to it.

Example::

    async with open_lab(
        databases=[DatabaseResource("example-server", "127.0.0.1:5432", labels={"env": "dev"})],
        directory=Path("lab-state"),
    ) as lab:
        lab.create_role(Path("role.yaml").read_text())
        token = lab.add_bot("app", roles=["machine-id-db"])

What stands between a client and a Proxy has context managers of its own: ``open_balancer``,
``open_connect_proxy``, ``open_socks_proxy``. ``open_postgres_listener`` is for clusters without TLS
routing. What is to go wrong is a `FaultPlan`.
"""

from dbproxy.lab.alerts import Alert
from dbproxy.lab.balancer import Balancer, BalancerOptions, UnknownALPN, open_balancer
from dbproxy.lab.cluster import Lab, open_lab
from dbproxy.lab.connect_proxy import open_connect_proxy
from dbproxy.lab.database import DatabaseResource
from dbproxy.lab.faults import NO_FAULTS, Action, Fault, FaultPlan, Step
from dbproxy.lab.outbound import Credentials, OutboundOptions, OutboundProxy
from dbproxy.lab.postgres_listener import PostgresListener, open_postgres_listener
from dbproxy.lab.proxy_options import Variant
from dbproxy.lab.rotation import Phase
from dbproxy.lab.socks_proxy import open_socks_proxy
from dbproxy.lab.upgrade import UpgradeOptions
from dbproxy.lab.webapi import Broken, WebOptions

__all__ = [
    "NO_FAULTS",
    "Action",
    "Alert",
    "Balancer",
    "BalancerOptions",
    "Broken",
    "Credentials",
    "DatabaseResource",
    "Fault",
    "FaultPlan",
    "Lab",
    "OutboundOptions",
    "OutboundProxy",
    "Phase",
    "PostgresListener",
    "Step",
    "UnknownALPN",
    "UpgradeOptions",
    "Variant",
    "WebOptions",
    "open_balancer",
    "open_connect_proxy",
    "open_lab",
    "open_postgres_listener",
    "open_socks_proxy",
]
