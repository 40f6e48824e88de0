"""A protocol that dbproxy knows nothing about: its bytes are carried as they are.

Whoever gives `--alpn` knows what Teleport takes. TLS is the only thing that is looked for, where
the mode has something to say about it. A refusal is in the words of a protocol that the client's
first bytes are known from, if there is one; else the connection is closed, and the log says why.

The client is expected to speak first.
"""

from collections.abc import Sequence

from dbproxy.errors import DBProxyError
from dbproxy.protocols.base import Carry, Prologue, PrologueEvent
from dbproxy.protocols.client_command import ClientCommand
from dbproxy.protocols.client_first import ClientFirst, ClientFirstPrologue
from dbproxy.protocols.connection_facts import ConnectionFacts, host_of
from dbproxy.protocols.recognise import recognise_at_once
from dbproxy.protocols.wire import Answering, Wire
from dbproxy.settings import Mode

__all__ = ["UnknownProtocol"]


class _Bytes(Wire):
    """Whatever a client says, but for TLS, which is asked for first."""

    beginning = "bytes"

    def begins(self, data: bytes) -> bool | None:
        return None if data in (b"", b"\x16") else True

    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        known = recognise_at_once(received)
        return known.refusal(received, error) if known is not None else b""

    def further(self, received: bytes, error: DBProxyError) -> Answering | None:
        known = recognise_at_once(received)
        return known.further(received, error) if known is not None else None


class _PassingPrologue(ClientFirstPrologue):
    """For passthrough: the client talks with Teleport about everything, TLS included."""

    def _read(self, data: bytes) -> Sequence[PrologueEvent]:
        if self._received or not data:
            return []
        self._received = data
        return [Carry(data, authenticate=False)]


class UnknownProtocol(ClientFirst):
    """A protocol of which the name and the ALPN values are all that is known.

    Args:
        name: As in the certificate's route, or as the operator says.
        alpn: The ALPN values to offer, the preferred one first.
    """

    default_port = 0
    wire = _Bytes()

    def __init__(self, name: str, alpn: Sequence[str]) -> None:
        self.name = self.readable_name = name
        self.alpn = alpn

    def prologue(self, mode: Mode, *, inside_tls: bool = False) -> Prologue:
        kind = _PassingPrologue if mode is Mode.PASSTHROUGH else ClientFirstPrologue
        return kind(self.wire, self.readable_name, mode, inside_tls=inside_tls)

    def client(self, facts: ConnectionFacts) -> ClientCommand:
        del facts
        return ClientCommand((), instead=f"none is known for the protocol {self.name}")

    def connect_command(self, facts: ConnectionFacts) -> str:
        place = facts.socket if facts.socket is not None else f"{host_of(facts)} port {facts.port}"
        tls = "without TLS" if facts.plain else "with TLS and the files above"
        return f"the {self.readable_name} client of your choice: {place}, {tls}"
