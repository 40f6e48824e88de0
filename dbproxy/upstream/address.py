"""The web address of a Teleport Proxy: as people write it, as it is published, as it is dialled.

What is written may leave the port out, and that is remembered: 443 and 3080 are tried then
(`dbproxy/upstream/discovery.py`). What is dialled always has a port.
"""

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Self

from dbproxy.errors import UsageError

__all__ = ["AddressError", "ConfiguredAddress", "ProxyAddress", "parse_published"]

DEFAULT_PORTS: Final = (443, 3080)
"""Where a Teleport Proxy listens for the web: as the guides set it up, and by default
(Teleport, `defaults.HTTPListenPort`). tsh tries the same two."""
_HIGHEST_PORT: Final = 65535

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SCHEMES: Final = frozenset({"https", "tcp"})
_PUBLISHED_SCHEMES: Final = _SCHEMES | {"http"}
"""What Teleport's own parser takes (`lib/utils/addr.go`); the difference means nothing to it."""
_END_OF_AUTHORITY: Final = re.compile(r"[/?#]")
_BRACKETED: Final = re.compile(r"\[([^][]*)\](?::(.*))?", re.DOTALL)
_PORT: Final = re.compile(r"[0-9]+", re.ASCII)
_NAME: Final = re.compile(rb"[A-Za-z0-9_.-]+")
_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)")
"""A name that ends in a number is none: resolvers would take it for an IPv4 address in disguise,
`3080` for `0.0.12.8` (inet_aton(3); RFC 1123 §2.1)."""


class AddressError(ValueError):
    """A text is no address; `str()` of it says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class ProxyAddress:
    """Host and port to dial."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class ConfiguredAddress:
    """What the operator gave as the address of the Teleport Proxy.

    Attributes:
        host: A name or an IP address.
        port: None when it was left out.
        named_by: Where it was given, in words: `--proxy`, `auth_server in /etc/tbot.yaml`.
        may_be_auth_service: Whether it may be the Auth Service, which is no Teleport Proxy.
    """

    host: str
    port: int | None
    named_by: str = field(default="--proxy", compare=False)
    may_be_auth_service: bool = field(default=False, compare=False)

    @classmethod
    def parse(
        cls, text: str, *, named_by: str = "--proxy", may_be_auth_service: bool = False
    ) -> Self:
        """Read `HOST`, `HOST:PORT`, `[IPv6]:PORT`, a bare IPv6 address, or the same as a URL.

        Raises:
            UsageError: The text is not such an address; the message says what is wrong with it.
        """
        try:
            host, port = _split(text, _SCHEMES)
        except AddressError as error:
            raise UsageError(
                f"{_shown(text)} is not the address of a Teleport Proxy: {error}",
                next_step="Give its web address as HOST:PORT, for example"
                " --proxy=teleport.example.com:443",
            ) from error
        return cls(host, port, named_by, may_be_auth_service)

    @property
    def candidates(self) -> tuple[ProxyAddress, ...]:
        """What it may mean, the preferred address first."""
        ports = DEFAULT_PORTS if self.port is None else (self.port,)
        return tuple(ProxyAddress(self.host, port) for port in ports)

    @property
    def preferred(self) -> ProxyAddress:
        """What it means when nobody can be asked."""
        return self.candidates[0]

    def __str__(self) -> str:
        host = _bracketed(self.host)
        return host if self.port is None else f"{host}:{self.port}"


def parse_published(text: str, *, default_port: int) -> ProxyAddress:
    """Read an address that a Teleport Proxy publishes.

    Raises:
        AddressError: It is none.
    """
    host, port = _split(text, _PUBLISHED_SCHEMES)
    return ProxyAddress(host, default_port if port is None else port)


def _split(text: str, schemes: frozenset[str]) -> tuple[str, int | None]:
    """Host and port of an address with or without a scheme."""
    rest = text.strip()
    if found := _SCHEME.fullmatch(rest):
        scheme, rest = found[1].lower(), found[2]
        if scheme not in schemes:
            raise AddressError(f"it begins with {scheme}://, and a Teleport Proxy is at https://")
    end = _END_OF_AUTHORITY.search(rest)
    authority, tail = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    if "@" in authority:
        raise AddressError("a user name does not belong there")
    if tail not in {"", "/"}:
        raise AddressError(f"{tail!r} does not belong there")
    host, port = _split_authority(authority)
    return host, _port(port) if port else None


def _split_authority(authority: str) -> tuple[str, str | None]:
    if found := _BRACKETED.fullmatch(authority):
        if not isinstance(_ip_address(found[1]), IPv6Address):
            raise AddressError(f"{found[1]!r} is not an IPv6 address")
        return _lowercase(found[1]), found[2]
    if authority.count(":") > 1:
        if _ip_address(authority) is None:
            raise AddressError("it has several colons and is not an IPv6 address")
        return _lowercase(authority), None
    host, _colon, port = authority.partition(":")
    if not host:
        raise AddressError("the host is missing")
    if _ip_address(host) is None and not _is_name(host):
        raise AddressError(f"{host!r} is neither a host name nor an IP address")
    # The final dot is the root, in DNS; certificates leave it out.
    return host.lower().removesuffix("."), port


def _port(text: str) -> int:
    if not _PORT.fullmatch(text):
        raise AddressError(f"the port {text!r} is not a number")
    digits = text.lstrip("0")
    if not digits or len(digits) > len(str(_HIGHEST_PORT)) or int(digits) > _HIGHEST_PORT:
        raise AddressError(f"the port {text} is not between 1 and {_HIGHEST_PORT}")
    return int(digits)


def _ip_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_name(host: str) -> bool:
    """Whether it is a name that can be asked for and shown (RFC 1123, IDNA)."""
    try:
        encoded = host.encode("idna")
    except UnicodeError:  # a label is empty or too long
        return False
    return _NAME.fullmatch(encoded) is not None and not _NUMBER.fullmatch(host.removesuffix("."))


def _lowercase(address: str) -> str:
    """An IPv6 address in the usual form; the name of an interface behind `%` stays as it is."""
    digits, percent, zone = address.partition("%")
    return digits.lower() + percent + zone


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _shown(text: str) -> str:
    """The text for a message: without what may be a password."""
    head, at, tail = text.rpartition("@")
    if not at:
        return repr(text)
    scheme, separator, _credentials = head.rpartition("://")
    return repr(f"{scheme}{separator}…@{tail}")
