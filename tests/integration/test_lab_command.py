"""`dbproxy lab` as a user runs it: a process, its output, its signals, its exit status."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from lab_client import query, read_until, startup, until
from upgraded_client import LEGACY, ask, start_tls

from dbproxy.lab.postgres import EmbeddedPostgres

LAB = [sys.executable, "-m", "dbproxy", "lab"]


@dataclass
class Running:
    """A running `dbproxy lab`; `output` grows as it prints."""

    process: trio.Process
    output: list[str]

    def value(self, label: str) -> str:
        """What a line of the summary says."""
        line = next(line for line in self.output if line.strip().startswith(label))
        return line.split(label, 1)[1].strip()

    async def wait_for(self, text: str) -> str:
        """The first line with this text."""
        with trio.fail_after(20):
            while True:
                for line in self.output:
                    if text in line:
                        return line
                await trio.sleep(0.01)


@asynccontextmanager
async def run_lab(*arguments: str) -> AsyncIterator[Running]:
    """Runs the command; ends it with SIGTERM unless it has ended."""
    process = await trio.lowlevel.open_process(
        [*LAB, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    running = Running(process, [])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect_lines, running)
        try:
            yield running
        finally:
            with trio.CancelScope(shield=True):
                if process.poll() is None:
                    process.terminate()
                with trio.fail_after(10):
                    await process.wait()
    assert process.stdout is not None
    await process.stdout.aclose()


async def collect_lines(running: Running) -> None:
    assert running.process.stdout is not None
    rest = ""
    async for data in running.process.stdout:
        *lines, rest = (rest + data.decode()).split("\n")
        running.output += lines


async def test_it_serves_holders_of_the_certificates_that_it_writes(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    destination = tmp_path / "machine-id"
    async with run_lab(
        f"--database={postgres.address}",
        f"--directory={tmp_path / 'state'}",
        f"--destination={destination}",
        "--listen=127.0.0.1:0",
        "--ping-interval=100ms",
    ) as running:
        address = (await running.wait_for("is running")).rsplit(" ", 1)[1]
        await running.wait_for("Ctrl-C ends the cluster.")
        assert running.value("database") == f"example-server (postgres) at {postgres.address}"
        assert running.value("roles") == "machine-id-db"
        host, port = address.rsplit(":", 1)
        context = ssl.create_default_context(cafile=running.value("web CA"))
        context.load_cert_chain(destination / "tlscert", destination / "key")
        context.set_alpn_protocols(["teleport-postgres"])
        tls = await trio.open_ssl_over_tcp_stream(
            host, int(port), ssl_context=context, https_compatible=True
        )
        async with tls:
            await tls.send_all(startup(user="alice", database="example"))
            assert (await read_until(tls, "Z"))[-1][0] == "Z"
            await tls.send_all(query("SELECT 1") + b"X\0\0\0\4")
            await read_until(tls, "Z")
        await running.wait_for("session ended: alice@example on example-server (bot-app):")
        running.process.send_signal(signal.SIGINT)
        assert await running.process.wait() == 0
    assert (tmp_path / "state" / "audit.jsonl").read_text().count("\n") == 2


async def test_it_renews_certificates_and_ends_on_sigterm(tmp_path: Path) -> None:
    destination = tmp_path / "machine-id"
    async with run_lab(
        "--database=127.0.0.1:5432",
        f"--destination={destination}",
        "--certificate-ttl=10s",
        "--renewal-interval=300ms",
    ) as running:
        await running.wait_for("Ctrl-C ends the cluster.")
        state = Path(running.value("web CA")).parent
        first = (destination / "tlscert").read_bytes()
        await until(lambda: (destination / "tlscert").read_bytes() not in {first, b""}, 10)
        running.process.send_signal(signal.SIGTERM)
        assert await running.process.wait() == 0
    assert not state.exists()


async def test_it_may_stand_behind_a_balancer_and_be_old(tmp_path: Path) -> None:
    async with run_lab(
        "--database=127.0.0.1:5432",
        f"--destination={tmp_path / 'machine-id'}",
        "--balancer",
        "--no-ping",
    ) as running:
        await running.wait_for("Ctrl-C ends the cluster.")
        address = running.value("balancer").split(",")[0]
        context = ssl.create_default_context(cafile=running.value("web CA"))
        context.set_alpn_protocols(["teleport-reversetunnel"])
        outer = await open_tls(address, context)
        async with outer:
            assert outer.selected_alpn_protocol() is None
            found = json.loads((await ask(outer, "/webapi/find")).body)
            assert found["proxy"]["ssh"]["public_addr"] == address
            await ask(outer, "/webapi/connectionupgrade", LEGACY)
            host_ca = tmp_path / "machine-id" / "teleport-host-ca.crt"
            inner_context = ssl.create_default_context(cafile=host_ca)
            inner_context.set_alpn_protocols(["teleport-postgres-ping", "teleport-postgres"])
            inner = await start_tls(outer, inner_context)
            assert inner.selected_alpn_protocol() == "teleport-postgres"
        port = address.rsplit(":", 1)[1]
        assert any(f"--proxy=localhost:{port}" in line for line in running.output)


async def open_tls(address: str, context: ssl.SSLContext) -> trio.SSLStream[trio.abc.Stream]:
    host, port = address.rsplit(":", 1)
    return await start_tls(await trio.open_tcp_stream(host, int(port)), context)


async def test_several_databases_get_a_directory_each(tmp_path: Path) -> None:
    async with run_lab(
        "--database=one=127.0.0.1:5432",
        "--database=two=unix:///run/a=b",
        f"--destination={tmp_path / 'ids'}",
    ) as running:
        await running.wait_for("Ctrl-C ends the cluster.")
        names = sorted(path.name for path in (tmp_path / "ids").iterdir())
        assert names == ["one", "two"]


async def test_two_of_them_do_not_share_a_directory(tmp_path: Path) -> None:
    state, destination = tmp_path / "state", tmp_path / "ids"
    arguments = ["--database=127.0.0.1:5432", f"--directory={state}"]
    async with run_lab(*arguments, f"--destination={destination}") as running:
        await running.wait_for("Ctrl-C ends the cluster.")
        written = (destination / "tlscert").read_bytes()
        for shared in ([f"--directory={state}"], [f"--destination={tmp_path}/x/../ids"]):
            async with run_lab("--database=127.0.0.1:5432", *shared) as second:
                await second.wait_for("is in use by another dbproxy lab")
                assert await second.process.wait() == 1
        assert (destination / "tlscert").read_bytes() == written
    async with run_lab(*arguments) as third:
        await third.wait_for("Ctrl-C ends the cluster.")


async def test_of_a_database_that_is_no_postgres_it_names_dbproxy_connect() -> None:
    async with run_lab("--database=127.0.0.1:1", "--protocol=redis") as running:
        await running.wait_for("Ctrl-C ends the cluster.")
    (line,) = (line for line in running.output if " connect " in line)
    assert line.split()[0] == "dbproxy"
    assert line.endswith(" connect example-server")
    assert not any("psql" in line for line in running.output)


async def test_a_database_that_does_not_answer_is_told_at_the_start() -> None:
    async with run_lab("--database=127.0.0.1:1") as running:
        warning = await running.wait_for("warning: ")
    assert (
        "the database example-server at 127.0.0.1:1 cannot be reached (Connection refused)"
        in warning
    )


async def test_a_database_that_answers_is_no_reason_to_warn(postgres: EmbeddedPostgres) -> None:
    async with run_lab(f"--database={postgres.address}") as running:
        await running.wait_for("Ctrl-C ends the cluster.")
        await trio.sleep(0.2)
    assert not [line for line in running.output if "warning" in line]


def test_it_ends_quietly_when_nobody_reads_it_any_more() -> None:
    script = 'set -o pipefail; "$@" | true'
    command = ["bash", "-c", script, "bash", *LAB, "--database=127.0.0.1:1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (run.returncode, run.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--foo"], 2, "no such option --foo [usage]"),
        ([], 2, "--database: give the address of a real database"),
        (["--database=127.0.0.1"], 2, "expected HOST:PORT or unix:///PATH"),
        (["--database=a:1", "--database=b:1"], 2, "two databases named example-server"),
        (["--database=a:1", "--certificate-ttl=soon"], 2, "not a duration"),
        (["--database=a:1", "--renewal-interval=0s"], 2, "not longer than zero"),
        (["--database=a:1", "--listen=here"], 2, "is not an address"),
        (["--database=a:1", "--listen=192.0.2.1:1"], 1, "cannot listen on 192.0.2.1:1"),
        (["--database=a:1", "--role=/missing"], 1, "cannot use /missing: No such file"),
        (["--database=a:1", "--role=/dev/null"], 1, "/dev/null: role: the text holds no document"),
        (["--database=a:1", "--directory=/proc/none"], 1, "cannot use /proc/none"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: list[str], status: int, text: str) -> None:
    run = subprocess.run(
        [*LAB, *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    assert run.returncode == status
    assert text in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
