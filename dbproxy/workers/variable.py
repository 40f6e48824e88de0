"""The environment variable by which a process learns that it is a worker."""

from typing import Final

__all__ = ["HANDOVER"]

HANDOVER: Final = "DBPROXY_HANDOVER"
"""Set by a supervisor for its workers, and by nobody else; `dbproxy.workers.handover` reads it."""
