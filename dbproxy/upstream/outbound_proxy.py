"""Which outbound proxy leads to an address, as the environment says.

The rules are those of Go's `golang.org/x/net/http/httpproxy`, because Teleport's own tools follow
them: `HTTPS_PROXY` and `HTTP_PROXY`, the capital spelling before the small one; `NO_PROXY` with
names, domains, addresses and networks; loopback is never proxied. Teleport looks for the proxy of
an https URL first and then of an http one (`api/client/proxy`), so `HTTP_PROXY` counts where
`HTTPS_PROXY` is not set. `ALL_PROXY`, which curl knows and Go does not, comes last.

Here, unlike there, an address that cannot be understood is an error: connecting directly instead
would end in a time-out that says nothing.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from dbproxy.errors import UsageError

__all__ = ["OutboundProxy", "ascii_host", "outbound_proxy_for"]

_PROXY_VARIABLES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_HOST: Final = re.compile(r"[^\s/?#@\\\x00-\x20\x7f]+")
_MAX_SOCKS_CREDENTIAL: Final = 255
"""Bytes of a user name or a password: its length is one byte (RFC 1929 §2)."""

_Address = IPv4Address | IPv6Address
_Matcher = Callable[[str, int, _Address | None], bool]


@dataclass(frozen=True, slots=True)
class OutboundProxy:
    """A proxy between this host and the Teleport Proxy.

    Attributes:
        scheme: `http`, `https`, `socks5` or `socks5h`.
        host: Its name or address.
        port: Its port.
        variable: The environment variable that names it, as it is spelled there.
        user: The user name, if there are credentials.
        password: The password that goes with it; possibly empty.
    """

    scheme: str
    host: str
    port: int
    variable: str
    user: str | None = None
    password: str = field(default="", repr=False)

    @property
    def speaks_socks(self) -> bool:
        """Whether it speaks SOCKS5, and not HTTP."""
        return self.scheme.startswith("socks")

    @property
    def in_words(self) -> str:
        """Its URL and what names it: `http://proxy.example.com:3128 (from HTTPS_PROXY)`."""
        return f"{self} (from {self.variable})"

    def __str__(self) -> str:
        """Its URL, without the credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def outbound_proxy_for(environ: Mapping[str, str], host: str, port: int) -> OutboundProxy | None:
    """The outbound proxy to use for `host` and `port`, or None to connect directly.

    Raises:
        UsageError: The variable that decides has no URL of a proxy that can be used. Its value is
            not in the message, since there may be a password in it.
    """
    variable, value = _first_set(environ, _PROXY_VARIABLES)
    if not value or _connects_directly(environ, host, port):
        return None
    return _parse(variable, value)


def _first_set(environ: Mapping[str, str], variables: tuple[str, ...]) -> tuple[str, str]:
    """The first of the variables that is not empty, the capital spelling first, and its value."""
    for name in variables:
        for spelling in (name, name.lower()):
            if value := environ.get(spelling, "").strip():
                return spelling, value
    return "", ""


def _connects_directly(environ: Mapping[str, str], host: str, port: int) -> bool:
    host = ascii_host(host.strip().lower())
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    _variable, exceptions = _first_set(environ, ("NO_PROXY",))
    return any(matches(host, port, address) for matches in _matchers(exceptions))


def _matchers(exceptions: str) -> Iterator[_Matcher]:
    for word in exceptions.lower().split(","):
        if matcher := _matcher(word.strip()):
            yield matcher


def _matcher(word: str) -> _Matcher | None:
    """What one word of `NO_PROXY` matches; None when it has no host part."""
    if word == "*":
        return lambda _host, _port, _address: True
    if "/" in word:
        return _network_matcher(word)
    name, port = _split_port(word)
    if not name:
        return None
    if address := _address(name):
        return _address_matcher(address, port)
    return _domain_matcher(name, port)


def _network_matcher(word: str) -> _Matcher | None:
    try:
        network = ip_network(word, strict=False)
    except ValueError:
        return None  # no host name has a slash in it
    return lambda _host, _port, address: address is not None and address in network


def _address_matcher(wanted: _Address, wanted_port: str) -> _Matcher:
    return lambda _host, port, address: address == wanted and _is_port(wanted_port, port)


def _domain_matcher(name: str, wanted_port: str) -> _Matcher:
    """`example.com` matches itself and what ends in it; with a dot in front only the latter."""
    name = name.removeprefix("*") if name.startswith("*.") else name
    suffix = ascii_host(name.removeprefix("."))
    with_itself = not name.startswith(".")

    def matches(host: str, port: int, _address: _Address | None) -> bool:
        is_named = host.endswith(f".{suffix}") or (with_itself and host == suffix)
        return is_named and _is_port(wanted_port, port)

    return matches


def _is_port(wanted: str, port: int) -> bool:
    return wanted in {"", str(port)}


def _split_port(word: str) -> tuple[str, str]:
    """`HOST:PORT` or `[IPv6]:PORT` taken apart; anything else is a host."""
    if word.startswith("["):
        host, bracket, rest = word[1:].partition("]")
        is_whole = bracket and (not rest or rest.startswith(":"))
        return (host, rest.removeprefix(":")) if is_whole else (word, "")
    host, colon, port = word.partition(":")
    return (host, port) if colon and ":" not in port else (word, "")


def _address(host: str) -> _Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def ascii_host(host: str) -> str:
    """The name as it stands in DNS and on the wire; what is none stays as it is."""
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def _parse(variable: str, value: str) -> OutboundProxy:
    # What the URL parser says about a value may quote it, so it is not chained: `from None`.
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _malformed(variable) from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise _unsupported(variable, parts.scheme)
    if not _HOST.fullmatch(host) or port == 0 or parts.query or parts.fragment:
        raise _malformed(variable)
    proxy = OutboundProxy(
        parts.scheme,
        ascii_host(host),
        port or _DEFAULT_PORTS[parts.scheme],
        variable,
        *_credentials(parts),
    )
    _check_socks_credentials(proxy)
    return proxy


def _credentials(parts: SplitResult) -> tuple[str | None, str]:
    if parts.username is None:
        return None, ""
    return unquote(parts.username), unquote(parts.password or "")


def _check_socks_credentials(proxy: OutboundProxy) -> None:
    credentials = (proxy.user or "", proxy.password)
    if proxy.speaks_socks and any(
        len(text.encode()) > _MAX_SOCKS_CREDENTIAL for text in credentials
    ):
        raise UsageError(
            f"the user name or the password in {proxy.variable} is longer than the 255 bytes that"
            " SOCKS5 can carry",
            next_step=f"Correct the credentials in {proxy.variable}.",
        )


def _malformed(variable: str) -> UsageError:
    return UsageError(
        f"the environment variable {variable} has no URL of an outbound proxy"
        " (its value is not shown, since there may be a password in it)",
        next_step=f"Set {variable} to something like http://proxy.example.com:3128, or to"
        " http://USER:PASSWORD@HOST:PORT with special characters percent-encoded; or unset it.",
    )


def _unsupported(variable: str, scheme: str) -> UsageError:
    return UsageError(
        f"the environment variable {variable} names an outbound proxy of the unsupported kind"
        f" {scheme!r}",
        next_step=f"Set {variable} to a URL that begins with {', '.join(_DEFAULT_PORTS)}"
        " and ://, or unset it.",
    )
