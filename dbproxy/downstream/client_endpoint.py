"""What a client is told to connect to, so that it reaches us and verifies us.

The name that a client calls and the address that it connects to are two things: `verify-full`
compares the name with the certificate, and psql compares names only, hardly ever addresses. The
certificates are for `localhost` (Teleport's and our own) or for the names that the operator chose;
the listener is at any address. libpq takes both apart, as `host` and `hostaddr` (PostgreSQL
documentation, 32.1.2).
"""

import os
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from dbproxy.protocols import DatabaseProtocol

__all__ = ["ClientEndpoint", "client_endpoint"]

_LOCALHOST: Final = "localhost"
_REACHED_BY_LOCALHOST: Final = frozenset({"127.0.0.1", "0.0.0.0", "::"})  # noqa: S104 - compared only
_LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}


@dataclass(frozen=True, slots=True)
class ClientEndpoint:
    """Where clients connect.

    Attributes:
        host: The name to call, or the directory of a Unix socket.
        hostaddr: The IP address to connect to, where the name would not lead there; or None.
        port: The TCP port, or the number in the Unix socket's name.
        socket: The Unix socket, if it is one.
    """

    host: str
    hostaddr: str | None
    port: int
    socket: Path | None = None


def client_endpoint(name: object, protocol: DatabaseProtocol, host: str) -> ClientEndpoint:
    """The endpoint for clients of a listener.

    Args:
        name: The listening socket's own, as `getsockname` returns it.
        protocol: Says which port is meant by the name of a Unix socket.
        host: A name that the certificate is for which clients get to see.
    """
    if isinstance(name, tuple):
        return ClientEndpoint(host, _address_for_clients(name[0], host), name[1])
    path = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else Path()
    port = protocol.port_of_socket(path.name)
    port = protocol.default_port if port is None else port
    return ClientEndpoint(str(path.parent), None, port, socket=path)


def _address_for_clients(listening: str, host: str) -> str | None:
    if host == listening or (host == _LOCALHOST and listening in _REACHED_BY_LOCALHOST):
        return None
    address = ip_address(listening)
    return _LOOPBACK[address.version] if address.is_unspecified else listening
