"""What the protocols have in common whose clients speak first, and whose TLS comes before all else.

A client's first bytes are either a TLS ClientHello or the beginning of the protocol itself:

| first bytes     | passthrough             | terminate               | tunnel                  |
|-----------------|-------------------------|-------------------------|-------------------------|
| ClientHello     | carried                 | TLS ends here           | refused: plain port     |
| the protocol    | refused: needs TLS      | carried, within TLS     | carried                 |
| another one     | refused, in its words   | refused, in its words   | refused, in its words   |
| nobody knows it | refused                 | refused                 | refused                 |

Some protocols let bytes pass that nobody knows, where TLS is not missing: see `Wire.may_begin`.

A few bytes tell which it is, and they hold all that a refusal has to refer to. So the prologue does
not wait for the whole first message: the upstream is dialled while the rest is on its way. A
refusal may be sent before that rest has come; the client reads it as the answer to its first
message.

A client that says nothing may be waiting to be greeted, as MySQL's do. When its time is over it is
told in their words what this port carries; no other client has asked for anything by then.

Tested in `tests/unit/protocols/test_client_first.py` for all of them, split at every byte.
"""

from collections.abc import Sequence
from typing import Final

from dbproxy.errors import DBProxyError
from dbproxy.protocols.base import (
    Carry,
    DatabaseProtocol,
    Prologue,
    PrologueEvent,
    StartTLS,
)
from dbproxy.protocols.misuse import (
    foreign,
    tls_inside_tls,
    tls_missing,
    tls_on_plain_port,
)
from dbproxy.protocols.recognise import Undecided, recognise
from dbproxy.protocols.wire import Answering, Wire
from dbproxy.protocols.wire.mysql import told_to_the_silent
from dbproxy.protocols.wire.tls import TLS
from dbproxy.settings import Mode

__all__ = ["ClientFirst", "ClientFirstPrologue"]

_KEPT: Final = 4096
"""Bytes of the client's first message that a refusal may refer to."""


class ClientFirstPrologue(Prologue):
    """Reads the first bytes of one client.

    Args:
        wire: What this port carries.
        readable_name: Its name in texts.
        mode: The listener's mode.
        inside_tls: Whether the bytes come out of TLS that ends here.
    """

    def __init__(
        self, wire: Wire, readable_name: str, mode: Mode, *, inside_tls: bool = False
    ) -> None:
        self._own = wire
        self._readable_name = readable_name
        self._mode = mode
        self._inside_tls = inside_tls
        self._received = b""
        self._speaks = wire
        self._done = False

    @property
    def started(self) -> bool:
        return bool(self._received)

    def receive(self, data: bytes) -> Sequence[PrologueEvent]:
        if self._done or not data:
            return []
        self._received += data
        try:
            wire = self._recognised()
        except Undecided:
            return []
        event = self._on_beginning(wire)
        self._done, self._received = True, self._received[:_KEPT]
        return [event]

    def _recognised(self) -> Wire | None:
        """What the client speaks; the port's own protocol before all others, but for TLS."""
        is_tls = _TLS.begins(self._received)
        if is_tls:
            return _TLS
        if self._own.begins(self._received):
            return self._own
        found = recognise(self._received)
        if found is None and self._own.may_begin(self._received):
            return self._own
        return found

    def _on_beginning(self, wire: Wire | None) -> PrologueEvent:
        if wire is None:
            raise foreign(self._readable_name, None, self._received)
        self._speaks = wire
        if wire is _TLS:
            return self._on_client_hello()
        if wire is not self._own:
            raise foreign(self._readable_name, wire, self._received)
        if self._mode is not Mode.TUNNEL and not self._inside_tls:
            raise tls_missing()
        return Carry(self._received, authenticate=True)

    def _on_client_hello(self) -> PrologueEvent:
        if self._inside_tls:
            raise tls_inside_tls()
        if self._mode is Mode.TUNNEL:
            raise tls_on_plain_port()
        if self._mode is Mode.TERMINATE:
            return StartTLS(self._received)
        return Carry(self._received, authenticate=False)

    def refusal(self, error: DBProxyError) -> bytes:
        if self.started:
            return self._speaks.refusal(self._received, error)
        return b"" if self._inside_tls else told_to_the_silent(error, self._readable_name)

    def further(self, error: DBProxyError) -> Answering | None:
        return self._speaks.further(self._received, error) if self.started else None


_TLS: Final = TLS()


class ClientFirst(DatabaseProtocol):
    """A protocol whose clients speak first, with TLS before all else.

    Subclasses give what `DatabaseProtocol` asks for, and `wire`.
    """

    wire: Wire
    """How clients speak it."""
    tls_protocol: bytes | None = None
    """The ALPN value that clients expect, if they expect one."""

    def prologue(self, mode: Mode, *, inside_tls: bool = False) -> Prologue:
        return ClientFirstPrologue(self.wire, self.readable_name, mode, inside_tls=inside_tls)

    def server_alpn(self) -> bytes | None:
        return self.tls_protocol
