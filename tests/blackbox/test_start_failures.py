"""What the command says when something that it needs is missing or unusable."""

import os
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from commands import COMMAND, PATIENCE, Outcome, Run, clean_environment
from identities import Cluster, make_key, subject_attributes, write_destination

PROXY = "--proxy=127.0.0.1:1"


def check(outcome: Outcome, code: str, *words: str) -> None:
    """One error of two lines: what happened to what, and what to do next."""
    assert "Traceback" not in outcome.err
    assert outcome.status == 1
    assert outcome.out == ""
    assert outcome.error.startswith("dbproxy: error: ")
    assert outcome.error.endswith(f"[{code}]")
    for word in words:
        assert word in outcome.error
    *_, last = outcome.err.splitlines()
    assert not last.startswith("dbproxy: error: "), "the next step is missing"


def test_a_port_in_use_is_named(run: Run, destination: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        outcome = run("db", "--destination-dir", destination, PROXY, f"--port={port}")
    check(outcome, "address-in-use", f"127.0.0.1:{port}")


def test_a_start_message_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, destination: Path
) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [COMMAND, "db", "--tunnel", "--destination-dir", destination, PROXY],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            env=clean_environment(tmp_path),
            check=False,
        )
    assert process.returncode == 1
    complaints = [line for line in process.stderr.splitlines() if "error" in line.lower()]
    assert complaints == [
        "dbproxy: error: cannot write the start message to standard output: No space left on device"
    ]
    assert "Exception ignored" not in process.stderr


