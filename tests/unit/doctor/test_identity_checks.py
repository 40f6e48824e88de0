"""The checks of the identity: each says what is wrong, and only what is its business."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from identities import HOUR, MINUTE, Cluster, subject_attributes, write_destination

from dbproxy.doctor import Evidence, Finding, Verdict, examine, gather
from dbproxy.errors import Code, ConfigError, IdentityError
from dbproxy.identity import parse_tbot_config
from dbproxy.settings import Settings

Judge = Callable[[Evidence, str], Finding]

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)

CONFIG = """\
version: v2
renewal_interval: 20m
services:
  - type: database
    destination: {{type: directory, path: {ours}}}
    service: example-server
  - type: database
    destination: {{type: directory, path: {other}}}
    service: other-server
  - type: {kind}
    destination: {{type: directory, path: {third}}}
    service: third-server
"""

TORN = [Code.IDENTITY_MALFORMED, Code.KEY_MISMATCH, Code.IDENTITY_MIXED]
REFUSED_READING = [
    *TORN,
    Code.IDENTITY_MISSING,
    Code.IDENTITY_UNREADABLE,
    Code.CERTIFICATE_WITHOUT_ROUTE,
    Code.INTERNAL_ERROR,
]


def look(directory: Path, now: datetime | None = None, **changes: Any) -> Evidence:
    settings = Settings(destination_dir=directory, **changes)
    return gather(settings, now or datetime.now(UTC))


def with_config(
    evidence: Evidence, ours: Path, *, other: str = "/b", third: str = "/c", kind: str = "database"
) -> Evidence:
    text = CONFIG.format(ours=ours, other=other, third=third, kind=kind)
    config = parse_tbot_config(text.encode(), Path("/etc/tbot.yaml"))
    assert evidence.location is not None
    entry = next(entry for entry in config.entries if entry.directory == ours)
    location = replace(evidence.location, entry=entry)
    return replace(evidence, config=config, location=location, lifetime=entry.lifetime)


def check(finding: Finding, verdict: Verdict, code: Code | None, *words: str) -> None:
    assert (finding.verdict, finding.code) == (verdict, code), finding
    assert (finding.next_step is not None) == (code is not None)
    for word in words:
        assert word in finding.message


def test_a_good_identity_passes_every_check(evidence: Evidence) -> None:
    report = examine(evidence)
    assert not report.failed
    assert report.problems == ()
    verdicts = {outcome.check.name: outcome.finding.verdict for outcome in report.outcomes}
    assert verdicts.pop("destination-unique") is Verdict.SKIPPED
    assert set(verdicts.values()) == {Verdict.OK}


@pytest.mark.parametrize("code", REFUSED_READING)
def test_what_reading_refused_is_told_by_exactly_one_check(evidence: Evidence, code: Code) -> None:
    problem = IdentityError(code, "it is so", next_step="Do this.")
    broken = replace(
        evidence, identity=None, identity_problem=problem, certificate=None, subject=None
    )
    report = examine(broken)
    (told,) = report.problems
    check(told.finding, Verdict.FAILURE, code, "it is so")
    assert told.finding.next_step == "Do this."
    assert report.failed


def test_no_check_raises_when_nothing_is_known(evidence: Evidence) -> None:
    report = examine(Evidence(now=evidence.now, user="alice", service="example-server"))
    assert report.problems == ()
    assert report.count(Verdict.SKIPPED) >= 9


def test_a_configuration_that_cannot_be_used_is_a_failure(evidence: Evidence, judge: Judge) -> None:
    problem = ConfigError(Code.CONFIG_MALFORMED, "/etc/tbot.yaml:3:1: must be a list")
    finding = judge(replace(evidence, config_problem=problem), "config")
    check(finding, Verdict.FAILURE, Code.CONFIG_MALFORMED, "/etc/tbot.yaml:3:1")


def test_directories_that_differ_are_fine(evidence: Evidence, judge: Judge) -> None:
    ours = evidence.location.directory if evidence.location else Path()
    finding = judge(with_config(evidence, ours), "destination-unique")
    check(finding, Verdict.OK, None)


@pytest.mark.parametrize("spelling", ["{}", "{}/", "{}/../machine-id", "/{}"])
def test_our_directory_used_twice_is_a_failure_however_it_is_spelt(
    evidence: Evidence, judge: Judge, destination: Path, spelling: str
) -> None:
    shared = with_config(evidence, destination, other=spelling.format(destination))
    finding = judge(shared, "destination-unique")
    check(finding, Verdict.FAILURE, Code.DESTINATION_USED_TWICE, str(destination), "lines 4, 7")


def test_a_link_to_our_directory_is_our_directory(
    evidence: Evidence, judge: Judge, destination: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(destination)
    shared = with_config(evidence, destination, third=str(tmp_path / "link"), kind="identity")
    finding = judge(shared, "destination-unique")
    check(finding, Verdict.FAILURE, Code.DESTINATION_USED_TWICE, "lines 4, 10")


def test_another_directory_used_twice_is_a_warning(
    evidence: Evidence, judge: Judge, destination: Path
) -> None:
    shared = with_config(evidence, destination, other="/b", third="/b/")
    finding = judge(shared, "destination-unique")
    check(finding, Verdict.WARNING, Code.DESTINATION_USED_TWICE, "/b is", "lines 7, 10")


def test_a_file_that_may_not_be_read_is_named(evidence: Evidence, judge: Judge) -> None:
    locked = tuple(
        (file, replace(facts, readable=facts.path.name != "teleport-user-ca.crt"))
        for file, facts in evidence.files
        if facts is not None
    )
    finding = judge(replace(evidence, files=locked, user="alice"), "files-readable")
    check(finding, Verdict.FAILURE, Code.IDENTITY_UNREADABLE, "alice", "teleport-user-ca.crt")


def test_a_key_that_everybody_may_read_is_a_failure(evidence: Evidence, judge: Judge) -> None:
    exposed = tuple(replace(facts, exposed=True) for facts in evidence.secrets)
    finding = judge(replace(evidence, secrets=exposed), "key-private")
    check(finding, Verdict.FAILURE, Code.IDENTITY_EXPOSED, "machine-id/key")


def test_a_certificate_that_everybody_may_read_is_fine(evidence: Evidence, judge: Judge) -> None:
    exposed = tuple(
        (file, facts and replace(facts, exposed=True)) for file, facts in evidence.files
    )
    assert judge(replace(evidence, files=exposed), "key-private").verdict is Verdict.OK


def test_keys_beside_the_one_in_use_count_too(
    destination: Path, judge: Judge, cluster: Cluster
) -> None:
    (destination / "tls.key").write_bytes(b"")
    evidence = look(destination)
    assert [facts.path.name for facts in evidence.secrets] == ["key", "tls.key"]


def test_a_user_ca_that_did_not_issue_the_certificate_is_a_warning(
    evidence: Evidence, judge: Judge, cluster: Cluster
) -> None:
    assert evidence.identity is not None
    other = replace(evidence.identity, user_cas=(cluster.host.certificate,))
    finding = judge(replace(evidence, identity=other), "authorities-match")
    check(finding, Verdict.WARNING, Code.IDENTITY_MIXED, "teleport-user-ca.crt", "tlscert")


def test_without_a_user_ca_there_is_nothing_to_compare(evidence: Evidence, judge: Judge) -> None:
    assert evidence.identity is not None
    other = replace(evidence.identity, user_cas=())
    assert judge(replace(evidence, identity=other), "authorities-match").verdict is Verdict.OK


@pytest.mark.parametrize(
    ("service", "verdict", "code"),
    [
        (None, Verdict.OK, None),
        ("example-server", Verdict.OK, None),
        ("Example-Server", Verdict.FAILURE, Code.SERVICE_MISMATCH),
    ],
)
def test_the_service_asked_for_is_compared_letter_by_letter(
    destination: Path, judge: Judge, service: str | None, verdict: Verdict, code: Code | None
) -> None:
    finding = judge(look(destination, service=service), "service")
    check(finding, verdict, code, "'example-server'")


def test_a_certificate_for_another_service_than_configured_is_a_warning(
    tmp_path: Path, judge: Judge, cluster: Cluster
) -> None:
    directory = tmp_path / "machine-id"
    write_destination(directory, cluster, attributes=subject_attributes(service="old-server"))
    finding = judge(with_config(look(directory), directory), "service")
    check(finding, Verdict.WARNING, Code.SERVICE_MISMATCH, "'old-server'", "'example-server'")
    assert "restart tbot" in (finding.next_step or "")


def test_a_protocol_that_is_not_carried_is_a_failure(
    tmp_path: Path, judge: Judge, cluster: Cluster
) -> None:
    directory = tmp_path / "machine-id"
    write_destination(directory, cluster, attributes=subject_attributes(protocol="unheard"))
    finding = judge(look(directory), "protocol")
    check(finding, Verdict.FAILURE, Code.PROTOCOL_NOT_SUPPORTED, "unheard")


@pytest.mark.parametrize("changes", [{"protocol": "redis"}, {"alpn": "teleport-unheard"}])
def test_the_operators_word_on_the_protocol_counts(
    tmp_path: Path, judge: Judge, cluster: Cluster, changes: dict[str, Any]
) -> None:
    directory = tmp_path / "machine-id"
    write_destination(directory, cluster, attributes=subject_attributes(protocol="unheard"))
    finding = judge(look(directory, **changes), "protocol")
    expected = "Redis" if "protocol" in changes else "unheard"
    check(finding, Verdict.OK, None, f"dbproxy carries {expected}")


def test_a_protocol_that_has_no_passthrough_is_a_failure_until_the_mode_is_named(
    tmp_path: Path, judge: Judge, cluster: Cluster
) -> None:
    directory = tmp_path / "machine-id"
    write_destination(directory, cluster, attributes=subject_attributes(protocol="cassandra"))
    finding = judge(look(directory), "protocol")
    check(finding, Verdict.FAILURE, Code.USAGE, "Cassandra")
    assert "--terminate" in (finding.next_step or "")
    assert judge(look(directory, tunnel=True), "protocol").verdict is Verdict.OK


def test_a_certificate_without_a_route_has_no_protocol_to_check(
    tmp_path: Path, judge: Judge, cluster: Cluster
) -> None:
    directory = tmp_path / "machine-id"
    write_destination(directory, cluster, attributes=subject_attributes(service=None))
    evidence = look(directory)
    check(judge(evidence, "service"), Verdict.FAILURE, Code.CERTIFICATE_WITHOUT_ROUTE)
    assert judge(evidence, "protocol").verdict is Verdict.SKIPPED
    assert judge(evidence, "pair-matches").verdict is Verdict.OK
    assert judge(evidence, "certificate-valid").verdict is Verdict.OK


@pytest.fixture
def dated(tmp_path: Path, cluster: Cluster) -> Evidence:
    """A certificate of an hour, issued at noon: Teleport dates it one minute back."""
    directory = tmp_path / "machine-id"
    write_destination(directory, cluster, not_before=NOW - MINUTE, not_after=NOW + HOUR)
    evidence = look(directory, NOW)
    files = tuple((file, facts and replace(facts, modified=NOW)) for file, facts in evidence.files)
    return replace(evidence, files=files)


@pytest.mark.parametrize(
    ("age", "verdict", "code", "words"),
    [
        (-MINUTE, Verdict.OK, None, "valid until 2026-11-23 13:00:00 UTC, 1 hour from now"),
        (-MINUTE - SECOND, Verdict.FAILURE, Code.CERTIFICATE_NOT_YET_VALID, "1 second from now"),
        (HOUR, Verdict.OK, None, "0 seconds from now"),
        (HOUR + SECOND, Verdict.FAILURE, Code.CERTIFICATE_EXPIRED, "1 second ago"),
    ],
)
def test_validity_includes_both_ends(
    dated: Evidence, judge: Judge, age: timedelta, verdict: Verdict, code: Code | None, words: str
) -> None:
    finding = judge(replace(dated, now=NOW + age), "certificate-valid")
    check(finding, verdict, code, words)


@pytest.mark.parametrize(
    ("minutes", "verdict"), [(0, Verdict.OK), (22, Verdict.OK), (23, Verdict.WARNING)]
)
def test_tbot_is_late_a_little_after_its_interval(
    dated: Evidence, judge: Judge, minutes: int, verdict: Verdict
) -> None:
    assert dated.location is not None
    known = with_config(dated, dated.location.directory)
    finding = judge(replace(known, now=NOW + minutes * MINUTE), "tbot-alive")
    code = Code.IDENTITY_NOT_RENEWED if verdict is Verdict.WARNING else None
    check(finding, verdict, code, f"written {minutes} ", "every 20 minutes")


@pytest.mark.parametrize(
    ("minutes", "verdict"), [(39, Verdict.OK), (41, Verdict.WARNING), (61, Verdict.SKIPPED)]
)
def test_without_an_interval_two_thirds_of_the_lifetime_count(
    dated: Evidence, judge: Judge, minutes: int, verdict: Verdict
) -> None:
    finding = judge(replace(dated, now=NOW + minutes * MINUTE), "tbot-alive")
    assert finding.verdict is verdict


def test_a_file_from_the_future_makes_the_clock_suspect(dated: Evidence, judge: Judge) -> None:
    check(judge(replace(dated, now=NOW - 4 * SECOND), "clock"), Verdict.OK, None)
    finding = judge(replace(dated, now=NOW - 3 * MINUTE), "clock")
    check(finding, Verdict.WARNING, Code.CLOCK_WRONG, "3 minutes from now")


def test_a_certificate_written_before_it_was_issued_makes_the_clock_suspect(
    dated: Evidence, judge: Judge
) -> None:
    files = tuple(
        (file, facts and replace(facts, modified=NOW - 10 * MINUTE)) for file, facts in dated.files
    )
    finding = judge(replace(dated, files=files), "clock")
    check(finding, Verdict.WARNING, Code.CLOCK_WRONG, "9 minutes before")


def test_a_copy_made_later_says_nothing_about_the_clock(dated: Evidence, judge: Judge) -> None:
    files = tuple(
        (file, facts and replace(facts, modified=NOW + 30 * MINUTE)) for file, facts in dated.files
    )
    late = replace(dated, files=files, now=NOW + 31 * MINUTE)
    check(judge(late, "clock"), Verdict.OK, None)
