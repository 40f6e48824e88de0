"""What the workers report, summed up, without I/O.

Whatever else is to be told for all workers together, such as metrics, belongs here: a message that
reports it, and its sum.
"""

__all__ = ["Totals"]


class Totals:
    """Numbers of all workers together.

    Attributes:
        ended_early: How many connections were closed before their end, by all that have stopped.
    """

    def __init__(self) -> None:
        self.ended_early = 0
        self._open: dict[int, int] = {}
        self._awaited: set[int] | None = None

    def drain(self, workers: set[int]) -> None:
        """These are told to drain, and each says how many connections it has, or ends."""
        self._awaited = workers - self._open.keys()

    def draining(self, worker: int, open_connections: int) -> None:
        """A worker accepts no more."""
        self._open[worker] = open_connections
        self._answered(worker)

    def stopped(self, ended_early: int) -> None:
        """A worker has closed its last connections."""
        self.ended_early += ended_early

    def gone(self, worker: int) -> None:
        """A worker has ended, whatever it has said before."""
        if self._awaited is None:  # it drained alone, and its connections are over
            self._open.pop(worker, None)
        self._answered(worker)

    @property
    def open_connections(self) -> int | None:
        """How many there were when all began to drain; None before, and until all have answered."""
        return sum(self._open.values()) if self._awaited == set() else None

    def _answered(self, worker: int) -> None:
        if self._awaited is not None:
            self._awaited.discard(worker)
