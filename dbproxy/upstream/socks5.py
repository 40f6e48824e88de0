"""SOCKS5, the client's side, without I/O (RFC 1928, RFC 1929).

```
client                                             proxy
05 n METHODS…                                 →
                                              ←    05 METHOD
01 len USER len PASSWORD   (METHOD 02 only)   →
                                              ←    01 STATUS
05 01 00 ATYP ADDRESS PORT                    →
                                              ←    05 REPLY 00 ATYP ADDRESS PORT
```

A name is passed on as a name, and the proxy resolves it, for `socks5://` as for `socks5h://`.
Other programs resolve names themselves for the former; Teleport's tools do not (Go,
`golang.org/x/net/proxy`), and where a proxy is needed, names often resolve only behind it.

Tested in `tests/unit/upstream/test_socks5.py`, split at every byte.
"""

from enum import Enum, auto, unique
from ipaddress import IPv4Address, ip_address
from typing import Final

from dbproxy.upstream.http1 import looks_like
from dbproxy.upstream.outbound_proxy import ascii_host

__all__ = ["SOCKS5Client", "SOCKS5Error", "SOCKS5Failure"]

_VERSION: Final = 5
_CREDENTIALS_VERSION: Final = 1
_CONNECT: Final = 1
_NO_CREDENTIALS: Final = 0
_USER_AND_PASSWORD: Final = 2
_NO_METHOD: Final = 0xFF
_IPV4, _NAME, _IPV6 = 1, 3, 4
_ADDRESS_SIZES: Final = {_IPV4: 4, _IPV6: 16}
_PORT_SIZE: Final = 2
_MAX_NAME: Final = 255


@unique
class SOCKS5Failure(Enum):
    """In which of the ways a SOCKS5 proxy did not connect us."""

    NOT_SOCKS = auto()
    """It does not speak SOCKS5."""
    CREDENTIALS_WANTED = auto()
    """It takes nobody without user name and password, or not by the methods offered."""
    CREDENTIALS_REJECTED = auto()
    """It did not accept user name and password."""
    REFUSED = auto()
    """It will not connect us, or says nothing about why it could not."""
    TARGET_UNREACHABLE = auto()
    """It tried to connect us and could not."""
    BROKEN_OFF = auto()
    """It ended before it had answered, as what is being restarted may do."""


_REPLIES: Final = {
    1: (SOCKS5Failure.REFUSED, "general failure"),
    2: (SOCKS5Failure.REFUSED, "not allowed by its rules"),
    3: (SOCKS5Failure.TARGET_UNREACHABLE, "network unreachable"),
    4: (SOCKS5Failure.TARGET_UNREACHABLE, "host unreachable"),
    5: (SOCKS5Failure.TARGET_UNREACHABLE, "connection refused"),
    6: (SOCKS5Failure.TARGET_UNREACHABLE, "time to live expired"),
    7: (SOCKS5Failure.REFUSED, "it does not support connections of this kind"),
    8: (SOCKS5Failure.REFUSED, "it does not support addresses of this kind"),
}
"""RFC 1928 §6."""


class SOCKS5Error(Exception):
    """The proxy did not connect us.

    Attributes:
        failure: In which way.
        reason: The rest of a sentence that begins with "the outbound proxy".
    """

    def __init__(self, failure: SOCKS5Failure, reason: str) -> None:
        super().__init__(reason)
        self.failure = failure
        self.reason = reason


class _State(Enum):
    METHOD = auto()
    CREDENTIALS = auto()
    REPLY = auto()
    CONNECTED = auto()


