"""Addresses that the lab listens on and connects to."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Final

import trio

from dbproxy.lab.errors import LabError

UNIX_SCHEME: Final = "unix://"
CONNECT_TIMEOUT: Final = 60.0
"""Seconds to reach a database, Teleport's default (lib/defaults)."""


@dataclass(frozen=True)
class TcpAddress:
    """A host name or address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class UnixAddress:
    """The path of a Unix socket."""

    path: str


def parse_address(text: str) -> TcpAddress | UnixAddress:
    """Parses ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:///PATH``.

    Raises:
        LabError: the text has none of these forms.
    """
    if text.startswith(UNIX_SCHEME):
        return _parse_unix(text)
    return parse_tcp_address(text)


def parse_tcp_address(text: str) -> TcpAddress:
    """Parses ``HOST:PORT`` or ``[IPV6]:PORT``; port 0 is allowed.

    Raises:
        LabError: the text has neither form.
    """
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isdecimal() or int(port) > 0xFFFF:
        raise LabError(f"{text!r} is not an address: expected HOST:PORT or unix:///PATH")
    return TcpAddress(host, int(port))


async def open_address(text: str) -> trio.SocketStream:
    """Connects to an address.

    Raises:
        LabError: the text is not an address.
        OSError: the connection failed or took longer than ``CONNECT_TIMEOUT``.
    """
    address = parse_address(text)
    with trio.move_on_after(CONNECT_TIMEOUT):
        if isinstance(address, UnixAddress):
            return await trio.open_unix_socket(address.path)
        return await trio.open_tcp_stream(address.host, address.port)
    raise TimeoutError(f"no answer within {CONNECT_TIMEOUT:.0f} s")


def reason_of(error: OSError) -> str:
    """Why a connection failed, in the system's words where it has some.

    trio's error about several addresses has none of its own: they are in those it was made from.
    """
    cause = error.__cause__
    inner = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause,)
    reasons = [_in_system_words(it) for it in (error, *inner) if isinstance(it, OSError)]
    return "; ".join(dict.fromkeys(filter(None, reasons))) or str(error)


def _in_system_words(error: OSError) -> str | None:
    """Without the address, which trio puts in front; errors of names have other numbers."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror
    return os.strerror(error.errno)


def _parse_unix(text: str) -> UnixAddress:
    path = text.removeprefix(UNIX_SCHEME)
    if not path.startswith("/"):
        raise LabError(f"{text!r} is not an address: a Unix socket needs an absolute path")
    return UnixAddress(path)
