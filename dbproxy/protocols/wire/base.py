"""What is known about a way of speaking on a connection: how it begins, and how it says no.

A wire belongs to the bytes alone. How Teleport carries a protocol, and which tools speak it, is the
business of `DatabaseProtocol`; several protocols can share a wire.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum, unique
from typing import ClassVar, Final, TypeAlias

from dbproxy.errors import ClientError, Code, DBProxyError, IdentityError, UpstreamError

__all__ = ["Answering", "Sort", "Wire", "one_line", "shortened", "sort_of", "starts"]

LONGEST_TEXT: Final = 4096
"""Bytes of what a client is told. A cause may quote what others have said, and each protocol has a
limit: 16 KiB in a frame of HTTP/2, 30,000 bytes for libpq, 65,535 in Cassandra, TNS and TDS."""

Answering: TypeAlias = Callable[[bytes], bytes]
"""From what a refused client goes on to say, however it is cut, to what it is answered."""


@unique
class Sort(Enum):
    """What kind of no it is, as far as database protocols tell kinds apart."""

    DENIED = "denied"
    """The client, or our certificate, was judged and turned away."""
    NOT_READY = "not ready"
    """Our own identity cannot be used now; it recovers by itself."""
    UNREACHABLE = "unreachable"
    """The upstream could not be reached, or is not what it should be."""
    MISUSE = "misuse"
    """The client speaks what this port does not carry."""
    STALLED = "stalled"
    """The client took too long."""
    INTERNAL = "internal"
    """All the rest."""


_MISUSES = frozenset({Code.CLIENT_NOT_TLS, Code.CLIENT_TLS_ON_TUNNEL, Code.CLIENT_PROTOCOL_ERROR})


def sort_of(error: DBProxyError) -> Sort:
    """The kind of no that `error` leads to."""
    if isinstance(error, UpstreamError):
        rejected = error.code is Code.CERTIFICATE_REJECTED
        return Sort.DENIED if rejected else Sort.UNREACHABLE
    if isinstance(error, IdentityError):
        return Sort.NOT_READY
    if isinstance(error, ClientError):
        if error.code is Code.CLIENT_STALLED:
            return Sort.STALLED
        return Sort.MISUSE if error.code in _MISUSES else Sort.DENIED
    return Sort.INTERNAL


def one_line(error: DBProxyError, longest: int = LONGEST_TEXT) -> str:
    """What a client is told, for protocols that have room for one text: cause, code, next step.

    Args:
        error: The problem.
        longest: Bytes that there is room for; what is too much is taken out of the cause.
    """
    cause = " ".join(f"dbproxy: {error.message}".replace("\0", " ").split())
    ending = f" [{error.code}]. {error.problem.client_hint}"
    return shortened(cause, longest - len(ending.encode())) + ending


def shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    """The text, if it is longer than so many bytes its beginning.

    File names need not be text; what is none in them becomes `?`.
    """
    encoded = text.encode(errors="replace")
    if len(encoded) <= longest:
        return encoded.decode()
    return encoded[: max(longest - 3, 0)].decode(errors="ignore") + "..."


class Wire(ABC):
    """One way of speaking; without state.

    Attributes:
        beginning: What a client begins with, for texts: "the client began with …".
    """

    beginning: ClassVar[str]

    @abstractmethod
    def begins(self, data: bytes) -> bool | None:
        """Whether a client that sent `data` first speaks it; None while that cannot be told.

        It can be told from a few bytes, 24 at most.
        """

    @abstractmethod
    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        """What to answer so that the client prints `error`.

        Args:
            received: The client's first bytes, or a part of them.
            error: Why it is not served.

        Returns:
            Empty where the client could not understand anything.
        """

    def further(self, received: bytes, error: DBProxyError) -> Answering | None:
        """What answers a client that goes on speaking after its refusal; None: it need not be.

        Some clients begin with questions whose answers they do not show to anybody.
        """
        del received, error
        return None

    def may_begin(self, data: bytes) -> bool:
        """Whether bytes that nobody recognises are let pass on a port that carries it."""
        del data
        return False


def starts(data: bytes, expected: bytes) -> bool | None:
    """Whether `data` starts with `expected`; None while it is too short to tell."""
    if len(data) < len(expected):
        return None if expected.startswith(data) else False
    return data.startswith(expected)
