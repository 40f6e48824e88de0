"""`dbproxy doctor`, `dbproxy identity` and `dbproxy explain` as their users run them."""

import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from access_lists import set_acl
from commands import COMMAND, PATIENCE, Outcome, Run, clean_environment, run_dbproxy
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from identities import HOUR, Attributes, Cluster, make_key, subject_attributes, write_destination
from running_proxy import Destination

from dbproxy.lab import DatabaseResource, Lab, guide, open_lab

NOBODY = 0xFFFFFFFF
TBOT_READERS = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in (
        (0x01, 6, NOBODY),
        (0x02, 6, 4_000_001),
        (0x04, 0, NOBODY),
        (0x10, 6, NOBODY),
        (0x20, 0, NOBODY),
    )
)
"""user::rw- user:4000001:rw- group::--- mask::rw- other::---, as `tbot init` leaves it."""


@pytest.fixture
def public(cluster: Cluster) -> Iterator[Path]:
    """A destination that everybody on this host may enter; pytest's own directories are private."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        directory = Path(name) / "machine-id"
        write_destination(directory, cluster)
        directory.chmod(0o755)
        for path in directory.iterdir():
            path.chmod(0o600)
        yield directory


@pytest.fixture
def run(run: Run) -> Run:
    """Without a look at the Teleport Proxy, which is nowhere to be reached here."""

    def offline(
        *arguments: str | Path, env: Mapping[str, str] | None = None, **how: Any
    ) -> Outcome:
        return run(*arguments, env={"DBPROXY_OFFLINE": "1", **(env or {})}, **how)

    return offline


@asynccontextmanager
async def cluster_and_destination(directory: Path) -> AsyncIterator[tuple[Lab, Path]]:
    """A Teleport Proxy that can be reached, and what tbot writes there."""
    database = DatabaseResource(guide.SERVICE, "127.0.0.1:1", labels={"env": "dev"})
    async with open_lab(databases=[database], directory=directory / "lab") as lab:
        lab.create_role(guide.role_yaml())
        key = generate_private_key(public_exponent=65537, key_size=2048)
        destination = Destination(directory / "machine-id", lab, [key])
        await destination.renew()
        yield lab, destination.directory


async def run_beside(lab: Lab, home: Path, *arguments: str | Path) -> Outcome:
    """Run doctor while the lab serves it in this process."""
    options = ("--proxy-ca", lab.web_ca_file, *arguments)
    return await trio.to_thread.run_sync(partial(run_dbproxy, "doctor", *options, home=home))


async def test_the_way_to_teleport_is_looked_at(tmp_path: Path) -> None:
    async with cluster_and_destination(tmp_path) as (lab, directory):
        where = ("--destination-dir", directory, "--proxy", lab.address)
        outcome = await run_beside(lab, tmp_path, *where, guide.SERVICE)
    assert (outcome.status, outcome.err) == (0, "")
    host_ca = directory / "teleport-host-ca.crt"
    assert f"clients verify Teleport with sslrootcert={host_ca}" in outcome.out
    assert "failure" not in outcome.out


async def test_a_certificate_that_teleport_rejects_is_a_failure(tmp_path: Path) -> None:
    async with cluster_and_destination(tmp_path) as (lab, directory):
        lab.reject_certificates(issued_before=datetime.max.replace(tzinfo=UTC))
        where = ("--destination-dir", directory, "--proxy", lab.address, "--format=json")
        outcome = await run_beside(lab, tmp_path, *where, guide.SERVICE)
    assert outcome.status == 1
    found = checks(outcome)
    assert found["certificate-accepted"]["code"] == "certificate-rejected"
    assert found["certificate-accepted"]["next_step"]
    assert found["client-authority"]["verdict"] == "ok"


def checks(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """What `dbproxy doctor --format json` found, by the names of the checks."""
    return {check["check"]: check for check in json.loads(outcome.out)["checks"]}


def doctor(run: Run, destination: Path, *more: str | Path, bound: bool = False) -> Outcome:
    outcome = run(
        "--destination-dir",
        destination,
        "doctor",
        "--format=json",
        *more,
        bound_by_permissions=bound,
    )
    assert outcome.err == ""
    return outcome


def test_a_good_destination_is_in_order(run: Run, destination: Path) -> None:
    outcome = run("--destination-dir", destination, "doctor", "example-server")
    assert (outcome.status, outcome.err) == (0, "")
    *lines, empty, summary = outcome.out.splitlines()
    assert all(line.startswith(("ok ", "skipped ")) for line in lines)
    assert (empty, summary.endswith("1 skipped")) == ("", True)


@pytest.mark.parametrize("command", ["doctor", "identity"])
def test_what_is_not_a_terminal_gets_no_colours(run: Run, destination: Path, command: str) -> None:
    outcome = run("--destination-dir", destination, command, "other", env={"TERM": "xterm"})
    assert outcome.status == 1
    assert "\x1b" not in outcome.out
    assert not any(line != line.rstrip() for line in outcome.out.splitlines())


def test_a_failure_says_what_to_do_and_ends_with_1(run: Run, destination: Path) -> None:
    outcome = run("--destination-dir", destination, "doctor", "other-server")
    assert outcome.status == 1
    lines = outcome.out.splitlines()
    (index,) = (number for number, line in enumerate(lines) if line.startswith("failure"))
    assert lines[index].endswith("[service-mismatch]")
    assert "'other-server'" in lines[index]
    assert lines[index + 1].strip().startswith("Start dbproxy with the service")


def test_the_json_has_each_check_once_with_code_and_next_step(run: Run, destination: Path) -> None:
    outcome = doctor(run, destination, "other-server")
    assert outcome.status == 1
    found = checks(outcome)
    assert json.loads(outcome.out)["failed"] is True
    assert found["service"]["code"] == "service-mismatch"
    assert found["service"]["verdict"] == "failure"
    assert found["service"]["next_step"]
    assert found["pair-matches"]["verdict"] == "ok"
    assert found["pair-matches"]["code"] is None


def test_a_file_that_this_user_may_not_read_is_named(run: Run, destination: Path) -> None:
    (destination / "key").chmod(0)
    finding = checks(doctor(run, destination, bound=True))["files-readable"]
    assert finding["code"] == "identity-unreadable"
    assert str(destination / "key") in finding["message"]


def test_all_files_that_this_user_may_not_read_are_named_at_once(
    run: Run, destination: Path
) -> None:
    for path in destination.iterdir():
        path.chmod(0)
    finding = checks(doctor(run, destination, bound=True))["files-readable"]
    assert all(str(path) in finding["message"] for path in destination.iterdir())


def test_a_key_that_everybody_may_read_is_a_failure(run: Run, public: Path) -> None:
    assert checks(doctor(run, public))["key-private"]["verdict"] == "ok"
    (public / "key").chmod(0o644)
    outcome = doctor(run, public)
    assert outcome.status == 1
    assert checks(outcome)["key-private"]["code"] == "identity-exposed"


def test_a_key_with_tbots_access_list_is_private(run: Run, public: Path) -> None:
    set_acl(public / "key", TBOT_READERS)
    assert (public / "key").stat().st_mode & 0o777 == 0o660
    assert checks(doctor(run, public))["key-private"]["verdict"] == "ok"
    outcome = run("--destination-dir", public, "identity")
    assert "rw-rw---- root:root, access list: user 4000001 rw-" in outcome.out


def test_a_certificate_that_has_expired_is_a_failure(
    run: Run, tmp_path: Path, cluster: Cluster
) -> None:
    directory = tmp_path / "machine-id"
    now = datetime.now(UTC)
    write_destination(directory, cluster, not_before=now - 2 * HOUR, not_after=now - HOUR)
    found = checks(doctor(run, directory))
    assert found["certificate-valid"]["code"] == "certificate-expired"
    assert "1 hour ago" in found["certificate-valid"]["message"]
    assert found["tbot-alive"]["verdict"] == "skipped"


def test_a_tbot_that_does_not_renew_is_a_warning(
    run: Run, tmp_path: Path, cluster: Cluster
) -> None:
    directory = tmp_path / "machine-id"
    now = datetime.now(UTC)
    write_destination(
        directory, cluster, not_before=now - HOUR, not_after=now + timedelta(minutes=10)
    )
    outcome = doctor(run, directory)
    assert outcome.status == 0
    assert checks(outcome)["tbot-alive"]["code"] == "identity-not-renewed"


def test_a_directory_used_twice_is_a_failure_with_both_lines(
    run: Run, tmp_path: Path, destination: Path
) -> None:
    config = tmp_path / "tbot.yaml"
    output = "  - type: database\n    service: {}\n    destination: {{type: directory, path: {}}}\n"
    config.write_text(
        "version: v2\nservices:\n"
        + output.format("example-server", destination)
        + output.format("other-server", f"{destination}/")
    )
    outcome = run("-c", config, "doctor", "--format=json", "example-server")
    finding = checks(outcome)["destination-unique"]
    assert (outcome.status, finding["code"]) == (1, "destination-used-twice")
    assert "lines 3, 6" in finding["message"]


def test_a_broken_configuration_is_a_failure_with_its_place(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "tbot.yaml"
    config.write_text("version: v2\nservices: none\n")
    outcome = run("-c", config, "doctor", "--format=json")
    assert outcome.status == 1
    assert checks(outcome)["config"]["code"] == "config-malformed"
    assert f"{config}:2:11" in checks(outcome)["config"]["message"]


@pytest.mark.parametrize("command", ["doctor", "identity"])
def test_nothing_named_is_a_usage_error(run: Run, command: str) -> None:
    outcome = run(command)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.error.endswith("[usage]")
    assert "--destination-dir" in outcome.err


def test_a_file_that_never_ends_is_told_and_not_waited_for(run: Run, destination: Path) -> None:
    (destination / "key").unlink()
    os.mkfifo(destination / "key")
    finding = checks(doctor(run, destination))["files-whole"]
    assert finding["code"] == "identity-malformed"
    assert str(destination / "key") in finding["message"]


def test_what_to_look_at_may_come_from_the_environment(run: Run, destination: Path) -> None:
    env = {
        "DBPROXY_DESTINATION_DIR": str(destination),
        "DBPROXY_SERVICE": "other-server",
        "DBPROXY_FORMAT": "json",
        "DBPROXY_PORT": "what only db reads",
    }
    outcome = run("doctor", env=env)
    assert (outcome.status, outcome.err) == (1, "")
    assert checks(outcome)["service"]["code"] == "service-mismatch"


def test_the_identity_is_told_for_people(run: Run, destination: Path) -> None:
    outcome = run("--destination-dir", destination, "identity")
    assert (outcome.status, outcome.err) == (0, "")
    for words in (
        str(destination / "tlscert"),
        "the service example-server (postgres) as the database user alice, database example",
        "59 minutes left",
        "Host CA",
        "Problems  none",
    ):
        assert words in outcome.out


def test_the_identity_is_told_for_programs(run: Run, destination: Path) -> None:
    outcome = run("--destination-dir", destination, "identity", "--format=json")
    described = json.loads(outcome.out)
    assert outcome.status == 0
    assert described["subject"]["route"]["service"] == "example-server"
    assert 3500 < described["certificate"]["remaining"] <= 3600
    assert described["problems"] == []


@pytest.mark.parametrize(
    ("attributes", "number", "words"),
    [((), None, "not in the certificate"), ((("1.3.9999.1.14", "12"),), 12, "12")],
    ids=["none", "twelve"],
)
def test_the_generation_is_what_the_certificate_says(
    run: Run,
    destination: Path,
    cluster: Cluster,
    attributes: Attributes,
    number: int | None,
    words: str,
) -> None:
    write_destination(destination, cluster, attributes=subject_attributes(extra=attributes))
    text = run("--destination-dir", destination, "identity")
    assert re.search(rf"^ +generation +{words}$", text.out, re.MULTILINE)
    outcome = run("--destination-dir", destination, "identity", "--format=json")
    assert json.loads(outcome.out)["subject"]["generation"] == number


@pytest.mark.parametrize("more", [(), ("--format=json",), ("--debug",)])
@pytest.mark.parametrize("mismatch", [False, True])
def test_key_material_is_never_printed(
    run: Run, destination: Path, more: tuple[str, ...], mismatch: bool
) -> None:
    lines = (destination / "key").read_text().splitlines()[1:-1]
    if mismatch:
        shutil.copy(destination / "key", destination / "tlscert")
    for command in ("identity", "doctor"):
        outcome = run("--destination-dir", destination, command, *more)
        assert outcome.status == int(mismatch)
        assert not any(line in outcome.out + outcome.err for line in lines)


def test_another_service_is_a_problem_of_the_identity(run: Run, destination: Path) -> None:
    outcome = run("--destination-dir", destination, "identity", "other", "--format=json")
    (problem,) = json.loads(outcome.out)["problems"]
    assert (outcome.status, problem["code"]) == (1, "service-mismatch")


def test_names_that_could_mislead_a_terminal_are_escaped(
    run: Run, tmp_path: Path, cluster: Cluster
) -> None:
    directory = tmp_path / "machine-\x1b[31mid"
    write_destination(
        directory, cluster, key=make_key(), attributes=subject_attributes(user="bot-\x1b[2J")
    )
    for command in ("identity", "doctor"):
        outcome = run("--destination-dir", directory, command)
        assert outcome.status == 0
        assert "\x1b" not in outcome.out
        assert "\\x1b[31m" in outcome.out


def test_a_name_that_is_no_text_is_no_obstacle(run: Run, tmp_path: Path, cluster: Cluster) -> None:
    directory = Path(os.fsdecode(os.fsencode(tmp_path) + b"/machine-\xff"))
    write_destination(directory, cluster)
    outcome = run("--destination-dir", directory, "identity")
    assert (outcome.status, outcome.err) == (0, "")
    assert "machine-" in outcome.out


def test_explain_shows_the_page_of_the_code_that_doctor_names(run: Run, destination: Path) -> None:
    found = checks(doctor(run, destination, "other-server"))
    outcome = run("explain", found["service"]["code"])
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.startswith("service-mismatch\n")
    assert run("explain", "service-missmatch").status == 2


def test_terminals_that_know_only_ascii_are_served(run: Run) -> None:
    outcome = run("explain", "certificate-expired", env={"PYTHONIOENCODING": "ascii"})
    assert (outcome.status, outcome.err) == (0, "")
    assert "FATAL: dbproxy: \\u2026 [certificate-expired]" in outcome.out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", [["identity"], ["doctor", "--format=json"], ["explain"]])
def test_an_answer_that_cannot_be_written_is_an_error(
    tmp_path: Path, destination: Path, command: list[str]
) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [COMMAND, "--destination-dir", destination, *command],
            stdout=full,
            stderr=subprocess.PIPE,
            env=clean_environment(tmp_path),
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert process.returncode == 1
    assert process.stderr == (
        "dbproxy: error: cannot write to standard output: No space left on device\n"
    )
