"""`dbproxy demo`: it shows what it says, and nothing of it stays behind."""

import re
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
import trio
from commands import COMMAND, PATIENCE, RunningCommand, clean_environment, running_dbproxy

INTERRUPTED = 130
STEPS = 11

HIDE_THE_EXTRA = "import sys; sys.modules['psycopg'] = None\n"
BREAK_THE_TUNNEL = """
import os, sys
if "--tunnel" in sys.orig_argv:
    os.write(2, b"the tunnel is broken today")
    os._exit(1)
"""


@asynccontextmanager
async def running_demo(
    directory: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[RunningCommand]:
    """The demo, with a directory for temporary files to itself."""
    with temporary_files() as variables:
        more = {**variables, **(env or {})}
        async with running_dbproxy("demo", *arguments, home=directory, env=more) as demo:
            yield demo


@contextmanager
def temporary_files() -> Iterator[Mapping[str, str]]:
    """An environment for the demo, after which nothing may be left of it."""
    with tempfile.TemporaryDirectory(prefix="test-demo-") as name:
        temporary = Path(name)
        temporary.chmod(0o711)  # PostgreSQL, which root runs as `nobody`, must pass through
        yield {"TMPDIR": name}
        assert list(temporary.iterdir()) == []
        assert list(processes_of(temporary)) == []


def processes_of(temporary: Path) -> Iterator[list[str]]:
    """The command lines of processes that name the directory."""
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        if any(str(temporary) in word for word in command):
            yield command


def python_path(directory: Path, sitecustomize: str) -> dict[str, str]:
    """An environment in which each Python runs some code at its start."""
    library = directory / "library"
    library.mkdir()
    (library / "sitecustomize.py").write_text(sitecustomize)
    return {"PYTHONPATH": str(library)}


async def test_the_demo_runs_to_its_end_and_leaves_nothing_behind(tmp_path: Path) -> None:
    looks = {"TERM": "xterm-256color", "COLUMNS": "40"}
    async with running_demo(tmp_path, env=looks) as demo:
        assert await demo.ended() == 0
        await demo.out.first("^Done in")
    told = "\n".join(demo.out.received)
    assert len(re.findall(r"^\d+\. ", told, re.MULTILINE)) == STEPS
    for mode in ("passthrough", "terminate", "tunnel"):
        assert re.search(f"{mode}, sslmode=.*: Mercury, Venus, Earth, Mars", told)
    assert "client-certificate-missing" in told
    assert "new connections use the new certificate" in told
    assert told.replace("\n", "").isprintable(), "colours or cursor movements in a log file"
    assert demo.err.received == []


@pytest.mark.parametrize("moment", ["^dbproxy demo", "^10[.]"])
async def test_ctrl_c_ends_the_demo_at_any_time(moment: str, tmp_path: Path) -> None:
    async with running_demo(tmp_path) as demo:
        await demo.out.first(moment)
        assert await demo.stop(signal.SIGINT) == INTERRUPTED
        await demo.out.first("^Interrupted")
    assert demo.err.received == []


async def test_with_keep_it_stays_up_and_its_psql_lines_work(tmp_path: Path) -> None:
    async with running_demo(tmp_path, "--keep") as demo:
        await demo.out.first("^All of it stays up")
        lines = [line for line in demo.out.received if line.startswith("psql ")]
        assert len(lines) == 3
        for line in lines:
            rows = await trio.to_thread.run_sync(query, line.split("'")[1])
            assert rows == [(4,)]
        assert await demo.stop(signal.SIGTERM) == 0
        await demo.out.first("^Done in")


def query(conninfo: str) -> list[tuple[object, ...]]:
    with psycopg.connect(conninfo, connect_timeout=10) as connection:
        return connection.execute("SELECT count(*) FROM planets").fetchall()


async def test_the_users_own_settings_do_not_disturb_it(tmp_path: Path) -> None:
    env = {
        "DBPROXY_PORT": "1",
        "DBPROXY_TERMINATE": "1",
        "TBOT_CONFIG_PATH": "/nowhere",
        "PGHOST": "nowhere.example.com",
        "PGSSLMODE": "disable",
        "STATE_DIRECTORY": "/nowhere",
        "SSL_CERT_FILE": "/nowhere",
    }
    async with running_demo(tmp_path, env=env) as demo:
        assert await demo.ended() == 0


async def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    async with running_demo(tmp_path, env=python_path(tmp_path, HIDE_THE_EXTRA)) as demo:
        assert await demo.ended() == 1
        await demo.err.first(r"pip install '/path/to/checkout\[demo\]'$")
    assert len(demo.err.received) == 1
    assert demo.out.received == []


async def test_a_failed_step_says_what_failed(tmp_path: Path) -> None:
    async with running_demo(tmp_path, env=python_path(tmp_path, BREAK_THE_TUNNEL)) as demo:
        assert await demo.ended() == 1
        await demo.out.first("✗ .*did not start: the tunnel is broken today")
        await demo.out.first("^The demo failed")
    assert demo.err.received == []


def test_it_ends_quietly_when_nobody_reads_it_any_more(tmp_path: Path) -> None:
    script = 'set -o pipefail; "$0" demo | { read -r line; echo "$line"; }'
    with temporary_files() as variables:
        ended = subprocess.run(
            ["bash", "-c", script, COMMAND],
            env=clean_environment(tmp_path, variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert ended.returncode == 128 + signal.SIGPIPE
    assert ended.stdout.startswith("dbproxy demo")
    assert ended.stderr == ""
