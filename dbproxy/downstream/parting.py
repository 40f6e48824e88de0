"""Parting from an upstream whose client is gone, so that what the client said last arrives.

Problem: a client that says COMMIT and is killed has said everything, but much of it may still be in
the system's buffer for the upstream. A socket that is closed over unread bytes is reset, and so is
one that is closed and then spoken to (RFC 1122 §4.2.2.13); a reset destroys what is on its way. An
upstream that answers each statement is such a one.

Choice: our direction is ended, and what the upstream says is received and dropped until nothing is
on its way any more. How much that is, the system tells; where it does not, the upstream's end is
waited for. TLS's close_notify is left out: the client has broken off, and who breaks off in the
middle of something must not look like one that has ended. Nobody waits for all this: the client is
gone, and its record is written.

Tested in `tests/unit/downstream/test_parting.py`.
"""

from math import inf
from typing import Final

import trio

from dbproxy.relay import BUSY, LayeredStream, bytes_on_their_way

__all__ = ["part"]

_FIRST_LOOK: Final = 0.002
_LONGEST: Final = 0.1
"""Seconds between looks at what is on its way, from the first to the last ones."""


async def part(stream: LayeredStream) -> None:
    """See to it that what was sent arrives, and close.

    It takes as long as the peer's system goes on taking bytes. Cancelled, it closes at once.
    """
    try:
        if isinstance(stream.transport, trio.SocketStream):
            await _see_off(stream.transport)
    except trio.BrokenResourceError:
        return  # it is gone as well
    finally:
        await stream.abandon()


async def _see_off(transport: trio.SocketStream) -> None:
    await transport.send_eof()
    least, until, pause = inf, inf, _FIRST_LOOK
    while left := bytes_on_their_way(transport):
        if left < least:
            least, until = left, trio.current_time() + BUSY
        elif trio.current_time() >= until:
            return
        with trio.move_on_after(pause) as look:
            if not await transport.receive_some():
                return
        if look.cancelled_caught:
            pause = min(2 * pause, _LONGEST)
