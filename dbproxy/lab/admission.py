"""Who is turned away without a word, after the handshake: limits, locks, usage, IP pinning.

Source: lib/srv/db/proxyserver.go and lib/srv/alpnproxy/proxy.go of Teleport.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dbproxy.lab.database import DATABASE_USAGE
from dbproxy.lab.errors import LabError
from dbproxy.lab.subject import SubjectFields


class ConnectionRefused(LabError):
    """The Proxy does not serve this connection and closes it without a word."""


class Admission:
    """Lets database connections in.

    Args:
        max_connections: how many at once; ``None`` for any number.

    Attributes:
        max_connections: as above; may be changed.
        locked: users who are locked: ``tctl lock --user=…``.
        admitted: how many connections are in.
    """

    def __init__(self, max_connections: int | None) -> None:
        self.max_connections = max_connections
        self.locked: set[str] = set()
        self.admitted = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Takes one of the places for the length of the block.

        Raises:
            ConnectionRefused: there is none left.
        """
        if self.max_connections is not None and self.admitted >= self.max_connections:
            raise ConnectionRefused(f"too many connections, max is {self.max_connections}")
        self.admitted += 1
        try:
            yield
        finally:
            self.admitted -= 1

    def check(self, identity: SubjectFields, peer: str) -> None:
        """Checks what a tunnel's certificate may be used for.

        Raises:
            ConnectionRefused: it may not be used for this, here, or by this user.
        """
        if identity.usage and DATABASE_USAGE not in identity.usage:
            raise ConnectionRefused("the certificate is not for database use")
        if identity.pinned_ip and identity.pinned_ip != peer:
            raise ConnectionRefused(f"the certificate is pinned to {identity.pinned_ip}")
        if identity.user in self.locked:
            raise ConnectionRefused(f"user {identity.user} is locked")
