"""What layers have to say on their own account, and how much of it is kept.

A peer may ask for answers: a pong, another key. One that asks without a pause and reads nothing
would have all of them kept for it. That is no peer that anybody needs.
"""

from typing import Final, TypeAlias

from dbproxy.layers import LayerError
from dbproxy.layers.base import ByteData

__all__ = ["Kept", "UnreadAnswersError", "appended", "check_kept"]

Kept: TypeAlias = bytes | bytearray
"""What waits to be sent."""

MOST_KEPT: Final = 1024 * 1024
"""Bytes that may wait for a peer that takes none. What is relayed is part of that, one batch."""


class UnreadAnswersError(LayerError):
    """The peer asks for answers and does not read them."""


def check_kept(size: int) -> None:
    """Raise `UnreadAnswersError` when more bytes wait for the peer than may."""
    if size > MOST_KEPT:
        raise UnreadAnswersError(f"the peer does not read the answers that it asks for: {size:,} B")


def appended(kept: Kept, data: ByteData) -> Kept:
    """`kept` with `data` behind it; what is there already is copied once and not each time."""
    if isinstance(kept, bytes):
        kept = bytearray(kept)
    kept += data
    return kept
