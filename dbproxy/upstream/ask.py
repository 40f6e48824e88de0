"""A second look at a server that closed its first connection without a word.

PostgreSQL does so when it gets a ClientHello, and so does a Teleport Proxy that knows none of the
ALPN protocols offered. PostgreSQL answers a question in its own protocol.

Tested in `tests/unit/upstream/test_recognise.py`.
"""

from collections.abc import Awaitable, Callable

import trio

from dbproxy.errors import UpstreamError
from dbproxy.upstream.recognise import POSTGRES_QUESTION, recognise_answer

__all__ = ["ask_what_it_is"]


async def ask_what_it_is(
    connect: Callable[[], Awaitable[trio.abc.Stream]], *, patience: float
) -> str | None:
    """What the server looks like, such as `a PostgreSQL server`; None when that is unclear.

    It never fails: the failure that led here is the one to tell. Cancelled, it leaves no socket.

    Args:
        connect: Opens a new connection to the same place.
        patience: Seconds for all of it.
    """
    answer = b""
    with trio.move_on_after(patience):
        try:
            async with await connect() as stream:
                await stream.send_all(POSTGRES_QUESTION)
                answer = bytes(await stream.receive_some(64))
        except (OSError, UpstreamError, trio.BrokenResourceError):
            return None
    return recognise_answer(answer)
