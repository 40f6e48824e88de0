"""`dbproxy start` as a process."""

import json
import signal
from pathlib import Path

import pytest
import trio
from commands import Run, running_dbproxy
from identities import Cluster, subject_attributes, write_destination

ENTRIES = """\
  - type: database
    destination: {{type: directory, path: {directory}/{service}}}
    service: {service}
  - type: database-tunnel
    name: {service}-tunnel
    listen: tcp://127.0.0.1:0
    service: {service}
    username: alice
    database: example
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A tbot.yaml with two tunnels and the outputs for them."""
    entries = (ENTRIES.format(directory=tmp_path, service=service) for service in ("one", "two"))
    path = tmp_path / "tbot.yaml"
    path.write_text("version: v2\nproxy_server: 127.0.0.1:1\nservices:\n" + "".join(entries))
    return path


def write(directory: Path, cluster: Cluster, service: str) -> None:
    write_destination(directory / service, cluster, attributes=subject_attributes(service=service))


async def test_each_tunnel_is_a_line_as_it_comes_up(
    tmp_path: Path, config: Path, cluster: Cluster
) -> None:
    write(tmp_path, cluster, "one")
    arguments = ("-c", config, "--log-format=json", "start")
    async with running_dbproxy(*arguments, home=tmp_path) as command:
        line = await command.out.first("^Started tunnel one-tunnel on ")
        await (await trio.open_tcp_stream("127.0.0.1", int(line.rpartition(":")[2]))).aclose()
        failure = await command.event("tunnel-failed")
        assert (failure["tunnel"], failure["service"]) == ("two-tunnel", "two")
        assert (failure["level"], failure["code"]) == ("warning", "identity-missing")
        assert str(tmp_path / "two") in failure["reason"]
        assert failure["next_step"]
        assert 0.5 <= failure["retry_in"] <= 1
        assert len(command.out.received) == 1
        write(tmp_path, cluster, "two")
        await command.out.first("^Started tunnel two-tunnel on 127.0.0.1:")
        assert await command.stop() == 0
    assert len(command.out.received) == 2


async def test_the_lines_can_be_json(tmp_path: Path, config: Path, cluster: Cluster) -> None:
    for service in ("one", "two"):
        write(tmp_path, cluster, service)
    async with running_dbproxy("start", "-c", config, "--format=json", home=tmp_path) as command:
        for service in ("one", "two"):
            facts = json.loads(await command.out.first(f'"{service}-tunnel"'))
            assert facts["tunnel"] == f"{service}-tunnel"
            assert (facts["service"], facts["mode"]) == (service, "tunnel")
            assert facts["address"].startswith("127.0.0.1:")
            assert (facts["user"], facts["database"]) == ("alice", "example")
            assert "sslmode=disable" in facts["connect_command"]
        assert await command.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_every_tunnel_also_those_that_are_not_open(
    tmp_path: Path, config: Path, cluster: Cluster, number: signal.Signals
) -> None:
    write(tmp_path, cluster, "one")
    arguments = ("--log-format=json", "-c", config, "start")
    async with running_dbproxy(*arguments, home=tmp_path) as command:
        await command.event("tunnel-failed")
        line = await command.out.first("^Started tunnel one-tunnel on ")
        assert await command.stop(number) == 0
        with pytest.raises(OSError, match="127"):
            await trio.open_tcp_stream("127.0.0.1", int(line.rpartition(":")[2]))
    stopped = [json.loads(line) for line in command.err.received if '"stopped"' in line]
    assert [event["tunnel"] for event in stopped] == ["one-tunnel"]


async def test_every_line_of_the_log_carries_the_name_of_the_tunnel(
    tmp_path: Path, config: Path, cluster: Cluster
) -> None:
    write(tmp_path, cluster, "one")
    arguments = ("--debug", "--log-format=json", "-c", config, "start")
    async with running_dbproxy(*arguments, home=tmp_path) as command:
        line = await command.out.first("^Started tunnel one-tunnel on ")
        await (await trio.open_tcp_stream("127.0.0.1", int(line.rpartition(":")[2]))).aclose()
        await command.event("connection-closed", tunnel="one-tunnel", service="one")
        await command.event("tunnel-failed", tunnel="two-tunnel")
        await command.stop()
    entries = [json.loads(line) for line in command.err.received]
    assert {entry["tunnel"] for entry in entries} == {"one-tunnel", "two-tunnel"}
    assert [list(entry)[3] for entry in entries] == ["tunnel"] * len(entries)


async def test_sighup_reads_every_identity_and_tries_what_is_not_open(
    tmp_path: Path, config: Path, cluster: Cluster
) -> None:
    write(tmp_path, cluster, "one")
    arguments = ("--log-format=json", "-c", config, "start")
    async with running_dbproxy(*arguments, home=tmp_path) as command:
        await command.out.first("^Started tunnel one-tunnel on ")
        await command.event("tunnel-failed", attempt=3)
        for service in ("one", "two"):
            write(tmp_path, cluster, service)
        command.process.send_signal(signal.SIGHUP)
        await command.event("identity-loaded", tunnel="one-tunnel", generation=2)
        await command.event("identity-loaded", tunnel="two-tunnel", generation=1)
        assert await command.stop() == 0


def test_a_file_without_tunnels_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "tbot.yaml"
    path.write_text("version: v2\nproxy_server: teleport.example.com\n")
    outcome = run("start", "-c", path)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.error == (
        f"dbproxy: error: {path} has no service of type database-tunnel [usage]"
    )
    assert "type: database-tunnel" in outcome.err


def test_without_a_file_the_next_step_names_the_option(run: Run) -> None:
    arguments = ("--destination-dir=/opt/machine-id", "--proxy=teleport.example.com")
    outcome = run("start", *arguments)
    assert outcome.status == 2
    assert "--config" in outcome.err


def test_a_mistake_in_the_file_ends_the_process_at_once(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "tbot.yaml"
    path.write_text("version: v2\nservices:\n  - {type: database-tunnel, service: one, listen: []}")
    outcome = run("start", "-c", path)
    assert outcome.status == 1
    assert outcome.error == (
        f"dbproxy: error: {path}:3:51: services[0].listen: must be text, not a list"
        " [config-malformed]"
    )


@pytest.mark.parametrize("option", ["--port=1", "--listen=tcp://127.0.0.1:1", "--terminate"])
def test_what_the_file_says_for_each_tunnel_is_no_option(run: Run, option: str) -> None:
    outcome = run("start", option)
    assert outcome.status == 2
    assert "no such option" in outcome.error