class SOCKS5Client:
    """Asks a SOCKS5 proxy for one connection.

    Args:
        host: Where to: a name or an IP address.
        port: Where to.
        user: With it, the proxy may ask for the credentials.
        password: What goes with the user.

    Raises:
        SOCKS5Error: The name is longer than SOCKS5 can carry.
    """

    def __init__(self, host: str, port: int, user: str | None = None, password: str = "") -> None:
        self._request = bytes([_VERSION, _CONNECT, 0]) + _address(host) + port.to_bytes(2, "big")
        self._credentials = None if user is None else _credentials(user, password)
        methods = [_NO_CREDENTIALS] if user is None else [_NO_CREDENTIALS, _USER_AND_PASSWORD]
        self._methods = bytes(methods)
        self._outgoing = bytes([_VERSION, len(methods)]) + self._methods
        self._received = b""
        self._state = _State.METHOD

    @property
    def connected(self) -> bool:
        """Whether what follows are the bytes of the connection."""
        return self._state is _State.CONNECTED

    @property
    def trailing(self) -> bytes:
        """The bytes of the connection that have been received already, once it is `connected`."""
        return self._received if self.connected else b""

    def outgoing(self) -> bytes:
        """The bytes to send to the proxy now; each is returned once."""
        outgoing, self._outgoing = self._outgoing, b""
        return outgoing

    def receive(self, data: bytes) -> None:
        """Take bytes from the proxy; `b""` says that it has closed the connection.

        Raises:
            SOCKS5Error: It will not connect us, or does not speak SOCKS5.
        """
        self._received += data
        while self._step():
            pass
        if not data and not self.connected:
            raise SOCKS5Error(
                SOCKS5Failure.BROKEN_OFF,
                "closed the connection in the middle of the SOCKS5 handshake",
            )

    def _step(self) -> bool:
        """Take one message, if it is complete."""
        match self._state:
            case _State.METHOD:
                return self._take_method()
            case _State.CREDENTIALS:
                return self._take_verdict()
            case _State.REPLY:
                return self._take_reply()
            case _State.CONNECTED:
                return False

    def _take_method(self) -> bool:
        self._check_version()
        if len(self._received) < 2:
            return False
        method = self._received[1]
        if method == _NO_METHOD:
            raise SOCKS5Error(SOCKS5Failure.CREDENTIALS_WANTED, self._no_method())
        if method not in self._methods:
            raise _not_socks(f"chose the authentication method {method}, which was not offered")
        self._received = self._received[2:]
        if method == _NO_CREDENTIALS:
            self._outgoing, self._state = self._request, _State.REPLY
        else:
            assert self._credentials is not None  # noqa: S101 - the method is offered with them only
            self._outgoing, self._state = self._credentials, _State.CREDENTIALS
        return True

    def _no_method(self) -> str:
        if self._credentials is None:
            return "requires credentials"
        return "accepts neither a connection without credentials nor user name and password"

    def _take_verdict(self) -> bool:
        if len(self._received) < 2:
            return False
        version, status = self._received[:2]
        if version != _CREDENTIALS_VERSION:
            raise _not_socks(f"answered the credentials with version {version}")
        if status:
            raise SOCKS5Error(SOCKS5Failure.CREDENTIALS_REJECTED, "rejected the credentials")
        self._received = self._received[2:]
        self._outgoing, self._state = self._request, _State.REPLY
        return True

    def _take_reply(self) -> bool:
        self._check_version()
        if len(self._received) >= 2 and (reply := self._received[1]):
            # Some proxies send nothing behind the reply of a failure.
            failure, words = _REPLIES.get(reply, (SOCKS5Failure.REFUSED, "a reply of its own"))
            raise SOCKS5Error(failure, f"answered with SOCKS5 reply {reply} ({words})")
        size = _reply_size(self._received)
        if size is None or len(self._received) < size:
            return False
        self._received = self._received[size:]
        self._state = _State.CONNECTED
        return True

    def _check_version(self) -> None:
        if self._received and self._received[0] != _VERSION:
            kind = looks_like(self._received) or _http(self._received)
            raise _not_socks("does not speak SOCKS5" + (f": it looks like {kind}" * bool(kind)))


def _http(beginning: bytes) -> str | None:
    return "an HTTP server" if beginning.startswith(b"H") else None


def _not_socks(reason: str) -> SOCKS5Error:
    return SOCKS5Error(SOCKS5Failure.NOT_SOCKS, reason)


def _reply_size(reply: bytes) -> int | None:
    """How long a reply is, as far as what has come of it tells."""
    before_address = 4
    if len(reply) < before_address + 1:
        return None
    kind = reply[3]
    if kind == _NAME:
        return before_address + 1 + reply[4] + _PORT_SIZE
    if kind not in _ADDRESS_SIZES:
        raise _not_socks(f"sent an address of the unknown type {kind}")
    return before_address + _ADDRESS_SIZES[kind] + _PORT_SIZE


def _address(host: str) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        name = ascii_host(host).encode()
        if len(name) > _MAX_NAME:
            raise SOCKS5Error(
                SOCKS5Failure.REFUSED, "cannot be asked for a name of more than 255 bytes"
            ) from None
        return bytes([_NAME, len(name)]) + name
    return bytes([_IPV4 if isinstance(address, IPv4Address) else _IPV6]) + address.packed


def _credentials(user: str, password: str) -> bytes:
    return bytes([_CREDENTIALS_VERSION]) + b"".join(
        bytes([len(text)]) + text for text in (user.encode(), password.encode())
    )
