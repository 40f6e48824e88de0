from __future__ import annotations

import json
from pathlib import Path

import pytest

from dbproxy.lab.audit import MAX_EVENTS, AuditLog, Event, Session


def alices_session() -> Session:
    return Session(
        user="bot-app",
        service="example-server",
        database="example",
        db_user="alice",
        protocol="postgres",
    )


def test_a_session_has_a_start_and_an_end_with_its_bytes() -> None:
    log = AuditLog()
    with log.session(alices_session()) as session:
        session.add_from_client(3)
        session.add_to_client(4)
        session.add_to_client(5)
    start, end = log.starts()[0], log.ends()[0]
    assert start["sid"] == end["sid"]
    assert (end["bytes_from_client"], end["bytes_to_client"]) == (3, 9)
    assert start["db_user"] == "alice"


def test_a_session_that_breaks_has_an_end_too() -> None:
    log = AuditLog()
    with pytest.raises(ZeroDivisionError), log.session(alices_session()):
        raise ZeroDivisionError
    assert len(log.ends()) == 1


def test_a_refused_session_is_a_start_without_success() -> None:
    log = AuditLog()
    session = alices_session()
    session.error = "access denied"
    log.denied(session)
    assert log.starts() == log.ends() == []
    assert (log.events[0]["success"], log.events[0]["error"]) == (False, "access denied")


def test_the_file_has_one_json_object_a_line(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    with log.session(alices_session()):
        pass
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(log.events)


def test_a_subscriber_gets_every_event() -> None:
    seen: list[Event] = []
    log = AuditLog(on_event=seen.append)
    with log.session(alices_session()):
        assert len(seen) == 1
    assert seen == list(log.events)


def test_memory_keeps_the_latest_events_only() -> None:
    log = AuditLog()
    for _ in range(MAX_EVENTS // 2 + 1):
        with log.session(alices_session()):
            pass
    assert len(log.events) == MAX_EVENTS
