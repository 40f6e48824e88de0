"""What the upstream answers a client that wants in, read from the first bytes that it sends.

The problem: Teleport's errors have a message and nothing else. PostgreSQL's come without severity
and SQLSTATE, MySQL's all with the same number, so drivers choke on them or cannot tell them apart,
and none says what to do next.

The choice: the upstream's first messages are read until one tells whether the client is let in. A
refusal in Teleport's words is completed, its message untouched; everything else passes as it came.
After that nothing is looked at any more, so an open connection costs nothing. What is not
understood passes, too: it is the client's business. Nothing is held but one message that may be a
refusal, and that within a limit.

Each protocol that this is done for has a reader: `postgres_verdict.py` and `mysql_verdict.py`.

Tested with the readers of both, split at every byte.
"""

from abc import ABC, abstractmethod
from typing import Final

from dbproxy.errors import Code

__all__ = ["LONGEST_READ", "VerdictReader"]

LONGEST_READ: Final = 64 * 1024
"""Bytes that are looked at, at most; an upstream that has not decided by then is left alone."""


class VerdictReader(ABC):
    """Reads the upstream's first messages to one client.

    Args:
        rewrite: Whether refusals are completed; if not, every byte passes at once.

    Attributes:
        over: Whether the verdict is known, or none is to be expected; then bytes need not be given
            to this any more.
        code: What a refusal means; None while there is none.
    """

    __slots__ = ("_buffer", "_read", "_rewrite", "code", "over")

    def __init__(self, *, rewrite: bool = True) -> None:
        self.over = False
        self.code: Code | None = None
        self._rewrite = rewrite
        self._buffer = bytearray()
        self._read = 0

    def receive(self, data: bytes) -> bytes:
        """Take the upstream's bytes, however they are split; returns what the client gets now."""
        if self.over:
            return data
        self._buffer += data
        self._read += len(data)
        said = self._take_messages()
        return said if self._rewrite else data

    def end(self) -> bytes:
        """The upstream says nothing more; returns what was held back."""
        self.over = True
        held = self._take(len(self._buffer))
        return held if self._rewrite else b""

    def _take_messages(self) -> bytes:
        said = b""
        while not self.over and (message := self._next_message()) is not None:
            said += message
        self.over = self.over or self._read > LONGEST_READ
        return said + self._take(len(self._buffer)) if self.over else said

    @abstractmethod
    def _next_message(self) -> bytes | None:
        """Take the next message out of the buffer; returns what the client gets in its place.

        None while it is incomplete. Where it decides, `over` is set, and `code` if it refuses.
        """

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _let_pass(self) -> bytes:
        """Look at nothing any more; whatever is in the buffer follows."""
        self.over = True
        return b""
