"""SOCKS5 messages (RFC 1928) and user names with passwords (RFC 1929), the server's side. Sans-I/O.

Each ``parse_`` function takes all bytes that have come and returns what they say together with how
many of them that took, or ``None`` when more are needed. No length is larger than a byte says.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from dbproxy.lab.errors import LabError

VERSION: Final = 5
AUTH_VERSION: Final = 1
CONNECT: Final = 1


class SocksError(LabError):
    """The client does not speak SOCKS5."""


class Method(IntEnum):
    """Ways to authenticate (RFC 1928 §3)."""

    NONE = 0
    PASSWORD = 2
    NOTHING_ACCEPTABLE = 0xFF


class Reply(IntEnum):
    """Answers to a request (RFC 1928 §6)."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


class AddressType(IntEnum):
    """Forms of an address (RFC 1928 §5)."""

    IPV4 = 1
    DOMAIN = 3
    IPV6 = 4


@dataclass(frozen=True)
class Request:
    """What the client wants.

    Attributes:
        command: 1 for CONNECT.
        address_type: how the host was written.
        host: a domain name, or an IP address in its usual form.
        port: the port.
    """

    command: int
    address_type: AddressType
    host: str
    port: int

    @property
    def target(self) -> str:
        """``HOST:PORT``, with brackets around an IPv6 address."""
        host = f"[{self.host}]" if self.address_type is AddressType.IPV6 else self.host
        return f"{host}:{self.port}"


def parse_greeting(data: bytes) -> tuple[bytes, int] | None:
    """Parses the methods that the client offers.

    Raises:
        SocksError: another version, or no method.
    """
    _check_version(data, VERSION)
    if len(data) < 2 or len(data) < 2 + data[1]:
        return None
    if data[1] == 0:
        raise SocksError("no authentication method is offered")
    return data[2 : 2 + data[1]], 2 + data[1]


def parse_password(data: bytes) -> tuple[tuple[str, str], int] | None:
    """Parses a user name and a password.

    Raises:
        SocksError: another version, an empty user name, or not UTF-8.
    """
    _check_version(data, AUTH_VERSION)
    if len(data) < 2:
        return None
    if data[1] == 0:
        raise SocksError("the user name is empty")
    password = 3 + data[1]
    if len(data) < password or len(data) < password + data[password - 1]:
        return None
    end = password + data[password - 1]
    try:
        return (data[2 : password - 1].decode(), data[password:end].decode()), end
    except UnicodeDecodeError as error:
        raise SocksError("user name or password is not UTF-8") from error


def parse_request(data: bytes) -> tuple[Request, int] | None:
    """Parses a request.

    Raises:
        SocksError: another version, an unknown address type, or a name that is none.
    """
    _check_version(data, VERSION)
    if len(data) < 5:
        return None
    try:
        kind = AddressType(data[3])
    except ValueError as error:
        raise SocksError(f"address type {data[3]} is unknown") from error
    start, size = _host_place(kind, data[4])
    end = start + size + 2
    if len(data) < end:
        return None
    host = _decode_host(kind, data[start : start + size])
    return Request(data[1], kind, host, int.from_bytes(data[end - 2 : end], "big")), end


def choose_method(method: Method) -> bytes:
    """Answers a greeting."""
    return bytes((VERSION, method))


def password_status(*, accepted: bool) -> bytes:
    """Answers a user name and password."""
    return bytes((AUTH_VERSION, 0 if accepted else 1))


def encode_reply(reply: int, host: str = "0.0.0.0", port: int = 0) -> bytes:  # noqa: S104 - none
    """Answers a request; the address is the one that the server connected from."""
    address = ipaddress.ip_address(host)
    kind = AddressType.IPV4 if address.version == 4 else AddressType.IPV6
    return bytes((VERSION, reply, 0, kind)) + address.packed + port.to_bytes(2, "big")


def _check_version(data: bytes, version: int) -> None:
    if data and data[0] != version:
        raise SocksError(f"version {data[0]} instead of {version}")


def _host_place(kind: AddressType, first: int) -> tuple[int, int]:
    """Returns where the host begins and how long it is."""
    match kind:
        case AddressType.IPV4:
            return 4, 4
        case AddressType.IPV6:
            return 4, 16
        case AddressType.DOMAIN:
            return 5, first


def _decode_host(kind: AddressType, data: bytes) -> str:
    if kind is not AddressType.DOMAIN:
        return str(ipaddress.ip_address(data))
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        raise SocksError("the domain name is not ASCII") from error
