"""What a layer is.

A layer stands between the *wire* (the side nearer to the socket) and the *application* (the side
nearer to the database protocol). It turns wire bytes into application bytes and back, keeps the
state that this takes, and never touches a socket or a clock. So one stack of layers serves the
handshake, the relay and the tests alike.
"""

from abc import ABC, abstractmethod
from typing import TypeAlias

__all__ = ["ByteData", "Layer", "LayerError", "TruncatedError"]

ByteData: TypeAlias = bytes | bytearray | memoryview


class LayerError(Exception):
    """The peer broke the rules of a layer; nothing more can be received through it."""


class TruncatedError(LayerError):
    """The wire ended where the layer does not allow an end, so bytes may be missing."""


class Layer(ABC):
    """One byte transform on a connection.

    `receive` takes wire bytes and returns application bytes. `send` takes application bytes; the
    wire bytes that it makes, and those that `receive` makes on its own account (a handshake, an
    answer to a ping), wait until `outgoing` hands them out. The order of `outgoing` is the order
    in which they must reach the wire.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def handshaking(self) -> bool:
        """True until application bytes can be sent."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """True once no more application bytes will come.

        `receive_eof` then raises if that is not how the layer may end.
        """

    @property
    @abstractmethod
    def announces_end(self) -> bool:
        """Whether `send_eof` makes bytes that tell the peer about the end."""

    @abstractmethod
    def start(self) -> None:
        """Begin: makes the first outgoing bytes, if this side speaks first."""

    @abstractmethod
    def receive(self, data: ByteData) -> bytes:
        """Take wire bytes and return the application bytes that are complete with them.

        An error behind good bytes is kept until the next call, so that no byte is lost.

        Raises:
            LayerError: The peer broke the rules. `outgoing` may hold a last word for the peer.
        """

    @abstractmethod
    def receive_eof(self) -> None:
        """Take note that the wire has ended.

        Raises:
            TruncatedError: The layer does not allow an end here.
        """

    @abstractmethod
    def send(self, data: ByteData) -> None:
        """Take application bytes to send; never called while `handshaking`."""

    @abstractmethod
    def send_eof(self) -> None:
        """Tell the peer that no more application bytes will come, where the layer can say so."""

    @abstractmethod
    def outgoing(self) -> bytes:
        """Return the wire bytes made so far and forget them; empty when there are none."""
