"""Sending and receiving on a socket without giving the turn away.

Problem: each call on a `trio.SocketStream` passes a checkpoint, also when the system has taken or
given the bytes at once, and setting up a connection makes a dozen of them: that was a third of its
cost.

Choice: the same system calls, which wait only when the socket is not ready. So they are no
checkpoints; who uses them sees to it that there are some elsewhere. Errors are those of trio's.
"""

import os

import trio

__all__ = ["broken_by", "receive_now", "send_now"]


async def receive_now(stream: trio.SocketStream, size: int) -> bytes:
    """The next bytes, at most `size`; `b""` at the end. Cancelled, it has taken none.

    Raises:
        trio.BrokenResourceError: The connection failed.
        trio.ClosedResourceError: It was closed.
    """
    while True:
        try:
            return os.read(stream.socket.fileno(), size)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(stream.socket)
        except OSError as error:
            raise _translated(stream, error) from error


async def send_now(stream: trio.SocketStream, data: bytes) -> None:
    """Send all bytes. Cancelled, it may have sent some of them.

    Raises:
        trio.BrokenResourceError: The connection failed.
        trio.ClosedResourceError: It was closed.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(stream.socket.fileno(), left) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(stream.socket)
        except OSError as error:
            raise _translated(stream, error) from error


def _translated(stream: trio.SocketStream, error: OSError) -> Exception:
    if stream.socket.fileno() < 0:
        return trio.ClosedResourceError("this socket was already closed")
    return broken_by(error)


def broken_by(error: OSError) -> trio.BrokenResourceError:
    """As trio has it, so that whoever explains failures knows one kind of broken connection."""
    return trio.BrokenResourceError(f"socket connection broken: {error}")
