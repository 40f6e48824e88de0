"""Connections at a steady rate while tbot renews every two seconds, or rotates its authorities.

A real PostgreSQL behind the lab, dbproxy as the installed command, psycopg as the client: a new
connection and a query every 20 ms, and ten connections that stay. What must come out: no failed
connection, no mixture of two renewals accepted, every generation used.

    python bench/soak_renewal.py                        all of it: about 20 minutes
    python bench/soak_renewal.py --duration=10 --mode=terminate --gap=50
    python bench/soak_renewal.py --scenario=rotation --json

Exit status 1 when anything of this did not come out.
"""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

import trio
from psycopg.conninfo import make_conninfo
from soak.client_files import ClientFiles
from soak.load import SteadyLoad
from soak.proxy_process import ProxyProcess, running_dbproxy
from soak.report import Report, make_report, summary

from dbproxy.lab import DatabaseResource, Lab, Phase, guide, open_lab
from dbproxy.lab.keys import PrivateKey, new_rsa_key
from dbproxy.lab.postgres import EmbeddedPostgres, open_embedded_postgres
from dbproxy.lab.tbot import Tbot

MODES = ("passthrough", "terminate", "tunnel")
SCENARIOS = ("renewal", "rotation")
KEYS = 4
"""RSA keys made in advance: making one takes long enough to disturb the load."""
ROTATIONS = (
    (Phase.INIT, Phase.UPDATE_CLIENTS, Phase.UPDATE_SERVERS, Phase.STANDBY),
    (Phase.INIT, Phase.UPDATE_CLIENTS, Phase.ROLLBACK, Phase.STANDBY),
    (Phase.INIT, Phase.UPDATE_CLIENTS, Phase.UPDATE_SERVERS, Phase.ROLLBACK, Phase.STANDBY),
)
PHASES = tuple(phase for rotation in ROTATIONS for phase in rotation)
REST = 4.0
"""Seconds at the end in which nothing is renewed: the last renewal is to be used too."""


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        scenario: `renewal`, or `rotation`.
        mode: dbproxy's mode.
        gap: Seconds between two files that tbot writes.
        duration: Seconds of load.
        renewal_interval: Seconds between renewals.
        interval: Seconds between new connections.
        long: How many connections stay.
    """

    scenario: str
    mode: str
    gap: float
    duration: float
    renewal_interval: float
    interval: float
    long: int


def main() -> int:
    """Run what the command line asks for; returns the exit status."""
    arguments = parse_arguments()
    keys: list[PrivateKey] = [new_rsa_key() for _ in range(KEYS)]
    say(f"{platform.platform()}, Python {platform.python_version()}")
    reports = []
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        for number, plan in enumerate(plans(arguments)):
            say(f"{plan.scenario}, {plan.mode}, {plan.gap * 1000:g} ms between files …")
            directory = Path(name) / str(number)
            directory.mkdir()
            report = trio.run(run, plan, keys, directory)
            reports.append(report)
            say(summary(report))
    if arguments.json:
        print(json.dumps([report.as_dict() for report in reports], indent=2))
    return 0 if all(report.passed for report in reports) else 1


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", choices=SCENARIOS, action="append")
    parser.add_argument("--mode", choices=MODES, action="append")
    parser.add_argument("--gap", type=float, action="append", metavar="MS", help="default: 0, 50")
    parser.add_argument("--duration", type=float, default=120, help="seconds of load for each run")
    parser.add_argument("--renewal-interval", type=float, default=2, help="seconds")
    parser.add_argument("--interval", type=float, default=20, help="ms between new connections")
    parser.add_argument("--long", type=int, default=10, help="connections that stay")
    parser.add_argument("--json", action="store_true", help="a list of reports on standard output")
    return parser.parse_args()


def plans(arguments: argparse.Namespace) -> Iterator[Plan]:
    """Every combination that was asked for."""
    for scenario in arguments.scenario or SCENARIOS:
        for mode in arguments.mode or MODES:
            for gap in arguments.gap or (0.0, 50.0):
                yield Plan(
                    scenario,
                    mode,
                    gap / 1000,
                    arguments.duration,
                    arguments.renewal_interval,
                    arguments.interval / 1000,
                    arguments.long,
                )


def say(text: str) -> None:
    """Tell people how far it is; standard output is for the result."""
    print(text, file=sys.stderr, flush=True)


async def run(plan: Plan, keys: list[PrivateKey], directory: Path) -> Report:
    """One run, with a PostgreSQL, a lab and a dbproxy of its own."""
    async with open_embedded_postgres(directory / "postgres") as postgres:
        await prepare(postgres)
        database = DatabaseResource(guide.SERVICE, postgres.address)
        async with open_lab(
            databases=[database],
            directory=directory / "lab",
            # Only so does a rotation concern the certificate that dbproxy itself checks.
            web_from_host_ca=plan.scenario == "rotation",
        ) as lab:
            lab.create_role(guide.role_yaml())
            destination = directory / "machine-id"
            tbot = make_tbot(lab, plan, keys, destination)
            await tbot.renew()
            return await load(plan, lab, tbot, destination)


async def prepare(postgres: EmbeddedPostgres) -> None:
    """What the guide's role may reach."""
    await postgres.execute(f"CREATE ROLE {guide.DATABASE_USER} LOGIN")
    await postgres.execute(f"CREATE DATABASE {guide.DATABASE} OWNER {guide.DATABASE_USER}")


