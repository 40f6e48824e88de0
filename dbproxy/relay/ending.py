"""How a relay has ended: what both engines take note of on the way there."""

from dataclasses import dataclass

from dbproxy.events import ClosedBy

__all__ = ["Ending", "RelayEnd"]


@dataclass(frozen=True, slots=True)
class RelayEnd:
    """How a relay ended.

    Attributes:
        closed_by: Who ended or failed first.
        error: Why, when the first end was not a clean one.
        upstream_spoke: Whether the upstream sent at least one byte.
        upstream_error: The failure of receiving from the upstream, if there was one.
        client_ended: Whether the client has ended its direction or is gone.
    """

    closed_by: ClosedBy
    error: Exception | None
    upstream_spoke: bool
    upstream_error: Exception | None
    client_ended: bool


@dataclass(slots=True)
class Ending:
    """What is known so far.

    Attributes:
        closed_by: Who ended or failed first; `None` while nobody has.
        error: Why, when that was not a clean end.
        upstream_spoke: Whether the upstream has sent a byte.
        upstream_listens: Whether what is sent to the upstream may still arrive.
        upstream_error: The failure of receiving from the upstream, if there was one.
        client_ended: Whether the client has ended its direction or is gone.
    """

    closed_by: ClosedBy | None = None
    error: Exception | None = None
    upstream_spoke: bool = False
    upstream_listens: bool = True
    upstream_error: Exception | None = None
    client_ended: bool = False

    def note(self, side: ClosedBy, error: Exception | None = None) -> None:
        """A side has ended or failed; the first one counts."""
        self.client_ended = self.client_ended or side is ClosedBy.CLIENT
        if self.closed_by is None:
            self.closed_by, self.error = side, error

    @property
    def upstream_is_of_use(self) -> bool:
        """Whether it has spoken and still listens: then it may go on when it has ended."""
        return self.upstream_spoke and self.upstream_listens

    def take_result(self) -> RelayEnd:
        """What there is to say now that it is over.

        The errors are handed over: their tracebacks know the relay, and if that knew them as well,
        all of a connection would stay until the garbage collector looks at it.
        """
        result = RelayEnd(
            self.closed_by or ClosedBy.DBPROXY,
            self.error,
            upstream_spoke=self.upstream_spoke,
            upstream_error=self.upstream_error,
            client_ended=self.client_ended,
        )
        self.error = self.upstream_error = None
        return result
