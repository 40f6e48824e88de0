from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from lab_client import until

from dbproxy.lab import postgres as lab_postgres
from dbproxy.lab.errors import LabError
from dbproxy.lab.postgres import (
    EmbeddedPostgres,
    execute,
    open_embedded_postgres,
    start_embedded_postgres,
    stop_embedded_postgres,
)

KILLED_OWNER = """
import os, sys
from pathlib import Path
from dbproxy.lab import postgres
if sys.argv[2] == "copied":
    postgres._is_executable_by = lambda *_: False
    if os.geteuid() != 0:
        postgres._server_account = lambda: postgres._Account(os.geteuid(), os.getegid())
server = postgres.start_embedded_postgres(Path(sys.argv[1]))
print(server.log.parent, flush=True)
sys.stdin.read()
"""


def server_pid(postgres: EmbeddedPostgres) -> int:
    return int((postgres.log.parent / "data" / "postmaster.pid").read_text().split()[0])


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_runs_version_18_and_is_gone_after_the_block(tmp_path: Path) -> None:
    async with open_embedded_postgres(tmp_path / "pg") as postgres:
        assert (await postgres.execute("SHOW server_version_num")).startswith("18")
        pid = server_pid(postgres)
        assert postgres.address.endswith("/.s.PGSQL.5432")
        assert (postgres.bin_directory / "psql").exists()
        base = postgres.socket_directory
    assert not is_running(pid)
    assert base == tmp_path / "pg" or not base.exists()


async def test_it_is_gone_after_cancellation(tmp_path: Path) -> None:
    pid = 0
    with trio.CancelScope() as scope:
        async with open_embedded_postgres(tmp_path / "pg") as postgres:
            pid = server_pid(postgres)
            scope.cancel()
            await trio.sleep_forever()
    assert pid
    assert not is_running(pid)


@pytest.mark.parametrize("installation", ["in its place", "copied"])
def test_it_is_gone_after_its_owner_was_killed(installation: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_OWNER, str(tmp_path / "pg"), installation]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        base = Path(owner.stdout.readline().decode().strip())
        pid_file = base / "data" / "postmaster.pid"
        pid = int(pid_file.read_text().split()[0])
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    trio.run(until, lambda: not is_running(pid), 10)
    if base != tmp_path / "pg":
        trio.run(until, lambda: not base.exists(), 10)


async def test_stopping_twice_is_harmless(tmp_path: Path) -> None:
    async with open_embedded_postgres(tmp_path / "pg") as postgres:
        await trio.to_thread.run_sync(stop_embedded_postgres, postgres)


async def test_a_path_too_long_for_a_socket_is_no_obstacle(tmp_path: Path) -> None:
    async with open_embedded_postgres(tmp_path / ("long" * 30)) as postgres:
        assert len(postgres.address) < 107
        assert await postgres.execute("SELECT 1") == "1\n"


def test_a_directory_that_serves_is_used(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    directory = tmp_path_factory.mktemp("pg")
    monkeypatch.setattr("dbproxy.lab.postgres.subprocess.Popen", not_started)
    monkeypatch.setattr("dbproxy.lab.postgres._run", lambda *_arguments, **_options: "")
    with pytest.raises(NotStartedError) as caught:
        start_embedded_postgres(directory)
    assert str(directory / "data") in caught.value.args[0]


class NotStartedError(Exception):
    """Carries the command that would have been run."""


def not_started(command: list[str], **_options: object) -> None:
    raise NotStartedError(command)


def test_a_failing_statement_is_quoted(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(LabError, match='column "nonsense" does not exist'):
        execute(postgres, "SELECT nonsense")


async def test_an_installation_that_the_servers_user_cannot_enter_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab_postgres, "_is_executable_by", lambda *_: False)
    if os.geteuid() != 0:
        myself = lab_postgres._Account(os.geteuid(), os.getegid())
        monkeypatch.setattr(lab_postgres, "_server_account", lambda: myself)
    async with open_embedded_postgres(tmp_path / "pg") as postgres:
        assert postgres.log.parent in postgres.bin_directory.parents
        assert (await postgres.execute("SELECT 1")).strip() == "1"


async def test_a_missing_package_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(LabError, match=r"pip install '.*\[demo\]'"):
        async with open_embedded_postgres(tmp_path):
            pass


async def test_a_server_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbproxy.lab.postgres.THROW_AWAY_SETTINGS", {"max_connections": "x"})
    with pytest.raises(LabError, match="invalid value for parameter"):
        async with open_embedded_postgres(tmp_path):
            pass