def make_tbot(lab: Lab, plan: Plan, keys: list[PrivateKey], destination: Path) -> Tbot:
    """A writer that renews as the plan says."""
    config = guide.tbot_yaml(
        lab.add_bot(guide.BOT, roles=[guide.ROLE_NAME]),
        proxy=lab.address,
        destination=destination,
        certificate_ttl="1h",
        renewal_interval=f"{plan.renewal_interval:g}s",
    )
    return lab.tbot(config, gap=plan.gap, generate_key=cycle(keys).__next__)


async def load(plan: Plan, lab: Lab, tbot: Tbot, destination: Path) -> Report:
    """Start dbproxy, load it while tbot renews, stop both, and count."""
    directory = destination.parent
    files = ClientFiles(destination, directory / "client")
    async with running_dbproxy(arguments_for(plan, lab, destination), directory) as proxy:
        steady = SteadyLoad(partial(conninfo, proxy, files), plan.interval, plan.long)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(renew, tbot, plan.duration - REST)
            nursery.start_soon(sample, proxy, plan.duration)
            if plan.scenario == "rotation":
                nursery.start_soon(rotate, lab, plan.duration - REST)
            await steady.run(plan.duration)
        processor_seconds = proxy.processor_seconds()
        await proxy.stop()
    return make_report(
        scenario=plan.scenario,
        gap=plan.gap,
        seconds=plan.duration,
        renewals=tbot.generation,
        processor_seconds=processor_seconds,
        proxy=proxy,
        outcome=steady.outcome,
    )


async def renew(tbot: Tbot, duration: float) -> None:
    """Let tbot renew for so long, and then to the end of the renewal under way."""
    await trio.sleep(tbot.config.shortest_interval.total_seconds())  # the first one is to be used
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tbot.run)
        await trio.sleep(duration)
        await tbot.wait_renewed(tbot.generation)
        nursery.cancel_scope.cancel()


async def rotate(lab: Lab, duration: float) -> None:
    """Go through all phases, the same time in each."""
    dwell = duration / (len(PHASES) + 1)
    for phase in PHASES:
        await trio.sleep(dwell)
        say(f"  phase {phase}")
        lab.rotate(phase)


async def sample(proxy: ProxyProcess, duration: float) -> None:
    """Note the memory every second."""
    for _ in range(int(duration)):
        proxy.sample_memory()
        await trio.sleep(1)


def arguments_for(plan: Plan, lab: Lab, destination: Path) -> list[str | Path]:
    """The command line of dbproxy."""
    options: list[str | Path] = ["--destination-dir", destination, "--proxy", lab.address]
    if plan.scenario != "rotation":
        options += ["--proxy-ca", lab.web_ca_file]
    mode = [] if plan.mode == "passthrough" else [f"--{plan.mode}"]
    return [*options, "--log-format=json", "db", "--format=json", *mode, guide.SERVICE]


def conninfo(proxy: ProxyProcess, files: ClientFiles) -> str:
    """The parameters of a new connection; called from several threads."""
    parameters = {
        "host": "localhost",
        "port": str(proxy.port),
        "user": guide.DATABASE_USER,
        "dbname": guide.DATABASE,
        "connect_timeout": "60",
        "sslmode": "disable",
    }
    if proxy.started["mode"] != "tunnel":
        copy = files.latest()
        host_ca = copy / "teleport-host-ca.crt"
        passthrough = proxy.started["mode"] == "passthrough"
        parameters |= {
            "sslmode": "verify-full",
            "sslrootcert": str(host_ca if passthrough else proxy.started["ca_file"]),
            "sslcert": str(copy / "tlscert"),
            "sslkey": str(copy / "key"),
        }
    return make_conninfo("", **parameters)


if __name__ == "__main__":
    sys.exit(main())
