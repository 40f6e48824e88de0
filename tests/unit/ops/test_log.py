import json
import re
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from dbproxy.errors import PROBLEMS, Code
from dbproxy.events import (
    ClosedBy,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionOpened,
    ConnectionRecord,
    DrainingStarted,
    Event,
    IdentityLoaded,
    IdentityReloadFailed,
    InsecureChoice,
    Listening,
    UpstreamConnected,
)
from dbproxy.ops.log import EventLog, dropped_notice, make_logger

LISTENING = Listening(
    address="127.0.0.1:12345", mode="passthrough", service="example-server", protocol="postgres"
)
RECORD = ConnectionRecord(
    id=7,
    peer="127.0.0.1:54321",
    mode="passthrough",
    service="example-server",
    protocol="postgres",
    database_user="alice",
    database_name=None,
    generation=2,
    attempts=1,
    bytes_up=120,
    bytes_down=4096,
    opened_at=datetime(2025, 11, 3, 12, 0, 0, 250000, tzinfo=UTC),
    duration=1.23456789,
    closed_by=ClosedBy.CLIENT,
    outcome="relayed",
)
REFUSED = replace(
    RECORD,
    closed_by=ClosedBy.DBPROXY,
    outcome="refused",
    code=Code.UPSTREAM_UNREACHABLE,
    reason="connection refused by teleport.example.com:443",
)
INSECURE = InsecureChoice(option="--insecure", consequence="anyone can pose as the database")


def logged(*events: Event, log_format: str = "json", debug: bool = False) -> list[str]:
    lines: list[str] = []
    log = EventLog(make_logger(log_format, lines.append), debug=debug)
    for event in events:
        log(event)
    return lines


def objects(*events: Event, debug: bool = False) -> list[dict[str, object]]:
    return [json.loads(line) for line in logged(*events, debug=debug)]


def test_an_event_is_one_json_object_under_its_stable_name() -> None:
    (line,) = logged(LISTENING)
    assert "\n" not in line
    assert list(json.loads(line))[:3] == ["timestamp", "level", "event"]
    entry = json.loads(line)
    timestamp = entry.pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", timestamp)
    assert entry == {
        "event": "listening",
        "level": "info",
        "address": "127.0.0.1:12345",
        "mode": "passthrough",
        "service": "example-server",
        "protocol": "postgres",
    }


def test_a_closed_connection_is_one_line_with_the_fields_of_its_record() -> None:
    (entry,) = objects(ConnectionClosed(record=RECORD))
    del entry["timestamp"]
    assert entry == {
        "event": "connection-closed",
        "level": "info",
        "id": 7,
        "peer": "127.0.0.1:54321",
        "mode": "passthrough",
        "service": "example-server",
        "protocol": "postgres",
        "database_user": "alice",
        "database_name": None,
        "generation": 2,
        "attempts": 1,
        "prewarmed": False,
        "bytes_up": 120,
        "bytes_down": 4096,
        "opened_at": "2025-11-03T12:00:00.250000Z",
        "duration": 1.234568,
        "closed_by": "client",
        "outcome": "relayed",
        "code": None,
        "reason": None,
    }


def test_a_refused_connection_is_a_warning_with_code_reason_and_next_step() -> None:
    (entry,) = objects(ConnectionClosed(record=REFUSED))
    assert entry["level"] == "warning"
    assert entry["code"] == "upstream-unreachable"
    assert entry["reason"] == "connection refused by teleport.example.com:443"
    assert entry["next_step"] == PROBLEMS[Code.UPSTREAM_UNREACHABLE].next_step


def test_a_connection_that_ended_badly_is_a_warning() -> None:
    broken = replace(RECORD, code=Code.UPSTREAM_PROTOCOL_ERROR, reason="a frame without an end")
    (entry,) = objects(ConnectionClosed(record=broken))
    assert entry["level"] == "warning"


def test_a_probe_is_shown_only_with_debug() -> None:
    probe = ConnectionClosed(record=replace(RECORD, outcome="probe"))
    assert logged(probe) == []
    (entry,) = objects(probe, debug=True)
    assert (entry["level"], entry["outcome"]) == ("debug", "probe")


def test_a_cancel_request_is_an_ordinary_connection() -> None:
    (entry,) = objects(ConnectionClosed(record=replace(RECORD, outcome="cancel-request")))
    assert entry["level"] == "info"


def raised() -> ZeroDivisionError:
    try:
        raise ZeroDivisionError("division by zero")
    except ZeroDivisionError as error:
        return error


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_how_a_bug_came_about_is_shown_only_with_debug(log_format: str) -> None:
    event = ConnectionFailed(id=1, error=raised())
    (brief,) = logged(event, log_format=log_format)
    (whole,) = logged(event, log_format=log_format, debug=True)
    assert "ZeroDivisionError" in brief
    assert "test_log.py" not in brief
    assert "test_log.py" in whole
    assert whole.isprintable()


