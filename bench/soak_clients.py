"""Load generators of PostgreSQL, MariaDB and Redis through each mode.

Each runs with connections that stay, and with a new connection for each request. Real servers
behind the lab, dbproxy as the installed command. What must come out: no program complains, and
every connection ends well in dbproxy's log. Only redis-benchmark may leave in the middle of
connecting: it does so as soon as it has its number of answers.

    bench/soak_clients                              half a minute each, ten in all
    bench/soak_clients --seconds=5 --mode=terminate --program=pgbench

Exit status 1 when anything of this did not come out.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import trio
from database_servers import redis_server
from drivers import Endpoint
from mariadb_server import SCHEMA, mariadb_server
from psycopg.conninfo import make_conninfo
from soak.client_programs import LoadGenerator, Pgbench, ProgramFailed, load_generators
from soak.proxy_process import ProxyProcess, running_dbproxy

from dbproxy import Mode
from dbproxy.lab import DatabaseResource, Lab, guide, open_lab
from dbproxy.lab.postgres import EmbeddedPostgres, open_embedded_postgres

LEFT = {"abandoned", "client-tls-failed"}
"""What clients that leave while they connect are in the log."""
PROGRAMS = ("pgbench", "mariadb-slap", "redis-benchmark")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One program in one mode.

    Attributes:
        program: Which, and of which kind.
        mode: dbproxy's mode.
        requests: What it has done.
        seconds: How long it took.
        connections: Connections in dbproxy's log.
        not_well: Those that did not end well, by code.
        left: How many of these the program may have left while it connected.
        failure: What the program complained of.
        processor_us_each: Processor time of dbproxy, in µs for each request.
        memory_mib: dbproxy's resident memory before and after.
        load_average: The machine's, at the end.
    """

    program: str
    mode: str
    requests: int
    seconds: float
    connections: int
    not_well: dict[str, int]
    left: int
    failure: str
    processor_us_each: float
    memory_mib: tuple[float, float]
    load_average: float

    @property
    def is_clean(self) -> bool:
        """Whether nothing went wrong."""
        as_expected = set(self.not_well) <= LEFT and sum(self.not_well.values()) <= self.left
        return not self.failure and as_expected and self.requests > 0

    def row(self) -> str:
        """A row of the table in bench/README.md."""
        before, after = self.memory_mib
        cells = (
            *(self.program, self.mode, f"{self.requests:,}", f"{self.connections:,}"),
            *(f"{sum(self.not_well.values())}", f"{self.requests / self.seconds:,.0f}"),
            *(f"{self.processor_us_each:,.0f}", f"{before:g} → {after:g}"),
            f"{self.load_average:g}",
        )
        return f"| {' | '.join(cells)} |"


def main() -> int:
    """Run what was asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="for each run")
    parser.add_argument("--mode", action="append", choices=[str(mode) for mode in Mode])
    parser.add_argument("--program", action="append", choices=PROGRAMS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    modes = [Mode(mode) for mode in options.mode or Mode]
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        chosen = options.program or PROGRAMS
        runs = trio.run(run_all, modes, chosen, options.seconds, Path(name))
    if options.json:
        print(json.dumps([asdict(run) for run in runs], indent=2))
    return 0 if all(run.is_clean for run in runs) else 1


async def run_all(
    modes: Sequence[Mode], chosen: Sequence[str], seconds: float, directory: Path
) -> list[Run]:
    """Each program in each mode."""
    runs = []
    async with open_cluster(directory) as (lab, postgres):
        pgbench = postgres.bin_directory / "pgbench"
        host = str(postgres.socket_directory)
        parameters = make_conninfo(host=host, user=guide.DATABASE_USER, dbname=guide.DATABASE)
        Pgbench(pgbench, reconnects=False).initialize(parameters)
        for generator in load_generators(pgbench):
            for mode in modes:
                if generator.name in chosen:
                    run = await one_run(generator, mode, seconds, lab, directory)
                    print(run.row(), *([run.failure] if run.failure else []), flush=True)
                    runs.append(run)
    return runs


@asynccontextmanager
async def open_cluster(directory: Path) -> AsyncIterator[tuple[Lab, EmbeddedPostgres]]:
    """The databases, and a lab in front of them with a destination for each."""
    async with (
        open_embedded_postgres(directory / "postgres") as postgres,
        redis_server() as redis,
    ):
        await postgres.execute(f"CREATE ROLE {guide.DATABASE_USER} LOGIN")
        await postgres.execute(f"CREATE DATABASE {guide.DATABASE} OWNER {guide.DATABASE_USER}")
        with mariadb_server() as mariadb:
            mariadb.execute(SCHEMA)
            addresses = {"postgres": postgres.address, "mysql": mariadb.address, "redis": redis}
            databases = [
                DatabaseResource(protocol, address, protocol)
                for protocol, address in addresses.items()
            ]
            async with open_lab(databases=databases, directory=directory / "lab") as lab:
                lab.create_role(guide.role_yaml())
                token = lab.add_bot(guide.BOT, roles=[guide.ROLE_NAME])
                for protocol in addresses:
                    config = guide.tbot_yaml(
                        token,
                        proxy=lab.address,
                        destination=directory / protocol,
                        service=protocol,
                    )
                    await lab.tbot(config).renew()
                yield lab, postgres


async def one_run(
    generator: LoadGenerator, mode: Mode, seconds: float, lab: Lab, directory: Path
) -> Run:
    """One program through a dbproxy of its own."""
    arguments: tuple[str | Path, ...] = (
        *("--destination-dir", directory / generator.protocol, "--proxy", lab.address),
        *("--proxy-ca", lab.web_ca_file, "--log-format=json"),
        *("db", "--format=json", *([f"--{mode}"] if mode is not Mode.PASSTHROUGH else [])),
    )
    async with running_dbproxy(arguments, directory) as proxy:
        requests, taken, failure = 0, seconds, ""
        proxy.sample_memory()
        before = proxy.processor_seconds()
        work = partial(generator.run, endpoint_of(proxy, mode), seconds)
        try:
            outcome = await trio.to_thread.run_sync(work)
            requests, taken = outcome.requests, outcome.seconds
        except ProgramFailed as error:
            failure = str(error)
        used = proxy.processor_seconds() - before
        proxy.sample_memory()
        await proxy.stop()
    closed = proxy.of("connection-closed")
    codes = [
        str(event.get("code") or event["outcome"])
        for event in closed
        if event["outcome"] != "relayed"
    ]
    first, last = (round(kib / 1024, 1) for kib in proxy.memory_kib)
    return Run(
        program=generator.title,
        mode=str(mode),
        requests=requests,
        seconds=taken,
        connections=len(closed),
        not_well={code: codes.count(code) for code in sorted(set(codes))},
        left=len(closed) - requests if generator.leaves_early else 0,
        failure=failure,
        processor_us_each=1e6 * used / max(requests, 1),
        memory_mib=(first, last),
        load_average=round(os.getloadavg()[0], 2),
    )


def endpoint_of(proxy: ProxyProcess, mode: Mode) -> Endpoint:
    """Where clients connect, from the start message."""
    started = proxy.started
    files = {
        name: Path(started[key]) if started[key] else None
        for name, key in (
            ("ca_file", "ca_file"),
            ("certificate_file", "cert_file"),
            ("key_file", "key_file"),
        )
    }
    return Endpoint(
        mode=mode,
        port=proxy.port,
        user=started["user"],
        database=started["database"],
        combined_file=None,
        command="",
        **files,
    )


if __name__ == "__main__":
    sys.exit(main())
