"""Outbound proxies that say what a test tells them to, and connect nowhere."""

from contextlib import suppress
from dataclasses import dataclass, field

import trio
from loopback import Handler

CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass
class StandIn:
    """Takes one message after the other and answers each with the next answer.

    Attributes:
        answers: What it says, one for each message; None stalls for ever, `b""` closes.
        asked: The messages that came.
        stalled: Set when it stalls.
        echoes: Whether it sends back what comes behind the last answer.
    """

    answers: list[bytes | None]
    asked: list[bytes] = field(default_factory=list)
    stalled: trio.Event = field(default_factory=trio.Event)
    echoes: bool = True

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one client; one that goes away is no error."""
        with suppress(trio.BrokenResourceError):
            for answer in self.answers:
                self.asked.append(bytes(await stream.receive_some()))
                if answer is None:
                    self.stalled.set()
                    await trio.sleep_forever()
                if not answer:
                    return
                await stream.send_all(answer)
            while self.echoes and (data := bytes(await stream.receive_some())):
                await stream.send_all(data)

    @property
    def handler(self) -> Handler:
        """For `loopback.open_server`."""
        return self.serve
