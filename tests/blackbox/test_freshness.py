"""The command and the identity over time: waiting for the first one, noticing the next ones."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from commands import Run, running_dbproxy
from identities import Cluster, write_destination

WAIT = "--wait-for-identity"


async def test_it_waits_for_a_directory_that_tbot_has_yet_to_make(
    tmp_path: Path, cluster: Cluster
) -> None:
    destination = tmp_path / "not" / "yet"
    arguments = ("--log-format=json", "db", "--destination-dir", destination, WAIT, "60s")
    async with running_dbproxy(*arguments, "--proxy=127.0.0.1:1", home=tmp_path) as command:
        waiting = await command.event("waiting-for-identity", code="identity-missing")
        assert str(destination) in waiting["reason"]
        assert 55 < waiting["remaining"] <= 60
        assert not command.out.received
        write_destination(destination, cluster)
        await command.started()
        await command.event("identity-loaded", generation=1)
        assert await command.stop() == 0


async def test_it_waits_for_an_expired_certificate_to_be_renewed(
    tmp_path: Path, cluster: Cluster
) -> None:
    destination = tmp_path / "machine-id"
    past = datetime.now(UTC) - timedelta(hours=1)
    write_destination(destination, cluster, not_before=past - timedelta(hours=1), not_after=past)
    arguments = ("--log-format=json", "db", "--destination-dir", destination, WAIT, "60s")
    async with running_dbproxy(*arguments, "--proxy=127.0.0.1:1", home=tmp_path) as command:
        await command.event("waiting-for-identity", code="certificate-expired")
        write_destination(destination, cluster)
        await command.started()
        assert await command.stop() == 0


def test_when_the_time_is_over_it_says_what_is_still_wrong(run: Run, tmp_path: Path) -> None:
    begin = time.monotonic()
    arguments = ("--destination-dir", tmp_path / "absent", WAIT, "1s", "--proxy=127.0.0.1:1")
    outcome = run("db", *arguments)
    assert time.monotonic() - begin >= 1
    assert (outcome.status, outcome.out) == (1, "")
    assert f"{tmp_path / 'absent'} does not exist" in outcome.error
    assert "waiting-for-identity" in outcome.err


async def test_a_signal_ends_the_wait(tmp_path: Path) -> None:
    arguments = ("--log-format=json", "db", "--destination-dir", tmp_path / "absent", WAIT, "1h")
    async with running_dbproxy(*arguments, "--proxy=127.0.0.1:1", home=tmp_path) as command:
        await command.event("waiting-for-identity")
        assert await command.stop() == 0


async def test_a_renewal_is_noticed_without_a_signal_or_a_connection(
    tmp_path: Path, destination: Path, cluster: Cluster
) -> None:
    arguments = ("--log-format=json", "db", "--destination-dir", destination)
    async with running_dbproxy(*arguments, "--proxy=127.0.0.1:1", home=tmp_path) as command:
        await command.started()
        for generation in (2, 3):
            write_destination(destination, cluster)
            await command.event("identity-loaded", generation=generation)
        assert await command.stop() == 0


async def test_an_overdue_renewal_is_told_at_start(
    tmp_path: Path, destination: Path, cluster: Cluster
) -> None:
    now = datetime.now(UTC)
    write_destination(
        destination,
        cluster,
        not_before=now - timedelta(minutes=51),
        not_after=now + timedelta(minutes=10),
    )
    arguments = ("--log-format=json", "db", "--destination-dir", destination)
    async with running_dbproxy(*arguments, "--proxy=127.0.0.1:1", home=tmp_path) as command:
        await command.started()
        warning = await command.event("identity-not-renewed", code="identity-not-renewed")
        assert warning["level"] == "warning"
        assert str(destination / "tlscert") in warning["reason"]
        assert warning["next_step"]
        assert await command.stop() == 0


@pytest.mark.parametrize("named", [False, True], ids=["destination", "named files"])
async def test_the_renewal_interval_of_the_configuration_counts(
    tmp_path: Path, destination: Path, cluster: Cluster, named: bool
) -> None:
    now = datetime.now(UTC)
    config = tmp_path / "tbot.yaml"
    config.write_text(
        f"auth_server: 127.0.0.1:1\nrenewal_interval: 20m\ndestinations:\n"
        f"  - directory: {destination}\n    database: {{service: example-server}}\n"
    )
    write_destination(
        destination,
        cluster,
        not_before=now - timedelta(minutes=31),
        not_after=now + timedelta(minutes=30),
    )
    options = {"cert": "tlscert", "key": "key", "ca": "teleport-host-ca.crt"} if named else {}
    files = (f"--{option}={destination / name}" for option, name in options.items())
    arguments: list[str | Path] = [
        "--log-format=json",
        "-c",
        config,
        *files,
        "db",
        "example-server",
    ]
    async with running_dbproxy(*arguments, home=tmp_path) as command:
        await command.started()
        warning = await command.event("identity-not-renewed")
        due = datetime.fromisoformat(warning["due"])
        assert timedelta(minutes=7) < now - due < timedelta(minutes=9)
        assert await command.stop() == 0
