"""Letting a client in when its TLS does not end here: `passthrough` and `tunnel`.

In both, what the client says after its first packets is relayed as it is. What the first packets
mean in each mode is the protocol's business.
"""

from typing import Protocol

from dbproxy.downstream.client import Client
from dbproxy.errors import ClientError, Code
from dbproxy.protocols import Carry, DatabaseProtocol, Greeting
from dbproxy.settings import Mode

__all__ = ["Admission", "RelayedAdmission"]


class Admission(Protocol):
    """How a mode lets a client in."""

    async def admit(self, client: Client, greeting: Greeting | None = None) -> Carry:
        """Read the client's first packets, check what the mode checks, and say how to go on.

        Args:
            client: The client.
            greeting: What the upstream said first, in a protocol in which the server does.

        Raises:
            ClientError: The client is refused.
            IdentityError: The client showed our own certificate, and that is not valid now.
            ClientGone: The client went away first.
        """


class RelayedAdmission:
    """For the modes in which dbproxy does not end the client's TLS.

    Args:
        protocol: The database protocol.
        mode: `passthrough` or `tunnel`.
    """

    def __init__(self, protocol: DatabaseProtocol, mode: Mode) -> None:
        self._protocol = protocol
        self._mode = mode

    async def admit(self, client: Client, greeting: Greeting | None = None) -> Carry:
        """Read until the prologue says to carry."""
        first_words = greeting or self._protocol
        event = await client.read_prologue(first_words.prologue(self._mode))
        if not isinstance(event, Carry):
            raise ClientError(
                Code.CLIENT_TLS_ON_TUNNEL, "the client began TLS where this mode does not end it"
            )
        return event
