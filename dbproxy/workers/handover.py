"""What a worker finds when it begins: its number and a few open descriptors.

They are named in an environment variable, which holds numbers and a version, and nothing secret.
The descriptors are inherited, and have the same numbers on both sides.
"""

import fcntl
import json
import os
import socket
import tempfile
from collections.abc import Iterable, MutableMapping
from dataclasses import asdict, dataclass
from typing import Final, Self

from dbproxy._version import __version__
from dbproxy.errors import UsageError
from dbproxy.workers.beginning import HANDOVER

__all__ = ["Handover", "above_standard", "open_log_lock"]

_FIRST: Final = 3
"""The first descriptor that is not standard input, output or error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Numbers that a worker begins with.

    Attributes:
        version: Of the supervisor.
        worker: The number that the worker's events carry.
        listener: The descriptor of the listening socket.
        channel: The descriptor of the worker's end of the channel.
        log_lock: The descriptor that is locked while the log is written; None where there is no
            log.
    """

    version: str
    worker: int
    listener: int
    channel: int
    log_lock: int | None

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> Self | None:
        """What has been handed over to this process, once; None if it is no worker.

        Raises:
            UsageError: The variable is set, but not by a supervisor of this version.
        """
        text = environ.pop(HANDOVER, None)
        if text is None:
            return None
        try:
            values = json.loads(text)
            version = values["version"]
            if version == __version__:
                handover = cls(**values)
                for descriptor in handover.descriptors():
                    os.set_inheritable(descriptor, False)
                return handover
        except (ValueError, TypeError, KeyError, OSError, RecursionError) as error:
            raise UsageError(
                f"{HANDOVER} is for the processes that dbproxy itself starts",
                next_step="Unset it, and give --workers for several processes.",
            ) from error
        raise UsageError(
            f"dbproxy {version} is running, and its command has been replaced by {__version__}",
            next_step="Start dbproxy again.",
        )

    def environment(self) -> dict[str, str]:
        """The variable, for the process that is to take it."""
        return {HANDOVER: json.dumps(asdict(self))}

    def descriptors(self) -> tuple[int, ...]:
        """All that must be inherited."""
        every: Iterable[int | None] = (self.listener, self.channel, self.log_lock)
        return tuple(descriptor for descriptor in every if descriptor is not None)


def above_standard(end: socket.socket) -> socket.socket:
    """The same socket with a descriptor of its own above the standard ones; closes `end`.

    Those get another meaning in a new process, and may be sockets here if whoever started us has
    closed them.
    """
    with end:
        return socket.socket(fileno=fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, _FIRST))


def open_log_lock() -> int:
    """Open something to lock: a file in memory, or else one without a name.

    Raises:
        OSError: There is no place for it.
    """
    if hasattr(os, "memfd_create"):
        opened = os.memfd_create("dbproxy-log", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            opened = os.dup(file.fileno())
    try:
        return fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, _FIRST)
    finally:
        os.close(opened)
