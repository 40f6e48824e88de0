"""TLS records in TDS packets: how SQL Server's clients shake hands before TDS 8.0.

Until the handshake is over, each side puts its TLS records into packets of the type that PRELOGIN
has; after that the records go onto the wire as they are ([MS-TDS] 3.2.5.2). So this layer goes
below TLS, packs what is sent until it is told to stop, and unpacks what is received as long as it
comes packed: a packet begins with 0x12, and no TLS record does.

Tested in `tests/unit/layers/test_tds.py`.
"""

from typing import Final

from dbproxy.layers.base import ByteData, Layer, LayerError, TruncatedError

__all__ = ["TDSHandshakeError", "TDSHandshakeLayer"]

_PRELOGIN: Final = 0x12
_END_OF_MESSAGE: Final = 0x01
_HEADER_SIZE: Final = 8
_LARGEST_PAYLOAD: Final = 4096 - _HEADER_SIZE
"""Of a packet before the login has agreed on another size ([MS-TDS] 2.2.3.1.3)."""


class TDSHandshakeError(LayerError):
    """A packet of the handshake is not what it must be."""


class TDSHandshakeLayer(Layer):
    """Packs and unpacks TLS records until the handshake is over."""

    def __init__(self) -> None:
        self._packs = True
        self._unpacks = True
        self._buffer = bytearray()
        self._outgoing: list[bytes] = []

    def finish(self) -> None:
        """The handshake is over, and its last bytes have left: records are sent as they are."""
        self._packs = False

    @property
    def handshaking(self) -> bool:
        return False

    @property
    def ended(self) -> bool:
        return False

    @property
    def announces_end(self) -> bool:
        return False

    def start(self) -> None:
        """Do nothing: the client begins."""

    def receive(self, data: ByteData) -> bytes:
        if not self._unpacks:
            return bytes(data)
        self._buffer += data
        unpacked = bytearray()
        while self._buffer:
            if self._buffer[0] != _PRELOGIN:
                self._unpacks = False
                unpacked += self._buffer
                self._buffer.clear()
            elif (payload := self._next_payload()) is not None:
                unpacked += payload
            else:
                break
        return bytes(unpacked)

    def _next_payload(self) -> bytes | None:
        if len(self._buffer) < _HEADER_SIZE:
            return None
        length = int.from_bytes(self._buffer[2:4], "big")
        if length < _HEADER_SIZE:
            raise TDSHandshakeError(f"a TDS packet of {length} bytes")
        if len(self._buffer) < length:
            return None
        payload = bytes(self._buffer[_HEADER_SIZE:length])
        del self._buffer[:length]
        return payload

    def receive_eof(self) -> None:
        if self._buffer:
            raise TruncatedError("the connection ended in the middle of a TDS packet")

    def send(self, data: ByteData) -> None:
        if not self._packs:
            self._outgoing.append(bytes(data))
            return
        view = memoryview(data)
        for number, start in enumerate(range(0, len(view), _LARGEST_PAYLOAD), start=1):
            payload = view[start : start + _LARGEST_PAYLOAD]
            status = _END_OF_MESSAGE if start + len(payload) == len(view) else 0
            length = (_HEADER_SIZE + len(payload)).to_bytes(2, "big")
            header = bytes([_PRELOGIN, status, *length, 0, 0, number % 256, 0])
            self._outgoing.append(header + payload)

    def send_eof(self) -> None:
        """Do nothing: TLS announces the end."""

    def outgoing(self) -> bytes:
        outgoing, self._outgoing = self._outgoing, []
        return b"".join(outgoing)
