"""How far a connection has come: what its record will say."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dbproxy.errors import Code
from dbproxy.events import ClosedBy, ConnectionRecord
from dbproxy.protocols import VerdictReader
from dbproxy.relay import AnyRelay, LayeredStream
from dbproxy.settings import Mode

__all__ = ["STOPPED", "Progress"]

STOPPED: Final = "stopped"


@dataclass(slots=True)
class Progress:
    """Filled in as the connection goes on; until it says otherwise, dbproxy was stopped.

    The attributes are those of the record; `upstream`: the address that was dialled; `said_up` and
    `said_down`: bytes to the upstream and to the client before the relay began to count; `verdict`:
    what reads whether the upstream lets the client in; `parting`: an upstream that is still open,
    because the client is gone and what it said last may be on its way.
    """

    id: int
    peer: str
    opened_at: datetime
    started: float
    generation: int = 0
    attempts: int = 0
    prewarmed: bool = False
    upstream: str = ""
    relay: AnyRelay | None = None
    verdict: VerdictReader | None = None
    parting: LayeredStream | None = None
    said_up: int = 0
    said_down: int = 0
    user: str | None = None
    database: str | None = None
    closed_by: ClosedBy = ClosedBy.DBPROXY
    outcome: str = STOPPED
    code: Code | None = None
    reason: str | None = "dbproxy was stopped"

    def end(
        self,
        outcome: str,
        closed_by: ClosedBy,
        reason: str | None = None,
        code: Code | None = None,
    ) -> None:
        """Take note of how the connection ended."""
        self.outcome, self.closed_by, self.reason, self.code = outcome, closed_by, reason, code

    def record(self, mode: Mode, service: str, protocol: str, now: float) -> ConnectionRecord:
        """The record of the connection, which ends `now`, on the clock that it started by."""
        relay = self.relay
        return ConnectionRecord(
            id=self.id,
            peer=self.peer,
            mode=mode,
            service=service,
            protocol=protocol,
            database_user=self.user,
            database_name=self.database,
            generation=self.generation,
            attempts=self.attempts,
            prewarmed=self.prewarmed,
            bytes_up=self.said_up + (relay.bytes_up if relay else 0),
            bytes_down=self.said_down + (relay.bytes_down if relay else 0),
            opened_at=self.opened_at,
            duration=now - self.started,
            closed_by=self.closed_by,
            outcome=self.outcome,
            code=self.code,
            reason=self.reason,
        )
