"""Several layers as one.

The first layer is the one at the wire. TLS in TLS, or ping framing in TLS, is a stack of two; a
connection through an HTTP balancer is ping framing in TLS in WebSocket frames in TLS.
"""

from collections.abc import Iterator

from dbproxy.layers.base import ByteData, Layer

__all__ = ["LayerStack"]


class LayerStack(Layer):
    """Layers piled up from the wire to the application; with none, bytes pass unchanged."""

    __slots__ = ("_ended", "_layers", "_passing")

    def __init__(self, *layers: Layer) -> None:
        self._layers = list(layers)
        self._passing: list[bytes] = []
        self._ended = False

    def __iter__(self) -> Iterator[Layer]:
        """The layers, from the wire up."""
        return iter(self._layers)

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
        return any(layer.announces_end for layer in self._layers)

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
        """Ask the layers whether they may end here.

        Those below the topmost one that has ended in-band are not asked: its word is the last one,
        and theirs may still be on its way.
        """
        self._ended = True
        ended = [index for index, layer in enumerate(self._layers) if layer.ended]
        for layer in self._layers[ended[-1] if ended else 0 :]:
            layer.receive_eof()

    def send(self, data: ByteData) -> None:
        if self._layers:
            self._layers[-1].send(data)
        else:
            self._passing.append(bytes(data))

    def send_eof(self) -> None:
        """Tell the topmost layer that can announce the end, and only that one.

        A balancer in between sees the layers below. To it, their end would be the end of the whole
        connection, and it would cut the direction that is still open.
        """
        self._settle()
        for layer in reversed(self._layers):
            if layer.announces_end:
                layer.send_eof()
                return

    def outgoing(self) -> bytes:
        if not self._layers:
            passing, self._passing = self._passing, []
            return passing[0] if len(passing) == 1 else b"".join(passing)
        if len(self._layers) > 1:
            self._settle()
        return self._layers[0].outgoing()

    def _settle(self) -> None:
        """Carry what the upper layers have made down to the layer at the wire."""
        for index in reversed(range(1, len(self._layers))):
            if made := self._layers[index].outgoing():
                self._layers[index - 1].send(made)
