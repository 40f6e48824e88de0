"""One end of the channel between the supervisor and a worker."""

import socket
from typing import Final

import trio

from dbproxy.workers.messages import Message, Messages, encode

__all__ = ["Channel"]

_BATCH: Final = 1 << 16


class Channel:
    """Sends messages without ever waiting, and receives them until the other side is gone.

    Args:
        end: One of a pair of connected stream sockets; `close` closes it.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._unsent = b""
        self._messages = Messages()

    def send(self, message: Message) -> None:
        """Send a message, as far as there is room; the rest goes out with the next one.

        There is room for thousands of messages, so only what a process that hangs would not read
        anyway is left over. To a side that is gone nothing is sent, which its end tells better.
        """
        self._unsent += encode(message)
        try:
            sent = self._end.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]

    async def receive(self) -> list[Message]:
        """The next messages, one at least; none once the other side is gone.

        Cancelled, it has taken nothing.

        Raises:
            ValueError: The other side says what nobody says.
        """
        messages: list[Message] = []
        while not messages and (data := await self._receive_batch()):
            messages = self._messages.receive(data)
        return messages

    def close(self) -> None:
        """Close this end, which tells the other side; may be called again."""
        self._end.close()

    async def _receive_batch(self) -> bytes:
        """What has come, waiting for it; nothing at the end."""
        while True:
            await trio.lowlevel.wait_readable(self._end)
            try:
                return self._end.recv(_BATCH)
            except BlockingIOError:
                continue
            except ConnectionError:  # it ended with something unread
                return b""
