"""Load generators as their databases bring them: how each is run through dbproxy, and read.

Each comes in two kinds: connections that stay, and a new connection for each request.
"""

import os
import re
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from comparison.pgbench import preload
from drivers import Endpoint
from drivers.postgres import conninfo

CLIENTS: Final = 8
FEW: Final = 10
"""Transactions of each client of pgbench, without a time."""
TIMEOUT: Final = 120.0
"""Seconds beyond the time that was given."""


class ProgramFailed(Exception):
    """A load generator said that something went wrong, or nothing that can be read."""


@dataclass(frozen=True)
class Outcome:
    """What a load generator has done.

    Attributes:
        requests: Transactions, queries or commands.
        seconds: How long it took.
    """

    requests: int
    seconds: float


class LoadGenerator(ABC):
    """One program.

    Attributes:
        name: As people call it.
        protocol: The database protocol.
        reconnects: Whether each request is a new connection.
        leaves_early: Whether it leaves connections that it does not need any more, while they are
            being made.
    """

    name: ClassVar[str]
    protocol: ClassVar[str]
    leaves_early: ClassVar[bool] = False

    def __init__(self, *, reconnects: bool) -> None:
        self.reconnects = reconnects

    @property
    def title(self) -> str:
        """Its name, and of which kind it is."""
        return f"{self.name}, {'a connection each' if self.reconnects else 'connections stay'}"

    @abstractmethod
    def run(self, endpoint: Endpoint, seconds: float) -> Outcome:
        """Run it for that long, or a little longer; for 0 seconds, a few requests.

        Raises:
            ProgramFailed: Not everything went well.
        """


@dataclass(frozen=True)
class _Repeated:
    """A program that takes a number instead of a time, run until the time is over."""

    words: Sequence[str]
    requests: int

    def run(self, seconds: float) -> Outcome:
        began = time.monotonic()
        requests = 0
        while requests == 0 or time.monotonic() - began < seconds:
            run(self.words)
            requests += self.requests
        return Outcome(requests, time.monotonic() - began)


def batch(reconnects: bool, seconds: float) -> int:
    """How many requests a program makes that takes a number."""
    each = 40 if reconnects else 1000
    return 10 * each if seconds else each


class Pgbench(LoadGenerator):
    """TPC-B-like transactions, or selects with a connection for each.

    Args:
        program: Its path.
        reconnects: Whether each transaction is a new connection.
    """

    name = "pgbench"
    protocol = "postgres"

    def __init__(self, program: Path, *, reconnects: bool) -> None:
        super().__init__(reconnects=reconnects)
        self._program = program

    def initialize(self, parameters: str) -> None:
        """Make its tables."""
        run([str(self._program), "--initialize", "--quiet", parameters], preload())

    def run(self, endpoint: Endpoint, seconds: float) -> Outcome:
        script = ["--builtin=select-only", "--connect"] if self.reconnects else []
        words = [
            *(str(self._program), "--no-vacuum", f"--client={CLIENTS}", "--jobs=2", *script),
            f"--time={max(1, round(seconds))}" if seconds else f"--transactions={FEW}",
            conninfo(endpoint),
        ]
        began = time.monotonic()
        said = run(words, preload())
        done = re.search(r"^number of transactions actually processed: (\d+)", said, re.MULTILINE)
        failed = re.search(r"^number of failed transactions: (\d+)", said, re.MULTILINE)
        if done is None or failed is None or int(failed[1]) > 0:
            raise ProgramFailed(said)
        return Outcome(int(done[1]), time.monotonic() - began)


class MariadbSlap(LoadGenerator):
    """`mysqlslap`, as MariaDB calls it: one query, over and over."""

    name = "mariadb-slap"
    protocol = "mysql"

    def run(self, endpoint: Endpoint, seconds: float) -> Outcome:
        requests = batch(self.reconnects, seconds)
        files = {
            "--ssl-ca": endpoint.ca_file,
            "--ssl-cert": endpoint.certificate_file,
            "--ssl-key": endpoint.key_file,
        }
        words = [
            *("mariadb-slap", "--no-defaults", "--protocol=tcp", "--host=localhost"),
            *(f"--port={endpoint.port}", f"--user={endpoint.user}"),
            *(f"{option}={file}" for option, file in files.items() if file is not None),
            *(["--ssl-verify-server-cert"] if endpoint.has_tls else ["--skip-ssl"]),
            *(f"--create-schema={endpoint.database}", "--no-drop", "--csv"),
            *(["--detach=1"] if self.reconnects else []),
            "--query=SELECT words FROM greetings WHERE id = 1",
            *(f"--concurrency={CLIENTS}", f"--number-of-queries={requests}"),
        ]
        return _Repeated(words, requests).run(seconds)


class RedisBenchmark(LoadGenerator):
    """SET and GET."""

    name = "redis-benchmark"
    protocol = "redis"
    leaves_early = True

    def run(self, endpoint: Endpoint, seconds: float) -> Outcome:
        each = batch(self.reconnects, seconds)
        files = {
            "--cacert": endpoint.ca_file,
            "--cert": endpoint.certificate_file,
            "--key": endpoint.key_file,
        }
        named = [word for option, file in files.items() if file for word in (option, str(file))]
        words = [
            *("redis-benchmark", "-h", "localhost", "-p", str(endpoint.port)),
            *(["--tls", *named] if endpoint.has_tls else []),
            *("-c", str(CLIENTS), "-n", str(each), "-k", str(int(not self.reconnects))),
            *("-t", "set,get", "--csv"),
        ]
        return _Repeated(words, 2 * each).run(seconds)


def load_generators(pgbench: Path) -> list[LoadGenerator]:
    """All of them.

    Args:
        pgbench: The program of the PostgreSQL that is used.
    """
    return [
        Pgbench(pgbench, reconnects=True),
        Pgbench(pgbench, reconnects=False),
        MariadbSlap(reconnects=True),
        MariadbSlap(reconnects=False),
        RedisBenchmark(reconnects=True),
        RedisBenchmark(reconnects=False),
    ]


def run(words: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """Run a program to its end; returns what it printed.

    Raises:
        ProgramFailed: It ended with an error, or spoke of one.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=kept | {"LC_ALL": "C"} | (environment or {}),
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode or re.search("error|abort|fail", done.stderr, re.IGNORECASE):
        raise ProgramFailed(f"{words[0]}: {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout
