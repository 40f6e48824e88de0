"""What the first process of a container owes to others: it inherits orphans, and must bury them.

A process whose parent has ended becomes a child of process 1 (in its namespace), and stays in the
process table when it ends, until process 1 has asked for its exit status. A program that was not
written for that role never asks.

Our own command is left to whoever waits for it. It is met here only for a moment; it hides others
that have ended then, and the next look finds them.
"""

import os
import signal

import trio

__all__ = ["bury_orphans", "is_first_process"]


def is_first_process() -> bool:
    """Whether orphans come to us, and can be told from our own children."""
    return os.getpid() == 1 and hasattr(os, "waitid")


async def bury_orphans(own: int) -> None:
    """Take the exit status of every child that ends, but for one; runs until it is cancelled.

    Args:
        own: The process id of the one that somebody else waits for.
    """
    with trio.open_signal_receiver(signal.SIGCHLD) as ends:
        _bury(own)
        async for _ in ends:
            _bury(own)


def _bury(own: int) -> None:
    while (pid := _one_that_has_ended()) not in {None, own}:
        os.waitpid(pid or 0, os.WNOHANG)


def _one_that_has_ended() -> int | None:
    try:
        seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return seen.si_pid if seen is not None else None
