"""The local listener: a TCP port on loopback, or a Unix socket."""

import errno
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import trio

from dbproxy.downstream.listener import BACKLOG, Listener
from dbproxy.errors import Code, ListenError, UsageError
from dbproxy.relay.keepalive import keep_alive

__all__ = [
    "ListenAddress",
    "TCPAddress",
    "UnixAddress",
    "listen_address",
    "open_listener",
    "remove_name",
]

_DEFAULT_HOST: Final = "127.0.0.1"
_DENIED: Final = {errno.EACCES, errno.EPERM}
_SOCKET_MODE: Final = 0o600
"""Only our own user may connect; others are let in by the administrator's choice of owner."""


@dataclass(frozen=True, slots=True)
class TCPAddress:
    """An IP address and port; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system."""

    path: Path

    def __str__(self) -> str:
        return f"unix://{self.path}"


ListenAddress: TypeAlias = TCPAddress | UnixAddress


def listen_address(uri: str | None, port: int, *, anywhere: bool) -> ListenAddress:
    """Where to listen.

    Args:
        uri: `tcp://HOST:PORT`, `HOST:PORT` or `unix:///PATH`; None for `port` on 127.0.0.1.
        port: Used without `uri`.
        anywhere: Whether an address that other hosts can reach is allowed.

    Raises:
        UsageError: The URI is malformed, or reachable by others without `anywhere`; a name counts
            as reachable, since whoever answers for it decides.
    """
    if uri is None:
        return TCPAddress(_DEFAULT_HOST, port)
    address = _parse(uri)
    if isinstance(address, TCPAddress) and not anywhere:
        _check_loopback(uri, address.host)
    return address


def _check_loopback(uri: str, host: str) -> None:
    try:
        is_loopback = ip_address(host).is_loopback
    except ValueError as error:
        raise UsageError(
            f"--listen {uri}: {host} cannot be resolved, or is not a loopback address",
            next_step="Listen on 127.0.0.1, [::1] or a Unix socket.",
        ) from error
    if not is_loopback:
        raise UsageError(
            f"--listen {uri} can be reached from other hosts",
            next_step="Listen on 127.0.0.1, [::1] or a Unix socket, or add"
            " --unsafe-listen-anywhere if that is what you want.",
        )


def _parse(uri: str) -> ListenAddress:
    try:
        parts = urlsplit(uri if "://" in uri else f"tcp://{uri}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _malformed(uri) from error
    if "@" in parts.netloc or "?" in uri or "#" in uri:
        raise _malformed(uri)
    if parts.scheme == "unix" and not parts.netloc and len(parts.path) > 1:
        return UnixAddress(Path(parts.path))
    if parts.scheme == "tcp" and host and port is not None and not parts.path:
        return TCPAddress(_DEFAULT_HOST if host == "localhost" else host, port)
    raise _malformed(uri)


def _malformed(uri: str) -> UsageError:
    return UsageError(
        f"--listen {uri} is not an address to listen on",
        next_step="Give tcp://HOST:PORT or unix:///PATH.",
    )


async def open_listener(address: ListenAddress) -> Listener:
    """Bind and listen.

    A Unix socket that nobody listens on any more is replaced; anything else in its place is not.

    Raises:
        ListenError: `address-in-use`, `listen-denied` or `listen-failed`.
    """
    try:
        if isinstance(address, TCPAddress):
            return await _open_tcp(address)
        return _open_unix(address.path)
    except UnicodeError as error:  # a host name that no resolver takes
        raise ListenError(Code.LISTEN_FAILED, f"cannot listen on {address}: {error}") from error
    except OSError as error:
        raise _listen_error(address, error) from error


def remove_name(address: ListenAddress) -> None:
    """Remove what a listener has in the file system, if anything, just before it is closed.

    What cannot be removed stays: whoever listens there next replaces it.
    """
    if isinstance(address, UnixAddress):
        with suppress(OSError):
            address.path.unlink()


def _listen_error(address: ListenAddress, error: OSError) -> ListenError:
    if error.errno == errno.EADDRINUSE:
        return _in_use(address)
    code = Code.LISTEN_DENIED if error.errno in _DENIED else Code.LISTEN_FAILED
    return ListenError(code, f"cannot listen on {address}: {error.strerror or error}")


def _in_use(address: ListenAddress) -> ListenError:
    what, next_step = "another process uses it", None
    if isinstance(address, UnixAddress):
        next_step = "Choose another path with --listen."
        if not _is_socket(address.path):
            what = f"{address.path} exists and is not a socket"
    return ListenError(
        Code.ADDRESS_IN_USE, f"cannot listen on {address}: {what}", next_step=next_step
    )


def _is_socket(path: Path) -> bool:
    """Also when nothing can be said of it."""
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return True


async def _open_tcp(address: TCPAddress) -> Listener:
    family, *_rest, name = (
        await trio.socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keep_alive(listener)  # before anybody connects
        listener.bind(name)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return Listener(listener)


def _open_unix(path: Path) -> Listener:
    _remove_abandoned(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Bound without a moment in which others could connect, hence the umask and no await.
        previous = os.umask(0o777 & ~_SOCKET_MODE)
        try:
            listener.bind(str(path))
        finally:
            os.umask(previous)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return Listener(listener)


def _remove_abandoned(path: Path) -> None:
    """Remove a socket that a process which ended badly has left behind."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except BlockingIOError:
            return  # its backlog is full, so somebody listens
