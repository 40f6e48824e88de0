"""Writing the log without ever making the proxy wait for it.

Problem: standard error may be a pipe whose reader has stopped (a paused `docker logs`, a full
journal), or a terminal on which somebody pressed Ctrl-S. A plain write then blocks the whole
process, and with it every connection.

Choice: a thread of its own writes, from a bounded queue. When the queue is full, lines are dropped
and counted, and the count is written as soon as there is room again. Making the descriptor
non-blocking is no option: that flag belongs to the open file, which other processes share. After
each write the thread rests for a moment: waking it for each line was a tenth of the cost of a
connection.

With `--workers` several processes write to one descriptor. A pipe keeps only 4096 bytes together
(pipe(7), PIPE_BUF), so each write is made under a lock that the processes share. It is one of
fcntl(2): those belong to a process, though its file is inherited, and end with it, so a worker
that is killed holds up nobody. One that is halted (SIGSTOP, a debugger) in the middle of a write
holds up the log of all, as a reader who has stopped does, and likewise no connection.
"""

import fcntl
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

__all__ = ["LogWriter", "log_writer"]

CAPACITY: Final = 10_000
"""Lines kept for a slow reader: about 5 MB at 500 bytes each."""

REST: Final = 0.01
"""Seconds between writes: the first line after a quiet time is written at once."""

PATIENCE: Final = 2.0
"""Seconds that the end of the program waits for a reader who has stopped reading."""


class LogWriter:
    """Writes lines to a file descriptor from a thread of its own.

    Args:
        descriptor: Where to write; it stays open.
        notice: Makes the line that says how many lines were dropped.
        capacity: How many lines may wait.
        lock: A descriptor that may be locked, shared with the other processes that write.
    """

    def __init__(
        self,
        descriptor: int,
        notice: Callable[[int], str],
        *,
        capacity: int = CAPACITY,
        lock: int | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._lock = lock
        self._notice = notice
        self._lines: queue.Queue[str | None] = queue.Queue(capacity)
        self._dropped = 0
        self._reported = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="dbproxy-log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Queue one line; it is dropped, and counted, when too many wait already."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self, patience: float = PATIENCE) -> None:
        """Wait, for `patience` seconds at most, until what is queued has been written."""
        self._closing.set()
        with suppress(queue.Full):  # a full queue wakes the thread anyway
            self._lines.put_nowait(None)
        self._thread.join(patience)

    def _work(self) -> None:
        try:
            while batch := self._batch():
                with _alone(self._lock):
                    _write_all(self._descriptor, batch)
                self._closing.wait(REST)
        except OSError:  # nobody reads the log any more, and there is nowhere to say so
            while self._next() is not None:
                pass

    def _batch(self) -> bytes:
        """Wait for a line and take all that have come with it; nothing when it is time to end."""
        if (line := self._next()) is None:
            return b""
        lines = [line]
        with suppress(queue.Empty):
            while (line := self._lines.get_nowait()) is not None:
                lines.append(line)
        if (dropped := self._dropped) > self._reported:
            lines.append(self._notice(dropped - self._reported))
            self._reported = dropped
        return "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")

    def _next(self) -> str | None:
        """Wait for a line; None when there will be no more."""
        return None if self._closing.is_set() and self._lines.empty() else self._lines.get()


@contextmanager
def log_writer(
    descriptor: int, notice: Callable[[int], str], *, lock: int | None = None
) -> Iterator[LogWriter]:
    """A writer for the length of a block, at whose end everything has been written."""
    writer = LogWriter(descriptor, notice, lock=lock)
    try:
        yield writer
    finally:
        writer.close()


@contextmanager
def _alone(lock: int | None) -> Iterator[None]:
    """Hold the lock, if there is one; a thread waits for it, and no connection."""
    if lock is None:
        yield
        return
    fcntl.lockf(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(lock, fcntl.LOCK_UN)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
