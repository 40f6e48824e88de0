"""`pgbench` through each mode against a real PostgreSQL.

In the path: pgbench, the proxy, our upstream, PostgreSQL's Unix socket. The upstream carries the
bytes and looks at nothing. `direct` is pgbench on the Unix socket, without proxy, upstream and TLS.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import trio
from psycopg.conninfo import make_conninfo

from comparison.certificates import Files, write_files
from comparison.measure import Progress, Round, Standing
from comparison.processes import BenchError, clean_environment
from comparison.programs import Programs, Upstream, running_upstream
from comparison.results import Results
from comparison.rows import Row
from dbproxy.lab.errors import LabError
from dbproxy.lab.postgres import SOCKET_NAME, SUPERUSER, EmbeddedPostgres, open_embedded_postgres

SCALE: Final = 10
CLIENTS: Final = 8
SECONDS: Final = 2
ROUNDS: Final = 3
TIMEOUT: Final = 120.0
DIRECT: Final = "direct"
TPS: Final = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)
TRANSACTIONS: Final = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Script:
    """One of pgbench's built-in scripts.

    Attributes:
        name: As a run is named.
        title: For people.
        options: Of pgbench.
    """

    name: str
    title: str
    options: tuple[str, ...]


SCRIPTS: Final = (
    Script(
        "pgbench-select",
        f"pgbench, select only, {CLIENTS} clients",
        ("--builtin=select-only",),
    ),
    Script("pgbench-tpcb", f"pgbench, TPC-B-like, {CLIENTS} clients", ("--builtin=tpcb-like",)),
)

Parameters = Callable[[Standing], dict[str, str]]


def plaintext(standing: Standing) -> dict[str, str]:
    """To a port that takes plaintext."""
    return {"host": "127.0.0.1", "port": str(standing.site.port), "sslmode": "disable"}


def secured(standing: Standing) -> dict[str, str]:
    """With TLS and tbot's certificate; dbproxy's start message says whom to trust."""
    assert standing.proxy is not None
    started = json.loads(standing.proxy.wait_for_output())
    cert, key = standing.site.files.client
    host_ca = standing.site.files.destination / "teleport-host-ca.crt"
    return {
        "host": "localhost",
        "port": str(standing.site.port),
        "sslmode": "verify-full",
        "sslrootcert": str(started.get("ca_file") or host_ca),
        "sslcert": str(cert),
        "sslkey": str(key),
    }


PARAMETERS: Final[dict[str, Parameters]] = {
    "dbproxy": plaintext,
    "go": plaintext,
    "dbproxy-terminate": secured,
    "dbproxy-passthrough": secured,
    "dbproxy-upgrade": plaintext,
}
"""How pgbench connects to the rows that take part."""


def takes_part(row: Row) -> bool:
    """Whether pgbench runs through a row."""
    return row.name in PARAMETERS or row.name == DIRECT


def measure_pgbench(
    rows: Sequence[Row],
    scripts: Sequence[Script],
    programs: Programs,
    results: Results,
    progress: Progress,
) -> None:
    """Do it, and add the samples to the results.

    Raises:
        BenchError: Something did not work.
    """

    async def within_postgres() -> None:
        async with open_embedded_postgres(directory / "postgres") as postgres:
            # Nothing else runs in this loop, so it may be blocked.
            _measure(rows, scripts, postgres, directory, programs, results, progress)

    with tempfile.TemporaryDirectory(prefix="bench-pgbench-") as name:
        directory = Path(name)
        try:
            trio.run(within_postgres)
        except LabError as error:
            raise BenchError(f"PostgreSQL: {error}") from error


def steps(rows: Sequence[Row], scripts: Sequence[Script], *, quick: bool) -> int:
    """How many runs there are in all."""
    return len(rows) * len(scripts) * (1 if quick else ROUNDS)


def _measure(
    rows: Sequence[Row],
    scripts: Sequence[Script],
    postgres: EmbeddedPostgres,
    directory: Path,
    programs: Programs,
    results: Results,
    progress: Progress,
) -> None:
    files = write_files(directory)
    client = Client(postgres, 1 if results.quick else SECONDS)
    client.prepare(1 if results.quick else SCALE)
    with running_upstream(programs, files, postgres.socket_directory / SOCKET_NAME) as upstream:
        for number in range(1 if results.quick else ROUNDS):
            place = directory / f"round-{number}"
            with ExitStack() as stack:
                standing = stand_up(rows, place, upstream, files, programs, results, stack)
                for script in scripts:
                    _round(standing, script, client, results, progress)


def stand_up(
    rows: Sequence[Row],
    directory: Path,
    upstream: Upstream,
    files: Files,
    programs: Programs,
    results: Results,
    stack: ExitStack,
) -> list[Standing]:
    """Start all proxies, with the database behind their upstream."""
    assert upstream.forward is not None
    place = Round(directory, upstream, files, programs, results, lambda _: None)
    return [place.start(row, stack, upstream.forward) for row in rows]


def _round(
    standing: Sequence[Standing],
    script: Script,
    client: "Client",
    results: Results,
    progress: Progress,
) -> None:
    direct = None
    for one in sorted(standing, key=lambda one: one.row.name != DIRECT):
        progress(f"{one.row.title}: {script.title}")
        before = one.proxy.cpu_seconds() if one.proxy else 0.0
        tps, transactions = client.run(script, one)
        samples = {f"{script.name}.tps": tps}
        if one.row.name == DIRECT:
            direct = tps
        elif direct:
            samples[f"{script.name}.of_direct"] = 100 * tps / direct
        if one.proxy:
            used = one.proxy.cpu_seconds() - before
            samples[f"{script.name}.cpu_us"] = 1e6 * used / transactions
        results.add(one.row.name, samples)
        progress("")


@dataclass(frozen=True)
class Client:
    """pgbench, of the embedded PostgreSQL.

    Attributes:
        postgres: The server, for its Unix socket.
        seconds: How long a run takes.
    """

    postgres: EmbeddedPostgres
    seconds: int

    def prepare(self, scale: int) -> None:
        """Fill the tables."""
        self._pgbench("--initialize", "--quiet", f"--scale={scale}", self._direct())

    def run(self, script: Script, standing: Standing) -> tuple[float, int]:
        """Transactions per second, and how many there were."""
        conninfo = self._direct()
        if standing.row.name != DIRECT:
            parameters = PARAMETERS[standing.row.name](standing)
            conninfo = make_conninfo("", user=SUPERUSER, dbname=SUPERUSER, **parameters)
        said = self._pgbench(
            *("--no-vacuum", f"--client={CLIENTS}", "--jobs=2", f"--time={self.seconds}"),
            *(*script.options, conninfo),
        )
        tps, transactions = TPS.search(said), TRANSACTIONS.search(said)
        if not tps or not transactions:
            raise BenchError(f"pgbench says no figure:\n{said}")
        return float(tps.group(1)), int(transactions.group(1))

    def _direct(self) -> str:
        directory = str(self.postgres.socket_directory)
        return make_conninfo("", host=directory, user=SUPERUSER, dbname=SUPERUSER)

    def _pgbench(self, *arguments: str) -> str:
        run = subprocess.run(
            [self.postgres.bin_directory / "pgbench", *arguments],
            env=clean_environment() | preload(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        if run.returncode:
            raise BenchError(f"pgbench failed:\n{run.stderr}")
        return run.stdout


def preload() -> dict[str, str]:
    """Lets pgbench use psycopg's libpq: the one that comes with it has no TLS."""
    packages = Path(psycopg.__file__).parents[1]
    found = sorted(packages.glob("psycopg_binary.libs/libpq-*.so*"))
    return {"LD_PRELOAD": str(found[0])} if found else {}
