"""Gathering: what is looked at, and what is left when something is unusable."""

import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from identities import Cluster, certificate_pem, make_certificate, make_key, write_destination

from dbproxy.doctor import Evidence, evidence, examine, gather
from dbproxy.errors import Code, UsageError
from dbproxy.identity import Role
from dbproxy.settings import Settings

CONFIG = """\
version: v2
services:
  - type: database
    destination: {{type: directory, path: {directory}}}
    service: example-server
    format: tls
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays torn is not waited for."""
    monkeypatch.setattr(evidence, "_PATIENCE", 0.0)


def look(destination_dir: Path | None = None, config: Path | None = None) -> Evidence:
    return gather(Settings(destination_dir=destination_dir, config=config), datetime.now(UTC))


def test_nothing_named_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not known"):
        look()


def test_a_good_destination_leaves_nothing_open(destination: Path) -> None:
    found = look(destination)
    assert found.identity is not None
    assert found.certificate is found.identity.certificate
    assert found.identity_problem is None
    assert [file.role for file, _ in found.files] == list(Role)
    assert all(facts is not None for _, facts in found.files)


def test_an_absent_directory_is_a_problem_not_an_error(tmp_path: Path) -> None:
    found = look(tmp_path / "nowhere")
    assert found.identity_problem is not None
    assert found.identity_problem.code is Code.IDENTITY_MISSING
    assert found.secrets == ()
    assert not any(facts for _, facts in found.files)


@pytest.mark.parametrize("name", ["key", "teleport-host-ca.crt"])
def test_the_certificate_is_told_also_when_something_else_is_broken(
    destination: Path, name: str
) -> None:
    (destination / name).write_bytes(b"")
    found = look(destination)
    assert found.identity_problem is not None
    assert found.identity_problem.code is Code.IDENTITY_MALFORMED
    assert found.subject is not None
    assert found.subject.user == "bot-app"


def test_a_broken_certificate_tells_nothing(destination: Path) -> None:
    (destination / "tlscert").write_bytes(b"-----BEGIN CERTIFICATE-----\n")
    found = look(destination)
    assert found.identity_problem is not None
    assert (found.certificate, found.subject) == (None, None)


def test_a_write_under_way_is_waited_for(
    destination: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "_PATIENCE", 10.0)
    key = make_key()
    certificate = make_certificate(cluster.user, key)
    (destination / "tlscert").write_bytes(certificate_pem(certificate))

    def finish() -> None:
        time.sleep(0.1)
        write_destination(destination, cluster, key=key, certificate=certificate)

    writer = threading.Thread(target=finish)
    writer.start()
    found = look(destination)
    writer.join()
    assert found.identity is not None
    assert found.identity.certificate == certificate


def test_a_configuration_that_cannot_be_used_ends_the_search(tmp_path: Path) -> None:
    config = tmp_path / "tbot.yaml"
    config.write_text("services: 1\n")
    found = look(config=config)
    assert found.config_problem is not None
    assert found.config_problem.code is Code.CONFIG_MALFORMED
    assert found.explanation is None


def test_a_configuration_without_a_fitting_output_is_a_problem(tmp_path: Path) -> None:
    config = tmp_path / "tbot.yaml"
    config.write_text("version: v2\nservices: []\n")
    found = look(config=config)
    assert found.config_problem is not None
    assert found.config_problem.code is Code.DESTINATION_NOT_FOUND
    assert found.config is not None


def test_a_directory_by_name_is_looked_at_whatever_the_configuration_is(
    tmp_path: Path, destination: Path
) -> None:
    found = look(destination, config=tmp_path / "absent.yaml")
    assert found.config_problem is not None
    assert found.config_problem.code is Code.CONFIG_UNREADABLE
    assert found.identity is not None


def test_the_configuration_leads_to_the_directory(tmp_path: Path, destination: Path) -> None:
    config = tmp_path / "tbot.yaml"
    config.write_text(CONFIG.format(directory=destination))
    found = look(config=config)
    assert found.identity is not None
    assert found.location is not None
    assert found.location.entry is not None


def test_files_named_one_by_one_are_looked_at(destination: Path) -> None:
    settings = Settings(
        cert=destination / "tlscert",
        key=destination / "key",
        ca=destination / "teleport-host-ca.crt",
    )
    found = gather(settings, datetime.now(UTC))
    assert found.identity is not None
    assert found.location is None
    assert [facts.path.name for facts in found.secrets] == ["key"]


def _break_by(breakage: str, path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    match breakage:
        case "empty":
            path.touch()
        case "truncated":
            path.write_bytes(data[:100])
        case "der":
            path.write_bytes(b"\x30\x82" + data[:200])
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "dangling":
            path.symlink_to("nowhere")
        case "loop":
            path.symlink_to(path.name)
        case "huge":
            path.touch()
            os.truncate(path, 1 << 30)


BREAKAGES = ["empty", "truncated", "der", "directory", "fifo", "dangling", "loop", "huge"]


@pytest.mark.parametrize("breakage", BREAKAGES)
@pytest.mark.parametrize("name", ["tlscert", "key", "teleport-host-ca.crt"])
def test_a_broken_file_is_one_failure_that_names_it(
    destination: Path, breakage: str, name: str
) -> None:
    _break_by(breakage, destination / name)
    report = examine(look(destination))
    (problem,) = report.problems
    assert report.failed
    assert str(destination / name) in problem.finding.message
    assert problem.finding.code in {
        Code.IDENTITY_MALFORMED,
        Code.IDENTITY_MISSING,
        Code.IDENTITY_UNREADABLE,
    }