def test_a_directory_that_does_not_exist_is_named(run: Run, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    check(run("db", "--destination-dir", missing, PROXY), "identity-missing", str(missing))


def test_a_missing_file_is_named(run: Run, destination: Path) -> None:
    (destination / "teleport-host-ca.crt").unlink()
    outcome = run("db", "--destination-dir", destination, PROXY)
    check(outcome, "identity-missing", str(destination / "teleport-host-ca.crt"))


def test_a_file_that_may_not_be_read_is_named(run: Run, destination: Path) -> None:
    (destination / "key").chmod(0)
    outcome = run("db", "--destination-dir", destination, PROXY, bound_by_permissions=True)
    check(outcome, "identity-unreadable", str(destination / "key"))


def test_a_directory_that_may_not_be_entered_is_named(run: Run, destination: Path) -> None:
    destination.chmod(0)
    try:
        outcome = run("db", "--destination-dir", destination, PROXY, bound_by_permissions=True)
    finally:
        destination.chmod(0o700)
    check(outcome, "identity-unreadable", str(destination))


def test_a_file_cut_short_is_named(run: Run, destination: Path) -> None:
    os.truncate(destination / "key", 100)
    outcome = run("db", "--destination-dir", destination, PROXY)
    check(outcome, "identity-malformed", str(destination / "key"))


def test_a_key_of_another_certificate_is_named(
    run: Run, destination: Path, tmp_path: Path, cluster: Cluster
) -> None:
    write_destination(tmp_path / "other", cluster)
    (destination / "key").write_bytes((tmp_path / "other" / "key").read_bytes())
    outcome = run("db", "--destination-dir", destination, PROXY)
    check(outcome, "key-mismatch", str(destination))


def test_no_error_shows_the_key(run: Run, destination: Path) -> None:
    key = (destination / "key").read_text()
    (destination / "key").write_text(key.replace("PRIVATE KEY", "PRIVATE NOTHING"))
    outcome = run("db", "--debug", "--destination-dir", destination, PROXY)
    check(outcome, "identity-malformed")
    for line in key.splitlines()[1:-1]:
        assert line not in outcome.err


def test_an_expired_certificate_is_refused(run: Run, tmp_path: Path, cluster: Cluster) -> None:
    now = datetime.now(UTC)
    write_destination(
        tmp_path / "old",
        cluster,
        not_before=now - timedelta(hours=2),
        not_after=now - timedelta(hours=1),
    )
    outcome = run("db", "--destination-dir", tmp_path / "old", PROXY)
    check(outcome, "certificate-expired", str(tmp_path / "old"))
    assert "start dbproxy again, or give --wait-for-identity" in outcome.err
    assert "a restart is not needed" not in outcome.err


def test_a_certificate_of_the_future_is_refused(run: Run, tmp_path: Path, cluster: Cluster) -> None:
    now = datetime.now(UTC)
    write_destination(
        tmp_path / "early",
        cluster,
        not_before=now + timedelta(hours=1),
        not_after=now + timedelta(hours=2),
    )
    outcome = run("db", "--destination-dir", tmp_path / "early", PROXY)
    check(outcome, "certificate-not-yet-valid", str(tmp_path / "early"))
    assert "clock" in outcome.err


def test_another_service_than_that_of_the_certificate_is_refused(
    run: Run, destination: Path
) -> None:
    outcome = run("db", "--destination-dir", destination, PROXY, "other-server")
    check(outcome, "service-mismatch", "other-server", "example-server")


def test_a_certificate_without_a_route_is_refused(
    run: Run, tmp_path: Path, cluster: Cluster
) -> None:
    no_route = subject_attributes(service=None, protocol=None, username=None, database=None)
    write_destination(tmp_path / "bare", cluster, key=make_key(), attributes=no_route)
    outcome = run("db", "--destination-dir", tmp_path / "bare", PROXY)
    check(outcome, "certificate-without-route", str(tmp_path / "bare"))


def test_a_configuration_that_does_not_exist_is_named(run: Run, tmp_path: Path) -> None:
    outcome = run("-c", tmp_path / "tbot.yaml", "db", "example-server")
    check(outcome, "config-unreadable", str(tmp_path / "tbot.yaml"))


def test_a_configuration_that_may_not_be_read_is_named(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "tbot.yaml"
    config.touch(mode=0o000)
    outcome = run("-c", config, "db", bound_by_permissions=True)
    check(outcome, "config-unreadable", str(config))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("version: v2\noutputs:\n  - type: [\n", ":"),
        ("version: v9\n", ":1:"),
        (
            "version: v1\ndestinations:\n  - directory: /opt/machine-id\n    database: yes\n",
            ":4:",
        ),
        ("renewal_interval: sometimes\n", ":1:"),
        ("version: v1\nversion: v2\n", ":2:"),
    ],
)
def test_a_malformed_configuration_names_file_line_and_key(
    run: Run, tmp_path: Path, text: str, place: str
) -> None:
    config = tmp_path / "tbot.yaml"
    config.write_text(text)
    check(run("-c", config, "db"), "config-malformed", f"{config}{place}")


def test_a_service_that_the_configuration_does_not_know_lists_those_it_does(
    run: Run, tmp_path: Path
) -> None:
    config = tmp_path / "tbot.yaml"
    config.write_text(
        "destinations:\n  - directory: /opt/machine-id\n    database: {service: example-server}\n"
    )
    outcome = run("-c", config, "db", "other-server")
    check(outcome, "destination-not-found", "other-server", "example-server", "/opt/machine-id")


def test_a_file_of_authorities_that_does_not_exist_is_named(run: Run, destination: Path) -> None:
    outcome = run("db", "--destination-dir", destination, PROXY, "--proxy-ca=/nowhere/ca.pem")
    check(outcome, "file-unusable", "/nowhere/ca.pem")


def test_a_server_certificate_that_does_not_exist_is_named(run: Run, destination: Path) -> None:
    outcome = run(
        *("db", "--destination-dir", destination, PROXY, "--terminate"),
        *("--server-cert=/nowhere/cert.pem", "--server-key=/nowhere/key.pem"),
    )
    check(outcome, "file-unusable", "/nowhere/cert.pem")


def test_a_socket_in_a_directory_that_does_not_exist_is_named(run: Run, destination: Path) -> None:
    outcome = run(
        *("db", "--destination-dir", destination, PROXY, "--tunnel"),
        "--listen=unix:///nowhere/.s.PGSQL.5432",
    )
    check(outcome, "listen-failed", "/nowhere/.s.PGSQL.5432")
