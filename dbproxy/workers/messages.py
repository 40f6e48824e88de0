"""What a supervisor and its workers say to each other: one JSON object on one line.

Without I/O: bytes in, messages out. Both sides are of the same version (`handover` sees to that),
so whatever is not understood is a bug and never passed over.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import ClassVar, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dbproxy.downstream import ServerCertificate
from dbproxy.errors import Code, DBProxyError
from dbproxy.identity import load_certificates, load_private_key

__all__ = [
    "Begin",
    "Draining",
    "Message",
    "Messages",
    "Mistaken",
    "Ready",
    "Reload",
    "Shown",
    "Stop",
    "StopNow",
    "Stopped",
    "encode",
]

LONGEST: Final = 1 << 20
"""Bytes of a line: a chain of certificates is the longest thing that is said."""
_SUPERVISOR: Final = Path("the supervisor")
"""Named in place of a file, should what it sends not be understood."""


@dataclass(frozen=True, slots=True)
class Message:
    """The base of all messages; the fields are text and whole numbers."""

    kind: ClassVar[str]


@dataclass(frozen=True, slots=True)
class Begin(Message):
    """To a worker, the first one: there is nothing to show to clients."""

    kind: ClassVar[str] = "begin"


@dataclass(frozen=True, slots=True)
class Shown(Message):
    """To a worker, the first one with `--terminate`: what all workers show to clients.

    It is handed over, not made or read by each, so that all show the same one: a worker that comes
    later could find a younger local authority, or other files, than the others began with. It
    travels between two sockets that no other process has, so the key stays in memory.

    Attributes:
        certificates: The leaf and its chain, in PEM.
        private_key: The leaf's key, in PEM.
        ca_file: The file that clients must trust; empty where there is none.
        host: The name that clients should call.
    """

    kind: ClassVar[str] = "shown"
    certificates: str
    private_key: str = field(repr=False)
    ca_file: str
    host: str

    @classmethod
    def of(cls, shown: ServerCertificate) -> Self:
        """What all workers are to show."""
        chain = (shown.certificate, *shown.chain)
        key = shown.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return cls(
            "".join(_pem(certificate) for certificate in chain),
            key.decode(),
            str(shown.ca_file or ""),
            shown.host,
        )

    def certificate(self) -> ServerCertificate:
        """The same as it was before it was sent."""
        leaf, *chain = load_certificates(self.certificates.encode(), _SUPERVISOR)
        key = load_private_key(self.private_key.encode(), _SUPERVISOR)
        ca_file = Path(self.ca_file) if self.ca_file else None
        return ServerCertificate(leaf, tuple(chain), key, ca_file, self.host)


@dataclass(frozen=True, slots=True)
class Reload(Message):
    """To a worker: read the identity again."""

    kind: ClassVar[str] = "reload"


@dataclass(frozen=True, slots=True)
class Stop(Message):
    """To a worker: accept no more, let open connections go on for the drain timeout, end."""

    kind: ClassVar[str] = "stop"


@dataclass(frozen=True, slots=True)
class StopNow(Message):
    """To a worker: end at once."""

    kind: ClassVar[str] = "stop-now"


@dataclass(frozen=True, slots=True)
class Ready(Message):
    """From a worker: it accepts connections."""

    kind: ClassVar[str] = "ready"


@dataclass(frozen=True, slots=True)
class Mistaken(Message):
    """From a worker: it could not begin, for a reason that the operator can put right."""

    kind: ClassVar[str] = "mistaken"
    code: str
    message: str
    next_step: str

    @classmethod
    def of(cls, error: DBProxyError) -> Self:
        """What has been found wrong."""
        return cls(error.code.value, error.message, error.next_step)

    def error(self) -> DBProxyError:
        """The same as an error."""
        return DBProxyError(Code(self.code), self.message, next_step=self.next_step)


@dataclass(frozen=True, slots=True)
class Draining(Message):
    """From a worker: it accepts no more."""

    kind: ClassVar[str] = "draining"
    open_connections: int


@dataclass(frozen=True, slots=True)
class Stopped(Message):
    """From a worker: it ends; that many connections were closed before their end."""

    kind: ClassVar[str] = "stopped"
    ended_early: int


_KINDS: Final[dict[str, type[Message]]] = {
    message.kind: message
    for message in (Begin, Shown, Reload, Stop, StopNow, Ready, Mistaken, Draining, Stopped)
}


def encode(message: Message) -> bytes:
    """The line that says it, with its end."""
    return json.dumps({"kind": message.kind} | asdict(message)).encode() + b"\n"


class Messages:
    """Takes the messages out of a stream of bytes, however it is cut."""

    def __init__(self) -> None:
        self._rest = b""

    def receive(self, data: bytes) -> list[Message]:
        """The messages that `data` completes, in order.

        Raises:
            ValueError: No supervisor and no worker says that. The text does not repeat it.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            raise ValueError(f"more than {LONGEST} bytes without an end of line")
        return [_decode(line) for line in lines]


def _decode(line: bytes) -> Message:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("a line that is not JSON") from None  # which may hold a key
    name = values.pop("kind", None) if isinstance(values, dict) else None
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError("a message of no known kind")
    wanted = {field.name: field.type for field in fields(kind)}
    if {name: type(value) for name, value in values.items()} != wanted:
        raise ValueError(f"a message {kind.kind!r} with the wrong fields")
    return kind(**values)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
