"""TCP keepalive: noticing a peer that vanished without a word.

A laptop that was closed, a NAT box that forgot the connection or a host that lost power sends
nothing, and an idle connection to it would stay for ever.

On Linux an accepted connection begins with the options of the socket that listens, so they are set
once and not for each client.
"""

import socket
import sys
from contextlib import suppress
from typing import Final

import trio

__all__ = ["INHERITED", "keep_alive"]

INHERITED: Final = sys.platform == "linux"
"""Whether accepted connections have the listener's options (`inet_csk_clone_lock` in Linux)."""

_OPTIONS: Final = {
    "TCP_KEEPIDLE": 15,  # seconds of silence before the first probe, as Go has it
    "TCP_KEEPINTVL": 15,  # seconds between probes, as Go has it
    "TCP_KEEPCNT": 3,  # probes without an answer until the connection is given up
}


def keep_alive(sock: trio.socket.SocketType | socket.socket) -> None:
    """Switch keepalive on; a dead peer is noticed within a minute. No effect on Unix sockets."""
    if sock.family == socket.AF_UNIX:
        return
    with suppress(OSError):  # a socket that is dead already; whoever reads it will be told
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _OPTIONS.items():
            if hasattr(socket, name):  # macOS lacks some of them
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
