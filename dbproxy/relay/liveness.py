"""Giving up a peer that has vanished while bytes are on their way to it.

The problem: keepalive probes idle connections only. As long as something that we sent has not been
acknowledged, the system repeats it instead, for a quarter of an hour. `TCP_USER_TIMEOUT` shortens
that, but it also ends connections whose peer is alive and just does not read: with a window of
zero the peer acknowledges each probe, and the connection is ended all the same (seen on Linux
6.18). A client that pauses in the middle of a result would lose it.

The choice: the option is set while the peer does not acknowledge what is repeated to it, and taken
back when it does. Which of the two it is, `TCP_INFO` says.

Tested in `tests/unit/relay/test_liveness.py` with peers that are cut off, and with ones that do not
read.
"""

import socket
import struct
import sys
from contextlib import suppress
from math import inf
from typing import Final, NoReturn
from weakref import WeakKeyDictionary

import trio

__all__ = ["Liveness"]

INTERVAL: Final = 5.0
"""Seconds between looks."""
LIMIT: Final = 60.0
"""Seconds without an acknowledgement: as long as keepalive takes for an idle connection."""
AT_ONCE: Final = 100
"""Sockets that are looked at before others get their turn: a look takes about 2 µs."""
FEW_PROBES: Final = 2
"""Probes of a closed window that may be lost without meaning anything."""

_TCP_INFO: Final = struct.Struct("=8B24I")
"""The beginning of `struct tcp_info` (Linux, include/uapi/linux/tcp.h)."""
_RETRANSMITS: Final = 2
_PROBES: Final = 3
_LAST_ACK_RECV: Final = 8 + 12
_MILLISECONDS: Final = 1000


def is_unanswered(tcp_info: bytes, limit: float) -> bool:
    """Whether the peer owes an acknowledgement for what was sent to it again.

    Args:
        tcp_info: The beginning of `struct tcp_info`.
        limit: Seconds for which a peer that does not read may be silent as well.
    """
    values: tuple[int, ...] = _TCP_INFO.unpack_from(tcp_info)
    if values[_RETRANSMITS]:
        return True
    silent = values[_LAST_ACK_RECV] / _MILLISECONDS
    return values[_PROBES] > FEW_PROBES and silent >= limit


class Liveness:
    """Looks after the TCP connections of a proxy. Without effect where the system is not Linux.

    A connection that is given up fails with `ETIMEDOUT` for whoever uses it.

    Args:
        interval: Seconds between looks.
        limit: Seconds without an acknowledgement.
    """

    def __init__(self, *, interval: float = INTERVAL, limit: float = LIMIT) -> None:
        self._interval = interval
        self._limit = limit
        self._limited: WeakKeyDictionary[trio.SocketStream, bool] = WeakKeyDictionary()

    def watch(self, stream: trio.abc.Stream) -> None:
        """Look after a connection for as long as it exists; other streams than TCP are ignored."""
        if isinstance(stream, trio.SocketStream) and stream.socket.family != socket.AF_UNIX:
            self._limited[stream] = False

    async def run(self) -> NoReturn:
        """Look again and again, until cancelled."""
        while True:
            await trio.sleep(self._interval if sys.platform == "linux" else inf)
            for number, stream in enumerate(list(self._limited)):
                if number % AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
                with suppress(OSError):  # closed meanwhile, or dead: whoever uses it will be told
                    self._look(stream)

    def _look(self, stream: trio.SocketStream) -> None:
        if stream.socket.fileno() == -1:
            return
        info = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        unanswered = is_unanswered(info, self._limit)
        if unanswered != self._limited[stream]:
            limit = round(self._limit * _MILLISECONDS) if unanswered else 0
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)
            self._limited[stream] = unanswered
