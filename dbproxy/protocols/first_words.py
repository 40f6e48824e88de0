"""What the prologues have in common of all protocols in which the client speaks first.

Whatever a protocol's own first messages are, a client may begin with TLS or with another protocol
instead, and may have to be told no: in TLS's words, in the other protocol's, or in the port's own.

A client that says nothing may be waiting to be greeted, as MySQL's do. When its time is over it is
told in their words what this port carries; no other client has asked for anything by then.

Tested with each of them: `test_client_first.py`, `test_postgres.py` and `test_sqlserver.py` in
`tests/unit/protocols/`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from dbproxy.errors import DBProxyError
from dbproxy.protocols.base import Carry, Prologue, PrologueEvent, StartTLS
from dbproxy.protocols.misuse import foreign, tls_inside_tls, tls_on_plain_port
from dbproxy.protocols.recognise import Undecided, recognise
from dbproxy.protocols.wire import Answering, Wire
from dbproxy.protocols.wire.mysql import told_to_the_silent
from dbproxy.protocols.wire.tls import TLS
from dbproxy.settings import Mode

__all__ = ["FirstWords", "begins_tls"]

_TLS: Final = TLS()


def begins_tls(data: bytes) -> bool:
    """Whether these are the first bytes of a ClientHello."""
    return bool(_TLS.begins(data))


class FirstWords(Prologue):
    """Reads the first bytes of one client that speaks first.

    Subclasses give `_read`, `_kept` and `_refusal_in_own_words`.

    Args:
        readable_name: What this port carries, in texts.
        mode: The listener's mode.
        inside_tls: Whether the bytes come out of TLS that ends here.
    """

    def __init__(self, readable_name: str, mode: Mode, *, inside_tls: bool = False) -> None:
        self._readable_name = readable_name
        self._mode = mode
        self._inside_tls = inside_tls
        self._started = False
        self._speaks: Wire | None = None  # instead of the port's own protocol

    @property
    def started(self) -> bool:
        return self._started

    def receive(self, data: bytes) -> Sequence[PrologueEvent]:
        self._started = self._started or bool(data)
        return self._read(data)

    @abstractmethod
    def _read(self, data: bytes) -> Sequence[PrologueEvent]:
        """Take the client's bytes, as `receive` does."""

    @property
    @abstractmethod
    def _kept(self) -> bytes:
        """What the client has sent, as far as it is still here."""

    @abstractmethod
    def _refusal_in_own_words(self, error: DBProxyError) -> bytes:
        """What to send to a client that speaks the port's protocol."""

    def _on_client_hello(self, received: bytes) -> PrologueEvent:
        self._speaks = _TLS
        if self._inside_tls:
            raise tls_inside_tls()
        if self._mode is Mode.TUNNEL:
            raise tls_on_plain_port()
        if self._mode is Mode.TERMINATE:
            return StartTLS(received)
        return Carry(received, authenticate=False)

    def _check_foreign(self, beginning: bytes) -> None:
        """Recognise what is not the port's own, as soon as its bytes tell.

        Raises:
            ClientError: They do.
        """
        with suppress(Undecided):
            self._speaks = recognise(beginning)
            raise foreign(self._readable_name, self._speaks, beginning)

    def refusal(self, error: DBProxyError) -> bytes:
        if not self._started:
            return b"" if self._inside_tls else told_to_the_silent(error, self._readable_name)
        if self._speaks is not None:
            return self._speaks.refusal(self._kept, error)
        return self._refusal_in_own_words(error)

    def further(self, error: DBProxyError) -> Answering | None:
        return None if self._speaks is None else self._speaks.further(self._kept, error)
