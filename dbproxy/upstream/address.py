"""The web address of a Teleport Proxy, as people write it."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Self
from urllib.parse import urlsplit

from dbproxy.errors import UsageError

__all__ = ["ProxyAddress"]

_DEFAULT_PORT: Final = 443
"""Where a Teleport Proxy with TLS routing listens unless configured otherwise."""
_SCHEMES: Final = {"", "https", "tcp"}
_NETLOC: Final = re.compile(r"(\[[^][]+\]|[^][@:]+)(:[0-9]*)?")
"""Without a user name; urlsplit itself is lax about what follows a bracket."""
_NAME: Final = re.compile(rb"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class ProxyAddress:
    """Host and port of the Teleport Proxy."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `HOST`, `HOST:PORT`, `[IPv6]:PORT`, a bare IPv6 address, or the same as a URL.

        Raises:
            UsageError: The text is not such an address.
        """
        address = text.strip()
        if address.count(":") > 1 and "[" not in address and "://" not in address:
            address = f"[{address}]"  # an IPv6 address without a port
        if "://" not in address:
            address = f"//{address}"
        try:
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise _malformed(text) from error
        if not host or port == 0 or parts.scheme not in _SCHEMES or not _is_bare(parts.path):
            raise _malformed(text)
        if not _NETLOC.fullmatch(parts.netloc) or parts.query or parts.fragment:
            raise _malformed(text)
        if not _is_host(host):
            raise _malformed(text)
        host = host.removesuffix(".")  # the root, in DNS; certificates leave it out
        return cls(host, port if port is not None else _DEFAULT_PORT)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _is_bare(path: str) -> bool:
    return path in {"", "/"}


def _is_host(host: str) -> bool:
    """Whether it is an IP address, or a name that can be asked for and shown (RFC 1123, IDNA)."""
    try:
        ip_address(host)
    except ValueError:
        return _is_name(host)
    return True


def _is_name(host: str) -> bool:
    try:
        return _NAME.fullmatch(host.encode("idna")) is not None
    except UnicodeError:  # a label is empty or too long
        return False


def _malformed(text: str) -> UsageError:
    return UsageError(
        f"{text!r} is not the address of a Teleport Proxy",
        next_step="Give its web address as HOST:PORT, for example --proxy=teleport.example.com:443",
    )
