"""Standard output, whose reader may have gone away and whose disk may be full.

Python writes what is left in the buffer when it ends, and when that fails it complains in its own
words and with a status of its own. So it is written before, and on failure thrown away.
"""

import errno
import os
import sys
from collections.abc import Sequence
from typing import Final, TextIO

__all__ = ["NOBODY_READS", "discard_errors", "discard_output", "flush_output", "output_failure"]

NOBODY_READS: Final = 141
"""What shells report for a program that SIGPIPE ended: 128 + 13."""

_WRITING: Final = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What writing fails with; whoever writes to something else maps its errors."""


def output_failure(errors: Sequence[BaseException]) -> OSError | None:
    """The one of `errors` that says why standard output cannot be written, if all of them may."""
    found = [error for error in errors if isinstance(error, OSError) and error.errno in _WRITING]
    if not found or len(found) < len(errors):
        return None
    return flush_output() or found[0]


def flush_output() -> OSError | None:
    """Write what is left in the buffer of standard output.

    Returns:
        Why it cannot be written; what is written later goes to nowhere then.
    """
    if sys.stdout is None:  # closed by whoever started us
        return None
    try:
        sys.stdout.flush()
    except OSError as error:
        discard_output()
        return error
    return None


def discard_output() -> None:
    """Send what is in the buffer of standard output, and what follows, to nowhere."""
    _to_nowhere(sys.stdout)


def discard_errors() -> None:
    """The same for standard error, where even less can be done about it."""
    _to_nowhere(sys.stderr)


def _to_nowhere(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
