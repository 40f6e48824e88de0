"""The record of database sessions, as JSON lines: the stand-in for Teleport's audit log.

Event names and the first fields follow Teleport's ``db.session.start`` and ``db.session.end``
(api/types/events); the byte counts are the lab's own.
"""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

MAX_EVENTS: Final = 10_000
"""How many events are kept in memory; the file keeps all."""

Event = Mapping[str, object]


@dataclass
class Session:
    """One database session.

    Attributes:
        user: the Teleport user, for a bot ``bot-<name>``.
        service: the database resource's name.
        database: the database name, empty when the protocol has none.
        db_user: the database user.
        protocol: the database protocol.
        bytes_from_client: payload bytes that the client sent, without any framing or TLS.
        bytes_to_client: payload bytes that the client was sent.
        error: why access was denied or the session could not start; empty otherwise.
    """

    user: str
    service: str
    database: str
    db_user: str
    protocol: str
    bytes_from_client: int = 0
    bytes_to_client: int = 0
    error: str = ""
    session_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def add_from_client(self, size: int) -> None:
        """Counts bytes that the database took from the client."""
        self.bytes_from_client += size

    def add_to_client(self, size: int) -> None:
        """Counts bytes that the client took from the database."""
        self.bytes_to_client += size


class AuditLog:
    """Keeps session events in memory and appends them to a file.

    Args:
        path: the file, one JSON object per line; ``None`` keeps the events in memory only.
        on_event: called with every event, after it has been written.
    """

    def __init__(
        self, path: Path | None = None, on_event: Callable[[Event], object] | None = None
    ) -> None:
        self.path = path
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._on_event = on_event

    @contextmanager
    def session(self, session: Session) -> Iterator[Session]:
        """Records the start now and the end when the block ends, however it ends."""
        self._record("db.session.start", session)
        try:
            yield session
        finally:
            sizes = {
                "bytes_from_client": session.bytes_from_client,
                "bytes_to_client": session.bytes_to_client,
            }
            self._record("db.session.end", session, sizes)

    def denied(self, session: Session) -> None:
        """Records a session that was refused: a start without success and without an end."""
        self._record("db.session.start", session)

    def starts(self) -> list[Event]:
        """Returns the start events of sessions that were let in, oldest first."""
        return [e for e in self.events if e["event"] == "db.session.start" and e["success"]]

    def ends(self) -> list[Event]:
        """Returns the end events, oldest first."""
        return [e for e in self.events if e["event"] == "db.session.end"]

    def _record(self, name: str, session: Session, extra: Event | None = None) -> None:
        event = {
            "event": name,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "sid": session.session_id,
            "success": not session.error,
            "user": session.user,
            "db_service": session.service,
            "db_protocol": session.protocol,
            "db_name": session.database,
            "db_user": session.db_user,
            **({"error": session.error} if session.error else {}),
            **(extra or {}),
        }
        self.events.append(event)
        self._append(event)
        if self._on_event is not None:
            self._on_event(event)

    def _append(self, event: Event) -> None:
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
