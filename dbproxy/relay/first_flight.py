"""What a client has said before the upstream's first byte, kept so that it can be said again.

Until that byte nobody has consumed what the client sent: an upstream that ends before has rejected
our certificate, or is being restarted. So the same bytes can be sent to the next one, and the
client never knows.
"""

from typing import Final

__all__ = ["FirstFlight"]

LIMIT: Final = 64 * 1024
"""Bytes kept for a connection at most: a first message is small. A client that says more before it
hears anything is carried all the same, but has one try."""


class FirstFlight:
    """The client's bytes so far, as long as they are few.

    Args:
        data: What has been received before the relay began.
    """

    __slots__ = ("_chunks", "_complete", "_size")

    def __init__(self, data: bytes = b"") -> None:
        self._chunks = [data]
        self._size = len(data)
        self._complete = self._size <= LIMIT

    @property
    def replayable(self) -> bool:
        """Whether everything that the client has said is here, and nothing was answered."""
        return self._complete

    @property
    def data(self) -> bytes:
        """What the client has said up to now; empty after `close`."""
        return b"".join(self._chunks)

    def note(self, data: bytes) -> None:
        """Keep more of the client's bytes, which are about to be sent."""
        if not self._complete:
            return
        self._size += len(data)
        if self._size > LIMIT:
            self.close()
        else:
            self._chunks.append(data)

    def close(self) -> None:
        """The upstream has answered, or the client has said too much: nothing is kept any more."""
        self._complete = False
        self._chunks.clear()
