"""A real MariaDB for the tests: a server of its own that lasts as long as a block.

It listens on a Unix socket only, in a directory of its own, and users without a password can reach
it. A small shell between the two watches a pipe from this process: however this process ends, the
pipe closes and the server is told to stop.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

START_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 20.0
WATCHED: Final = """
exec 3<&0 </dev/null
"$@" 3<&- & server=$!
{ read -r _ <&3; trap '' TERM; kill -KILL "$server"; exit 0; } & watcher=$!
wait "$server"; status=$?
kill "$watcher" 2>/dev/null
exit "$status"
"""
SETTINGS: Final = (
    "--skip-networking",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=8M",
    "--skip-log-bin",
    "--performance-schema=OFF",
    "--character-set-server=utf8mb4",
)
SCHEMA: Final = """
CREATE USER alice@localhost; CREATE USER bob@localhost;
CREATE DATABASE example; CREATE DATABASE secret;
GRANT ALL ON example.* TO alice@localhost;
CREATE USER carol@localhost IDENTIFIED VIA mysql_native_password USING PASSWORD('secret');
GRANT ALL ON example.* TO carol@localhost;
USE example;
CREATE TABLE greetings (id INT PRIMARY KEY, words VARCHAR(50) NOT NULL);
INSERT INTO greetings VALUES (1, 'hello'), (2, 'bonjour'), (3, 'grüß Gott');
"""
"""What tests begin with."""


@dataclass
class MariaDB:
    """A running server.

    Attributes:
        directory: Where it keeps everything.
    """

    directory: Path
    _process: "subprocess.Popen[bytes]" = field(repr=False)

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self.directory / "s"

    @property
    def address(self) -> str:
        """For the lab: `unix:///…`."""
        return f"unix://{self.socket}"

    def execute(self, sql: str) -> str:
        """Run statements as the administrator; returns what the client prints."""
        return subprocess.run(
            [_program("mariadb"), "--no-defaults", f"--socket={self.socket}", "-uroot", "-N"],
            input=sql,
            text=True,
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout


@contextmanager
def mariadb_server() -> Iterator[MariaDB]:
    """Run a server for the length of the block."""
    directory = Path(tempfile.mkdtemp(prefix="dbproxy-mariadb-"))
    try:
        _make_data(directory)
        server = MariaDB(directory, _launch(directory))
        try:
            _wait_until_ready(server)
            yield server
        finally:
            _stop(server)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _program(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    assert path is not None, f"{name} is missing: install mariadb-server-core"
    return path


def _as_root() -> tuple[str, ...]:
    return ("--user=root",) if os.geteuid() == 0 else ()


def _make_data(directory: Path) -> None:
    subprocess.run(
        [
            *(_program("mariadb-install-db"), "--no-defaults", f"--datadir={directory / 'data'}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db", *_as_root()),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )


def _launch(directory: Path) -> "subprocess.Popen[bytes]":
    server = [
        *(_program("mariadbd"), "--no-defaults", f"--datadir={directory / 'data'}"),
        *(f"--socket={directory / 's'}", f"--pid-file={directory / 'pid'}", *SETTINGS, *_as_root()),
    ]
    with (directory / "server.log").open("ab") as log:
        return subprocess.Popen(
            ["/bin/sh", "-c", WATCHED, "sh", *server],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait_until_ready(server: MariaDB) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not server.socket.exists():
        log = (server.directory / "server.log").read_text(errors="replace")
        assert server._process.poll() is None, f"MariaDB did not start: {log}"
        assert time.monotonic() < deadline, f"MariaDB did not start in time: {log}"
        time.sleep(0.02)


def _stop(server: MariaDB) -> None:
    process = server._process
    if process.stdin is not None:
        process.stdin.close()
    process.wait(STOP_TIMEOUT)
