"""Parting from an upstream whose client is gone, so that what the client said last arrives.

Problem: a client that says COMMIT and is killed has said everything, but much of it may still be in
the system's buffer for the upstream. A socket that is closed over unread bytes is reset, and so is
one that is closed and then spoken to (RFC 1122 §4.2.2.13); a reset destroys what is on its way. An
upstream that answers each statement is such a one.

Choice: our direction is ended, and what the upstream says is received and dropped until it ends as
well. One that does not is left when it takes nothing of what is on its way (how much that is, the
system tells), or when it has everything and then says nothing for a second, or goes on for ten, or
says more than the answers to a client's last statements are: an endless result is not read for
nobody. TLS's close_notify is left out: who breaks off in the middle of something must not look like
one that has ended. Nobody waits for all this: the client is gone, and its record is written.

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
_QUIET: Final = 1.0
"""Seconds without a word in which an upstream that has everything may still be at work."""
_ANSWERS: Final = 16 * 1024 * 1024
"""Bytes that it may say then."""


async def part(stream: LayeredStream) -> None:
    """See to it that what was sent arrives, and close.

    Cancelled, it closes at once.
    """
    try:
        if isinstance(stream.transport, trio.SocketStream):
            await stream.transport.send_eof()
            if await _wait_until_arrived(stream.transport):
                await _wait_until_answered(stream.transport)
    except trio.BrokenResourceError:
        return  # it is gone as well
    finally:
        await stream.abandon()


async def _wait_until_arrived(transport: trio.SocketStream) -> bool:
    """Returns whether all has arrived; otherwise the upstream has ended, or takes nothing."""
    least, until, pause = inf, inf, _FIRST_LOOK
    while left := bytes_on_their_way(transport):
        if left < least:
            least, until = left, trio.current_time() + BUSY
        elif trio.current_time() >= until:
            return False
        with trio.move_on_after(pause) as look:
            if not await transport.receive_some():
                return False
        if look.cancelled_caught:
            pause = min(2 * pause, _LONGEST)
    return True


async def _wait_until_answered(transport: trio.SocketStream) -> None:
    """Closing now would be an upstream's error at its next answer, and keep it from the rest."""
    dropped, end = 0, trio.current_time() + BUSY
    with trio.CancelScope() as patience:
        while dropped < _ANSWERS:
            patience.deadline = min(trio.current_time() + _QUIET, end)
            if not (said := await transport.receive_some()):
                return
            dropped += len(said)