def test_debug_events_are_shown_only_with_debug() -> None:
    opened = ConnectionOpened(id=1, peer="127.0.0.1:54321")
    connected = UpstreamConnected(
        id=1,
        address="127.0.0.1:443",
        alpn="a",
        tls_version="TLSv1.3",
        resumed=False,
        upgraded=False,
        duration=0.01,
    )
    assert logged(opened, connected) == []
    assert [entry["event"] for entry in objects(opened, connected, debug=True)] == [
        "connection-opened",
        "upstream-connected",
    ]


def test_times_are_utc_whatever_the_zone_they_came_in() -> None:
    elsewhere = datetime(2025, 11, 3, 14, 0, tzinfo=timezone(timedelta(hours=2)))
    loaded = IdentityLoaded(generation=1, service="example-server", not_valid_after=elsewhere)
    (entry,) = objects(loaded)
    assert entry["not_valid_after"] == "2025-11-03T12:00:00Z"


def test_codes_are_words() -> None:
    failed = IdentityReloadFailed(
        generation=1, code=Code.KEY_MISMATCH, reason="they differ", next_step="wait"
    )
    (entry,) = objects(failed)
    assert (entry["level"], entry["code"]) == ("warning", "key-mismatch")


def test_for_people_a_line_is_time_level_name_and_pairs() -> None:
    (line,) = logged(LISTENING, log_format="console")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ info    listening          address=127.0.0.1:12345"
        r" mode=passthrough service=example-server protocol=postgres",
        line,
    )


def test_for_people_what_is_unknown_is_left_out() -> None:
    (line,) = logged(ConnectionClosed(record=RECORD), log_format="console")
    assert "database_user=alice" in line
    assert "database_name" not in line
    assert "code" not in line
    assert "None" not in line


def test_for_people_times_are_utc_whatever_the_zone_of_this_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        (line,) = logged(LISTENING, log_format="console")
    finally:
        monkeypatch.undo()
        time.tzset()
    written = datetime.strptime(line[:20], "%Y-%m-%d %H:%M:%SZ").replace(tzinfo=UTC)
    assert abs(written - datetime.now(UTC)) < timedelta(minutes=1)


def test_for_people_the_next_step_comes_with_the_first_refusal_for_a_code_only() -> None:
    other = replace(REFUSED, code=Code.CLIENT_NOT_TLS)
    refusals = [ConnectionClosed(record=record) for record in (REFUSED, REFUSED, other, REFUSED)]
    lines = logged(*refusals, log_format="console")
    assert ["next_step=" in line for line in lines] == [True, False, True, False]
    assert all("code=" in line for line in lines)


def test_for_machines_the_next_step_comes_every_time() -> None:
    refusals = [ConnectionClosed(record=REFUSED)] * 2
    assert all(entry["next_step"] for entry in objects(*refusals))


def test_for_people_words_with_spaces_are_quoted() -> None:
    (line,) = logged(ConnectionClosed(record=REFUSED), log_format="console")
    assert "reason='connection refused by teleport.example.com:443'" in line
    assert " code=upstream-unreachable " in line


@pytest.mark.parametrize("event", [LISTENING, INSECURE, ConnectionClosed(record=REFUSED)])
def test_without_a_terminal_there_are_no_colours(event: Event) -> None:
    (line,) = logged(event, log_format="console")
    assert line.isprintable()


def test_on_a_terminal_what_lowers_safety_is_white_on_red() -> None:
    lines: list[str] = []
    log = EventLog(make_logger("console", lines.append, colors=True))
    log(INSECURE)
    log(LISTENING)
    assert lines[0].count("\x1b[1;97;41m") == 2
    assert "\x1b[1;97;41m" not in lines[1]
    assert "\x1b[32minfo" in lines[1]


def test_what_lowers_safety_is_a_warning() -> None:
    (entry,) = objects(INSECURE)
    assert (entry["level"], entry["option"]) == ("warning", "--insecure")


@given(st.text(max_size=40), st.sampled_from(["console", "json"]))
def test_no_text_from_outside_can_forge_a_line_or_steer_a_terminal(
    text: str, log_format: str
) -> None:
    (line,) = logged(replace(LISTENING, service=text), log_format=log_format)
    assert line.isprintable()


def test_the_configuration_of_the_program_around_us_is_not_touched() -> None:
    before = structlog.get_config()
    logged(LISTENING, log_format="console")
    assert structlog.get_config() == before


def test_draining_says_how_many_connections_are_open() -> None:
    (entry,) = objects(DrainingStarted(open_connections=3, grace=10.0))
    assert (entry["event"], entry["open_connections"], entry["grace"]) == ("draining", 3, 10.0)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_the_notice_of_lost_lines_has_the_form_of_the_log(log_format: str) -> None:
    line = dropped_notice(log_format)(42)
    assert "log-lines-dropped" in line
    assert "42" in line
    if log_format == "json":
        assert json.loads(line)["level"] == "warning"
