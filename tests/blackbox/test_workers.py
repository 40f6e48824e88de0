"""`--workers` as a process, with real clients: serving, replacing, signals, and the end."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
from command_at_lab import connect, greet, running_at_lab
from commands import COMMAND, PATIENCE, Run, RunningCommand, clean_environment, running_dbproxy
from identities import Cluster, write_destination
from lab_client import until

from dbproxy.lab import Lab

PROXY = "--proxy=127.0.0.1:1"
SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"


@asynccontextmanager
async def running_workers(
    destination: Path,
    *arguments: str | Path,
    workers: int = 2,
    home: Path | None = None,
    **options: Any,
) -> AsyncIterator[RunningCommand]:
    """Run several workers that no upstream is there for; all are ready."""
    async with running_dbproxy(
        *("--log-format=json", "db", "--destination-dir", destination, PROXY),
        *(f"--workers={workers}", *arguments),
        home=home or destination.parent,
        **options,
    ) as command:
        await all_ready(command, workers)
        yield command


async def all_ready(command: RunningCommand, count: int = 2) -> dict[int, int]:
    """Wait until that many workers have become ready, and return their processes by number."""
    await until(lambda: len(events(command, "worker-started")) >= count, PATIENCE)
    return {event["worker"]: event["pid"] for event in events(command, "worker-started")}


def events(command: RunningCommand, name: str) -> list[dict[str, Any]]:
    """What the log has of one kind so far."""
    entries = [json.loads(line) for line in command.err.received]
    return [entry for entry in entries if entry["event"] == name]


@contextmanager
def halted(process: int) -> Iterator[None]:
    """A process that does nothing for the length of the block, and keeps nobody from the log."""
    try:
        os.kill(process, signal.SIGSTOP)
        while holds_a_lock(process):
            os.kill(process, signal.SIGCONT)
            os.kill(process, signal.SIGSTOP)
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def holds_a_lock(process: int) -> bool:
    """Whether it has locked a part of a file; `/proc/locks` has the process in the fifth column."""
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(lock[1:2] == ["POSIX"] and lock[4] == str(process) for lock in locks)


async def gone(processes: list[int]) -> None:
    """Wait until these processes have ended, whether or not anybody has taken note of it."""
    await until(lambda: not any(map(runs, processes)), PATIENCE)


def runs(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def shown_certificate(port: int, ca_file: Path) -> bytes:
    """The certificate that a client with TLS meets, which it must trust."""
    context = ssl.create_default_context(cafile=ca_file)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(SSL_REQUEST)
        assert client.recv(1) == b"S"
        with context.wrap_socket(client, server_hostname="localhost") as tls:
            certificate = tls.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


class TestServing:
    async def test_each_worker_serves_real_clients_and_says_who_it_is(
        self, lab: Lab, tmp_path: Path
    ) -> None:
        async with running_at_lab(lab, tmp_path, "--workers=2") as (command, destination):
            processes = await all_ready(command)
            for idle, busy in ((1, 2), (2, 1)):
                with halted(processes[idle]):
                    connection = await connect(command, destination)
                    assert await trio.to_thread.run_sync(greet, connection) == "hello"
                    connection.close()
                    record = await command.event("connection-closed", worker=busy)
                    assert record["outcome"] == "relayed"
            assert await command.stop() == 0
        assert sum("Started DB proxy on" in line for line in command.out.received) == 1
        entries = [json.loads(line) for line in command.err.received]
        ours = [entry["event"] for entry in entries if "worker" not in entry]
        assert ours == ["identity-loaded", "listening", "draining", "stopped"]
        own = [entry for entry in entries if entry["event"] == "identity-loaded"][1:]
        assert sorted(entry["worker"] for entry in own) == [1, 2]
        assert [list(entry)[3] for entry in own] == ["worker"] * 2

    async def test_many_clients_at_once_are_all_served(self, lab: Lab, tmp_path: Path) -> None:
        count = 24
        async with running_at_lab(lab, tmp_path, "--workers=3") as (command, destination):
            await all_ready(command, 3)

            async def ask() -> None:
                connection = await connect(command, destination)
                assert await trio.to_thread.run_sync(greet, connection) == "hello"
                connection.close()

            async with trio.open_nursery() as nursery:
                for _ in range(count):
                    nursery.start_soon(ask)
            await until(lambda: len(events(command, "connection-closed")) >= count, PATIENCE)
            assert await command.stop() == 0
        records = events(command, "connection-closed")
        assert {record["outcome"] for record in records} == {"relayed"}
        assert len({(record["worker"], record["id"]) for record in records}) == count

    async def test_a_worker_that_is_killed_is_replaced_while_the_others_go_on(
        self, lab: Lab, tmp_path: Path
    ) -> None:
        async with running_at_lab(lab, tmp_path, "--workers=2") as (command, destination):
            processes = await all_ready(command)
            with halted(processes[1]):
                kept = await connect(command, destination)
            os.kill(processes[1], signal.SIGKILL)
            failure = await command.event("worker-failed")
            assert (failure["level"], failure["worker"]) == ("error", 1)
            assert failure["code"] == "worker-lost"
            assert f"(process {processes[1]}) was ended by SIGKILL" in failure["reason"]
            assert failure["next_step"]
            assert await trio.to_thread.run_sync(greet, kept) == "hello"
            replaced = await all_ready(command, 3)
            with halted(processes[2]):
                connection = await connect(command, destination)
                assert await trio.to_thread.run_sync(greet, connection) == "hello"
                connection.close()
                await command.event("connection-closed", worker=3)
            assert runs(replaced[3])
            kept.close()
            assert await command.stop() == 0

    async def test_while_no_worker_runs_clients_wait_in_the_queue_of_the_port(
        self, lab: Lab, tmp_path: Path
    ) -> None:
        async with running_at_lab(lab, tmp_path, "--workers=2") as (command, destination):
            for process in (await all_ready(command)).values():
                os.kill(process, signal.SIGKILL)
            connection = await connect(command, destination)
            assert await trio.to_thread.run_sync(greet, connection) == "hello"
            connection.close()
            assert await command.stop() == 0

    async def test_auto_uses_the_cpus_that_there_are(self, destination: Path) -> None:
        cpus = len(psutil.Process().cpu_affinity())
        arguments = ("--log-format=json", "db", "--destination-dir", destination, PROXY)
        async with running_dbproxy(
            *arguments, "--workers=auto", home=destination.parent
        ) as command:
            await command.started()
            if cpus > 1:
                await all_ready(command, cpus)
            assert len(psutil.Process(command.process.pid).children()) == (cpus if cpus > 1 else 0)
            assert await command.stop() == 0

    async def test_the_start_message_is_the_same(self, destination: Path) -> None:
        async with running_workers(destination, "--format=json") as command:
            facts = json.loads(await command.out.first(""))
            assert facts["address"].startswith("127.0.0.1:")
            assert (facts["mode"], facts["service"]) == ("passthrough", "example-server")
            assert await command.stop() == 0
        assert len(command.out.received) == 1

    async def test_with_terminate_every_worker_shows_one_certificate_also_later_ones(
        self, destination: Path, tmp_path: Path
    ) -> None:
        state = tmp_path / "state"
        env = {"STATE_DIRECTORY": str(state)}
        async with running_workers(destination, "--terminate", env=env) as command:
            port = await command.port()
            processes = await all_ready(command)
            ca_file = tmp_path / "ca.crt"
            shutil.copy(state / "dbproxy-ca.crt", ca_file)
            shutil.rmtree(state)  # so that a worker that looked there would make another authority
            shown = set()
            for idle in processes.values():
                with halted(idle):
                    shown.add(await trio.to_thread.run_sync(shown_certificate, port, ca_file))
            os.kill(processes[1], signal.SIGKILL)
            processes = await all_ready(command, 3)
            with halted(processes[2]):
                shown.add(await trio.to_thread.run_sync(shown_certificate, port, ca_file))
            assert len(shown) == 1
            environment = psutil.Process(processes[3]).environ()
            assert not any("PRIVATE" in value for value in environment.values())
            assert not state.exists()
            assert await command.stop() == 0

    async def test_a_standard_error_that_is_closed_stops_nobody(self, destination: Path) -> None:
        line = (
            f"exec {COMMAND} db --destination-dir={destination} {PROXY} --tunnel --workers=2"
            " <&- 2>&-"
        )
        process = await trio.lowlevel.open_process(
            ["sh", "-c", line],
            env=clean_environment(destination.parent),
            stdout=subprocess.PIPE,
        )
        command = RunningCommand(process)
        assert process.stdout is not None
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(command.out.collect, process.stdout)
                port = await command.port()
                async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                    await client.send_all(b"GET / HTTP/1.1\r\n\r\n")
                    assert b"[client-protocol-error]" in bytes(await client.receive_some())
                assert await command.stop() == 0


class TestSignals:
    async def test_sigterm_drains_every_worker_and_sums_up(self, lab: Lab, tmp_path: Path) -> None:
        arguments = ("--workers=2", "--drain-timeout=1s")
        async with running_at_lab(lab, tmp_path, *arguments) as (command, destination):
            processes = await all_ready(command)
            connections = []
            for idle in processes.values():
                with halted(idle):
                    connections.append(await connect(command, destination))
            command.process.send_signal(signal.SIGTERM)
            draining = await command.event("draining")
            assert (draining["open_connections"], draining["grace"]) == (2, 1.0)
            assert await trio.to_thread.run_sync(greet, connections[0]) == "hello"
            connections[1].close()
            assert await command.ended() == 0
            connections[0].close()
        assert [event["ended_early"] for event in events(command, "stopped")] == [1]
        assert len(events(command, "draining")) == 1
        assert '"stopped"' in command.err.received[-1]
        assert not any(map(runs, processes.values()))

    async def test_while_it_drains_no_client_is_let_in(self, lab: Lab, tmp_path: Path) -> None:
        arguments = ("--workers=2", "--drain-timeout=10m")
        async with running_at_lab(lab, tmp_path, *arguments) as (command, destination):
            await all_ready(command)
            connection = await connect(command, destination)
            command.process.send_signal(signal.SIGTERM)
            await command.event("draining")
            with pytest.raises(OSError, match="all attempts to connect"):
                await trio.open_tcp_stream("127.0.0.1", await command.port())
            connection.close()
            assert await command.ended() == 0

    async def test_sighup_reaches_every_worker(self, destination: Path, cluster: Cluster) -> None:
        async with running_workers(destination, workers=3) as command:
            write_destination(destination, cluster)
            command.process.send_signal(signal.SIGHUP)
            for worker in (1, 2, 3):
                await command.event("identity-loaded", worker=worker, generation=2)
            (destination / "tlscert").write_text("")
            command.process.send_signal(signal.SIGHUP)
            for worker in (1, 2, 3):
                await command.event("identity-reload-failed", worker=worker)
            assert await command.stop() == 0

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    async def test_a_signal_to_the_whole_group_drains_and_a_second_one_ends_at_once(
        self, lab: Lab, tmp_path: Path, number: signal.Signals
    ) -> None:
        arguments = ("--workers=2", "--drain-timeout=10m")
        async with running_at_lab(lab, tmp_path, *arguments, own_group=True) as (
            command,
            destination,
        ):
            await all_ready(command)
            connection = await connect(command, destination)
            os.killpg(command.process.pid, number)
            assert (await command.event("draining", open_connections=1))["grace"] == 600.0
            assert await trio.to_thread.run_sync(greet, connection) == "hello"
            os.killpg(command.process.pid, signal.SIGINT)
            assert await command.ended() == 0
            connection.close()
        assert events(command, "worker-failed") == []
        assert events(command, "stopped")[-1]["ended_early"] == 1

    async def test_ctrl_c_while_the_workers_begin_ends_all_without_a_complaint(
        self, destination: Path
    ) -> None:
        arguments = ("--log-format=json", "db", "--destination-dir", destination, PROXY)
        async with running_dbproxy(
            *arguments, "--workers=4", home=destination.parent, own_group=True
        ) as command:
            await command.event("listening")
            workers = psutil.Process(command.process.pid).children()
            os.killpg(command.process.pid, signal.SIGINT)
            assert await command.ended() == 0
            await gone([worker.pid for worker in workers])
        assert command.out.received == []
        assert not [line for line in command.err.received if json.loads(line)["level"] == "error"]

    async def test_sigterm_to_one_worker_drains_and_replaces_it(
        self, lab: Lab, tmp_path: Path
    ) -> None:
        async with running_at_lab(lab, tmp_path, "--workers=2") as (command, destination):
            processes = await all_ready(command)
            with halted(processes[2]):
                connection = await connect(command, destination)
            os.kill(processes[1], signal.SIGTERM)
            await command.event("draining", worker=1, open_connections=1)
            assert await trio.to_thread.run_sync(greet, connection) == "hello"
            connection.close()
            await command.event("stopped", worker=1, ended_early=0)
            await all_ready(command, 3)
            assert await command.stop() == 0
        assert events(command, "worker-failed") == []

    async def test_a_supervisor_that_is_killed_leaves_nothing_behind(
        self, lab: Lab, tmp_path: Path
    ) -> None:
        arguments = ("--workers=2", "--drain-timeout=10m")
        async with running_at_lab(lab, tmp_path, *arguments) as (command, destination):
            processes = await all_ready(command)
            port = await command.port()
            connection = await connect(command, destination)
            command.process.kill()
            for worker in (1, 2):
                lost = await command.event("supervisor-lost", worker=worker)
                assert (lost["level"], bool(lost["next_step"])) == ("error", True)
                await command.event("draining", worker=worker)
            socket.create_server(("127.0.0.1", port)).close()
            assert await trio.to_thread.run_sync(greet, connection) == "hello"
            connection.close()
            await gone([*processes.values()])

    async def test_only_the_supervisor_removes_a_unix_socket(self, destination: Path) -> None:
        path = destination.parent / ".s.PGSQL.5432"
        arguments = ("--tunnel", f"--listen=unix://{path}")
        async with running_workers(destination, *arguments) as command:
            processes = await all_ready(command)
            os.kill(processes[1], signal.SIGTERM)
            await command.event("stopped", worker=1)
            await all_ready(command, 3)
            await (await trio.open_unix_socket(path)).aclose()
            assert path.stat().st_mode & 0o777 == 0o600
            assert await command.stop() == 0
        assert not path.exists()


class TestMistakes:
    @pytest.mark.parametrize("damage", ["missing", "malformed", "usage"])
    def test_a_mistake_at_start_is_told_once_as_without_workers(
        self, run: Run, destination: Path, damage: str
    ) -> None:
        arguments: list[str | Path] = ["db", "--destination-dir", destination, PROXY]
        match damage:
            case "missing":
                (destination / "key").unlink()
            case "malformed":
                (destination / "key").write_text("-----BEGIN")
            case "usage":
                arguments += ["--listen=tcp://192.0.2.1:1"]
        alone, together = (run(*arguments, f"--workers={count}") for count in (1, 3))
        assert together == alone
        assert together.status == (2 if damage == "usage" else 1)
        assert together.err.count("error: ") == 1

    def test_a_port_in_use_is_named(self, run: Run, destination: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            arguments = ("--destination-dir", destination, PROXY, f"--port={port}")
            outcome = run("db", *arguments, "--workers=2")
        assert (outcome.status, outcome.out) == (1, "")
        assert outcome.error.endswith("another process uses it [address-in-use]")
        assert outcome.err.count("error: ") == 1

    def test_a_start_message_that_cannot_be_written_ends_every_worker(
        self, destination: Path
    ) -> None:
        arguments = ("db", "--tunnel", "--destination-dir", destination, PROXY, "--workers=2")
        with Path("/dev/full").open("wb") as full:
            process = subprocess.run(
                [COMMAND, *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=PATIENCE,
                env=clean_environment(destination.parent),
                check=False,
            )
        assert process.returncode == 1
        complaints = [line for line in process.stderr.splitlines() if "error" in line.lower()]
        assert len(complaints) == 1
        assert complaints[0].startswith("dbproxy: error: cannot write the start message")

    @pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "", "257"])
    def test_a_number_that_makes_no_sense_is_refused(
        self, run: Run, destination: Path, text: str
    ) -> None:
        arguments = ("db", "--destination-dir", destination, PROXY)
        outcome = run(*arguments, f"--workers={text}")
        assert (outcome.status, outcome.out) == (2, "")
        assert "--workers" in outcome.error
        if text:
            outcome = run(*arguments, env={"DBPROXY_WORKERS": text})
            assert outcome.status == 2
            assert "DBPROXY_WORKERS" in outcome.error

    def test_start_says_that_it_has_no_workers(self, run: Run) -> None:
        outcome = run("start", "--workers=2")
        assert outcome.status == 2
        assert outcome.error == (
            "dbproxy: error: no such option --workers here: it is one of `dbproxy db` [usage]"
        )

    def test_nobody_can_pretend_to_be_a_supervisor(self, run: Run, destination: Path) -> None:
        outcome = run(
            *("db", "--destination-dir", destination, PROXY),
            env={"DBPROXY_HANDOVER": '{"version": "0"}'},
        )
        assert outcome.status == 2
        assert "its command has been replaced" in outcome.error
        outcome = run(
            *("db", "--destination-dir", destination, PROXY), env={"DBPROXY_HANDOVER": "1"}
        )
        assert outcome.status == 2
        assert "DBPROXY_HANDOVER" in outcome.error
