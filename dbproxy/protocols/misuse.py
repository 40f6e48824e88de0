"""What clients do wrong, in the same words whatever a port carries."""

from typing import Final

from dbproxy.errors import ClientError, Code
from dbproxy.protocols.wire import Wire

__all__ = ["foreign", "tls_declined", "tls_inside_tls", "tls_missing", "tls_on_plain_port"]

_SHOWN: Final = 8
"""Bytes of a protocol that nobody recognises that are shown."""


def foreign(
    carried: str, wire: Wire | None, received: bytes, *, did: str = "began with"
) -> ClientError:
    """The client speaks something else.

    Args:
        carried: What the port carries.
        wire: What the client speaks, if it is recognised.
        received: What it has sent.
        did: What it did with that.
    """
    unknown = f"bytes of another protocol (0x{received[:_SHOWN].hex()})"
    beginning = unknown if wire is None else wire.beginning
    return ClientError(
        Code.CLIENT_PROTOCOL_ERROR, f"this port carries {carried}, and the client {did} {beginning}"
    )


def tls_missing() -> ClientError:
    """The client goes on without TLS, where this port requires it."""
    return ClientError(
        Code.CLIENT_NOT_TLS, "the client connected without TLS, and this port requires it"
    )


def tls_on_plain_port() -> ClientError:
    """The client begins TLS in tunnel mode."""
    return ClientError(
        Code.CLIENT_TLS_ON_TUNNEL,
        "the client began a TLS handshake, and this port takes plaintext (--tunnel)",
    )


def tls_declined() -> ClientError:
    """The client has asked for TLS in tunnel mode, and leaves when it hears that there is none."""
    return ClientError(
        Code.CLIENT_TLS_ON_TUNNEL,
        "the client asked for TLS, which this port declines (--tunnel), and went away",
    )


def tls_inside_tls() -> ClientError:
    """The client begins TLS where it has begun already."""
    return ClientError(Code.CLIENT_PROTOCOL_ERROR, "the client began TLS inside TLS")
