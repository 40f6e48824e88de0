"""What a process must know in its first moments to be a worker."""

import signal
from typing import Final

__all__ = ["HANDOVER", "TERMINAL_SIGNALS"]

HANDOVER: Final = "DBPROXY_HANDOVER"
"""The environment variable that a supervisor sets for its workers, and nobody else.

`dbproxy.workers.handover` reads it."""

TERMINAL_SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGHUP})
"""What terminals send to all processes of theirs; a worker leaves them to its supervisor."""
