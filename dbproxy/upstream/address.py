"""The web address of a Teleport Proxy, as people write it."""

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from dbproxy.errors import UsageError

__all__ = ["ProxyAddress"]

_DEFAULT_PORT: Final = 443
"""Where a Teleport Proxy with TLS routing listens unless configured otherwise."""
_SCHEMES: Final = {"", "https", "tcp"}


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
        if "@" in parts.netloc or parts.query or parts.fragment or " " in host:
            raise _malformed(text)
        return cls(host, port if port is not None else _DEFAULT_PORT)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _is_bare(path: str) -> bool:
    return path in {"", "/"}


def _malformed(text: str) -> UsageError:
    return UsageError(
        f"{text!r} is not the address of a Teleport Proxy",
        next_step="Give its web address as HOST:PORT, for example --proxy=teleport.example.com:443",
    )
