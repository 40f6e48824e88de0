"""Several layers as one.

The first layer is the one at the wire. TLS in TLS, or ping framing in TLS, is a stack of two.
"""

from dbproxy.layers.base import ByteData, Layer

__all__ = ["LayerStack"]


class LayerStack(Layer):
    """Layers piled up from the wire to the application; with none, bytes pass unchanged."""

    def __init__(self, *layers: Layer) -> None:
        self._layers = list(layers)
        self._passing: list[bytes] = []
        self._ended = False

    def push(self, layer: Layer) -> None:
        """Put `layer` on top, nearest to the application; the caller starts it."""
        self._layers.append(layer)

    @property
    def handshaking(self) -> bool:
        return any(layer.handshaking for layer in self._layers)

    @property
    def ended(self) -> bool:
        return self._ended or any(layer.ended for layer in self._layers)

    @property
    def announces_end(self) -> bool:
        """True when some layer can tell the peer about the end of the bytes in-band."""
        return bool(self._layers)

    def start(self) -> None:
        """Start the layer on top."""
        if self._layers:
            self._layers[-1].start()

    def receive(self, data: ByteData) -> bytes:
        received: ByteData = data
        for layer in self._layers:
            received = layer.receive(received)
        return bytes(received)

    def receive_eof(self) -> None:
        self._ended = True
        for layer in self._layers:
            layer.receive_eof()

    def send(self, data: ByteData) -> None:
        if self._layers:
            self._layers[-1].send(data)
        else:
            self._passing.append(bytes(data))

    def send_eof(self) -> None:
        for index in reversed(range(len(self._layers))):
            self._settle()
            self._layers[index].send_eof()

    def outgoing(self) -> bytes:
        if not self._layers:
            passing, self._passing = self._passing, []
            return passing[0] if len(passing) == 1 else b"".join(passing)
        self._settle()
        return self._layers[0].outgoing()

    def _settle(self) -> None:
        """Carry what the upper layers have made down to the layer at the wire."""
        for index in reversed(range(1, len(self._layers))):
            if made := self._layers[index].outgoing():
                self._layers[index - 1].send(made)
