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

Tested in `tests/unit/protocols/test_client_first.py` for all of them, split at every byte.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from dbproxy.errors import DBProxyError
from dbproxy.protocols.base import Carry, DatabaseProtocol, Prologue, PrologueEvent
from dbproxy.protocols.first_words import FirstWords, begins_tls
from dbproxy.protocols.misuse import tls_missing
from dbproxy.protocols.recognise import Undecided, recognise
from dbproxy.protocols.wire import Answering, Wire
from dbproxy.settings import Mode

__all__ = ["ClientFirst", "ClientFirstPrologue"]

_KEPT: Final = 4096
"""Bytes of the client's first message that a refusal may refer to."""


class ClientFirstPrologue(FirstWords):
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
        super().__init__(readable_name, mode, inside_tls=inside_tls)
        self._own = wire
        self._received = b""
        self._done = False

    def _read(self, data: bytes) -> Sequence[PrologueEvent]:
        if self._done or not data:
            return []
        self._received += data
        if begins_tls(self._received):
            event = self._on_client_hello(self._received)
        elif self._is_own():
            event = self._on_own()
        else:
            self._check_foreign(self._received)
            return []
        self._done, self._received = True, self._received[:_KEPT]
        return [event]

    def _is_own(self) -> bool:
        """The port's own protocol comes before all others, and it may take what nobody knows."""
        if self._own.begins(self._received):
            return True
        return self._own.may_begin(self._received) and self._is_known_to_nobody()

    def _is_known_to_nobody(self) -> bool:
        with suppress(Undecided):
            return recognise(self._received) is None
        return False

    def _on_own(self) -> PrologueEvent:
        if self._mode is not Mode.TUNNEL and not self._inside_tls:
            raise tls_missing()
        return Carry(self._received, authenticate=True)

    @property
    def _kept(self) -> bytes:
        return self._received

    def _refusal_in_own_words(self, error: DBProxyError) -> bytes:
        return self._own.refusal(self._received, error)

    def further(self, error: DBProxyError) -> Answering | None:
        if self._started and self._speaks is None:
            return self._own.further(self._received, error)
        return super().further(error)


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
