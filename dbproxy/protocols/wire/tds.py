"""TDS, which SQL Server speaks: a client that asks another port, and how it is told.

A client prints errors only after its login, and a conversation about encryption comes before that.
So PRELOGIN is answered, with no encryption, and the LOGIN7 that follows gets the error. A client
that insists on encryption goes away before, and says why.
"""

from typing import Final

from dbproxy.errors import DBProxyError
from dbproxy.protocols.wire.base import Answering, Wire, one_line, starts
from dbproxy.protocols.wire.tds_packets import (
    END_OF_MESSAGE,
    HEADER_SIZE,
    LOGIN7,
    PACKET_SIZE,
    PRELOGIN,
    SERVER_VERSION,
    TABULAR_RESULT,
    Encryption,
    MalformedTDSError,
    MessageReader,
    encode_message,
    login_error,
    prelogin,
    tds_version,
)

__all__ = ["TDSWire"]

_BEGINNING: Final = bytes([PRELOGIN, END_OF_MESSAGE])
_SIZES: Final = range(HEADER_SIZE + 1, PACKET_SIZE + 1)


class TDSWire(Wire):
    """SQL Server."""

    beginning = "a SQL Server PRELOGIN packet"

    def begins(self, data: bytes) -> bool | None:
        verdict = starts(data, _BEGINNING)
        if not verdict or len(data) < 4:
            return None if verdict else verdict
        return int.from_bytes(data[2:4], "big") in _SIZES

    def refusal(self, received: bytes, error: DBProxyError) -> bytes:
        answer = prelogin(SERVER_VERSION, Encryption.NOT_SUPPORTED)
        return encode_message(TABULAR_RESULT, answer) + _Refusing(error).answer(received)

    def further(self, received: bytes, error: DBProxyError) -> Answering:
        refusing = _Refusing(error)
        refusing.answer(received)  # the refusal has done so
        return refusing.answer


class _Refusing:
    """Waits for the client's LOGIN7, which is the last thing that is answered."""

    def __init__(self, error: DBProxyError) -> None:
        self._text = one_line(error)
        self._reader: MessageReader | None = MessageReader()

    def answer(self, data: bytes) -> bytes:
        """The error, if this completes the LOGIN7."""
        if self._reader is None:
            return b""
        self._reader.feed(data)
        try:
            while (message := self._reader.next_message()) is not None:
                if message.kind == LOGIN7:
                    self._reader = None
                    return login_error(self._text, tds_version(message.payload))
        except MalformedTDSError:
            self._reader = None
        return b""
