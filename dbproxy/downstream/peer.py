"""Who is at the other end of an accepted connection."""

import socket
import struct
from typing import Final

import trio

__all__ = ["describe_address", "describe_peer"]

_UCRED: Final = struct.Struct("3i")
"""struct ucred of Linux: pid, uid, gid (unix(7))."""


def describe_address(name: object) -> str:
    """A socket's name as people write it: `127.0.0.1:5432`, `[::1]:5432`, `unix:///path`."""
    if isinstance(name, tuple):
        host, port = name[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    path = name.decode(errors="replace") if isinstance(name, bytes) else name
    return f"unix://{path}"


def describe_peer(client: trio.socket.SocketType) -> str:
    """The client, for logs and records: its address, or its process on a Unix socket."""
    if client.family != socket.AF_UNIX:
        return describe_address(client.getpeername())
    if not hasattr(socket, "SO_PEERCRED"):
        return "unix"
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _gid = _UCRED.unpack(credentials)
    return f"unix pid={pid} uid={uid}"
