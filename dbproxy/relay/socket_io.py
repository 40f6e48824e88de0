"""Connecting, sending and receiving on a socket without giving the turn away.

Problem: each call on a `trio.SocketStream` passes a checkpoint, also when the system has taken or
given the bytes at once, and setting up a connection makes a dozen of them: that was a third of its
cost.

Choice: the same system calls, which wait only when the socket is not ready. So they are no
checkpoints; who uses them sees to it that there are some elsewhere. Errors are those of trio's.
A limit to the time costs something only where somebody waits.

Tested in `tests/unit/relay/test_socket_io.py`.
"""

import errno
import os
import socket
import struct
import termios
from fcntl import ioctl
from math import inf
from socket import AddressFamily
from typing import Final

import trio

__all__ = ["broken_by", "bytes_on_their_way", "connect_now", "receive_now", "send_some_now"]

_UNDER_WAY: Final = {errno.EINPROGRESS, errno.EALREADY}
_DONE: Final = {0, errno.EISCONN}
_INT: Final = struct.Struct("=i")


async def connect_now(
    family: AddressFamily, host: str, port: int, *, limit: float = inf
) -> trio.SocketStream:
    """Connect to an IP address. Cancelled or failed, it leaves no socket behind.

    Over loopback a connection is there by the time that `connect` returns, although it says
    that it is still under way; asked a second time, it says so. That saves a turn of trio's loop.

    Args:
        family: The address's.
        host: The address.
        port: The port.
        limit: Seconds to wait.

    Raises:
        OSError: It failed.
        trio.TooSlowError: It took too long.
    """
    plain = socket.socket(family, socket.SOCK_STREAM)
    try:
        plain.setblocking(False)
        outcome = plain.connect_ex((host, port))
        if outcome in _UNDER_WAY:
            outcome = plain.connect_ex((host, port))
        if outcome in _UNDER_WAY:
            with trio.fail_after(limit):
                await trio.lowlevel.wait_writable(plain)
            outcome = plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if outcome not in _DONE:
            # Some systems say only that a connection that has failed cannot be begun again.
            reason = plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or outcome
            raise OSError(reason, os.strerror(reason))
    except BaseException:
        plain.close()
        raise
    return trio.SocketStream(trio.socket.from_stdlib_socket(plain))


async def receive_now(stream: trio.SocketStream, size: int, *, limit: float = inf) -> bytes:
    """The next bytes, at most `size`; `b""` at the end. Cancelled, it has taken none.

    Args:
        stream: On a socket.
        size: In bytes.
        limit: Seconds to wait, when nothing is there.

    Raises:
        trio.TooSlowError: Nothing has come in that time.
        trio.BrokenResourceError: The connection failed.
        trio.ClosedResourceError: It was closed.
    """
    while True:
        try:
            return os.read(stream.socket.fileno(), size)
        except BlockingIOError:
            if limit == inf:
                await trio.lowlevel.wait_readable(stream.socket)
            else:
                with trio.fail_after(limit):
                    await trio.lowlevel.wait_readable(stream.socket)
        except OSError as error:
            raise _translated(stream, error) from error


async def send_some_now(stream: trio.SocketStream, data: memoryview) -> int:
    """Send at least one byte, and return how many. Cancelled, it has sent none.

    Raises:
        trio.BrokenResourceError: The connection failed.
        trio.ClosedResourceError: It was closed.
    """
    while True:
        try:
            return os.write(stream.socket.fileno(), data)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(stream.socket)
        except OSError as error:
            raise _translated(stream, error) from error


def bytes_on_their_way(stream: trio.SocketStream) -> int:
    """How much was sent that has not arrived in the peer's system; its end counts as a byte.

    Where the system does not tell (Linux does: tcp(7), SIOCOUTQ, which has TIOCOUTQ's number), it
    is one byte until the connection is closed. On a Unix socket it has arrived when it is read, and
    the figure is the memory that it takes.
    """
    try:
        told = ioctl(stream.socket.fileno(), termios.TIOCOUTQ, bytes(_INT.size))
    except OSError:
        return 1
    waiting: int = _INT.unpack(told)[0]
    return waiting


def _translated(stream: trio.SocketStream, error: OSError) -> Exception:
    if stream.socket.fileno() < 0:
        return trio.ClosedResourceError("this socket was already closed")
    return broken_by(error)


def broken_by(error: OSError) -> trio.BrokenResourceError:
    """As trio has it, so that whoever explains failures knows one kind of broken connection."""
    return trio.BrokenResourceError(f"socket connection broken: {error}")
