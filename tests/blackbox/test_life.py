"""The life of the process: signals, draining, re-reading, the record of a connection."""

import os
import signal
from pathlib import Path

import psycopg
import pytest
import trio
from command_at_lab import connect, greet, running_at_lab
from commands import running_dbproxy
from identities import Cluster, write_destination

from dbproxy.lab import Lab


async def test_each_connection_ends_in_one_record_in_the_log(lab: Lab, tmp_path: Path) -> None:
    async with running_at_lab(lab, tmp_path) as (command, destination):
        connection = await connect(command, destination)
        assert await trio.to_thread.run_sync(greet, connection) == "hello"
        connection.close()
        record = await command.event("connection-closed")
        assert await command.stop() == 0
    assert record["level"] == "info"
    assert record["mode"] == "passthrough"
    assert record["service"] == "example-server"
    assert record["protocol"] == "postgres"
    assert (record["database_user"], record["database_name"]) == (None, None)  # inside its own TLS
    assert record["outcome"] == "relayed"
    assert record["closed_by"] == "client"
    assert record["bytes_up"] > 0
    assert record["bytes_down"] > 0
    assert record["peer"].startswith("127.0.0.1:")
    assert (record["code"], record["reason"]) == (None, None)
    closed = [line for line in command.err.received if '"connection-closed"' in line]
    assert len(closed) == 1


async def test_a_refused_connection_is_a_warning_with_its_code(lab: Lab, tmp_path: Path) -> None:
    async with running_at_lab(lab, tmp_path) as (command, destination):
        await command.started()
        await lab.stop_proxy()
        # libpq 17 and newer shows no text that arrives before TLS does (CVE-2024-10977).
        with pytest.raises(psycopg.OperationalError, match=r"SSL exchange|Teleport"):
            await connect(command, destination)
        record = await command.event("connection-closed", outcome="refused")
    assert record["level"] == "warning"
    assert record["code"] == "upstream-unreachable"
    assert record["reason"]
    assert record["next_step"]


async def test_a_probe_is_not_logged_without_debug(tmp_path: Path, destination: Path) -> None:
    arguments = ("db", "--destination-dir", destination, "--proxy=127.0.0.1:1")
    async with running_dbproxy(*arguments, "--log-format=json", home=tmp_path) as command:
        await (await trio.open_tcp_stream("127.0.0.1", await command.port())).aclose()
        assert await command.stop() == 0
    assert "connection-closed" not in "\n".join(command.err.received)


async def test_a_probe_is_logged_with_debug(tmp_path: Path, destination: Path) -> None:
    arguments = ("--debug", "db", "--destination-dir", destination, "--proxy=127.0.0.1:1")
    async with running_dbproxy(*arguments, "--log-format=json", home=tmp_path) as command:
        await (await trio.open_tcp_stream("127.0.0.1", await command.port())).aclose()
        record = await command.event("connection-closed")
    assert (record["level"], record["outcome"]) == ("debug", "probe")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_process_well(
    tmp_path: Path, destination: Path, number: signal.Signals
) -> None:
    arguments = ("db", "--destination-dir", destination, "--proxy=127.0.0.1:1")
    async with running_dbproxy(*arguments, "--log-format=json", home=tmp_path) as command:
        port = await command.port()
        assert await command.stop(number) == 0
        with pytest.raises(OSError, match=str(port)):
            await trio.open_tcp_stream("127.0.0.1", port)
    assert '"stopped"' in command.err.received[-1]


async def test_open_connections_go_on_until_the_grace_is_over(lab: Lab, tmp_path: Path) -> None:
    async with running_at_lab(lab, tmp_path, "--drain-timeout=1s") as (command, destination):
        connection = await connect(command, destination)
        command.process.send_signal(signal.SIGTERM)
        draining = await command.event("draining")
        assert (draining["open_connections"], draining["grace"]) == (1, 1.0)
        assert await trio.to_thread.run_sync(greet, connection) == "hello"
        assert await command.ended() == 0
        assert (await command.event("stopped"))["ended_early"] == 1
        connection.close()


async def test_the_process_ends_as_soon_as_the_last_connection_has(
    lab: Lab, tmp_path: Path
) -> None:
    async with running_at_lab(lab, tmp_path, "--drain-timeout=10m") as (command, destination):
        connection = await connect(command, destination)
        command.process.send_signal(signal.SIGTERM)
        await command.event("draining")
        connection.close()
        assert await command.ended() == 0
        assert (await command.event("stopped"))["ended_early"] == 0


async def test_a_second_signal_ends_at_once(lab: Lab, tmp_path: Path) -> None:
    async with running_at_lab(lab, tmp_path, "--drain-timeout=10m") as (command, destination):
        connection = await connect(command, destination)
        command.process.send_signal(signal.SIGTERM)
        await command.event("draining")
        assert await command.stop(signal.SIGINT) == 0
        assert (await command.event("stopped"))["ended_early"] == 1
        connection.close()


async def test_sighup_reads_the_identity_again(
    tmp_path: Path, destination: Path, cluster: Cluster
) -> None:
    arguments = ("db", "--destination-dir", destination, "--proxy=127.0.0.1:1")
    async with running_dbproxy(*arguments, "--log-format=json", home=tmp_path) as command:
        await command.started()
        write_destination(destination, cluster)
        command.process.send_signal(signal.SIGHUP)
        await command.event("identity-loaded", generation=2)
        (destination / "tlscert").write_text("")
        command.process.send_signal(signal.SIGHUP)
        failure = await command.event("identity-reload-failed")
        assert (failure["level"], failure["generation"]) == ("warning", 2)
        assert str(destination / "tlscert") in failure["reason"]
        assert await command.stop() == 0


async def test_a_log_that_nobody_reads_any_more_does_not_stop_the_proxy(
    tmp_path: Path, destination: Path
) -> None:
    reader, log = os.pipe()
    os.close(reader)
    arguments = ("--debug", "db", "--destination-dir", destination, "--proxy=127.0.0.1:1")
    async with running_dbproxy(*arguments, home=tmp_path, stderr=log) as command:
        os.close(log)
        for _ in range(2):
            await (await trio.open_tcp_stream("127.0.0.1", await command.port())).aclose()
        assert await command.stop() == 0
