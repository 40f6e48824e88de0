"""From settings to parts: each module makes one part of a `DatabaseProxy`."""

from dbproxy.wiring.admission import make_handler, server_certificate
from dbproxy.wiring.identity import find_identity
from dbproxy.wiring.listener import check_listen_address, open_listener_for
from dbproxy.wiring.protocol import configured_protocol
from dbproxy.wiring.proxy_address import proxy_address
from dbproxy.wiring.started import Started, announce, describe_start
from dbproxy.wiring.upstream import (
    insecure_by,
    make_dialer,
    make_route_finder,
    make_secure_dialer,
    make_trust,
    make_upstream_dialer,
)

__all__ = [
    "Started",
    "announce",
    "check_listen_address",
    "configured_protocol",
    "describe_start",
    "find_identity",
    "insecure_by",
    "make_dialer",
    "make_handler",
    "make_route_finder",
    "make_secure_dialer",
    "make_trust",
    "make_upstream_dialer",
    "open_listener_for",
    "proxy_address",
    "server_certificate",
]
