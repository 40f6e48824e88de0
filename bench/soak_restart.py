"""50 new connections a second while the Teleport Proxy is restarted: down for 3 s, then for 30 s.

A real PostgreSQL behind the lab, dbproxy as the installed command with its default settings,
psycopg as the client. What must come out: nobody notices the short outage, and in the long one each
client is told why within the grace (5 s) and a second. When the Proxy is back, those who have
waited come to PostgreSQL all at once; whom it then turns away for want of connection slots is
counted apart.

    python bench/soak_restart.py                  about a minute and a half
    python bench/soak_restart.py --mode=terminate

Exit status 1 when this did not come out.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import trio
import trio.lowlevel
from psycopg.conninfo import make_conninfo
from soak.proxy_process import ProxyProcess, running_dbproxy

from dbproxy.lab import DatabaseResource, Lab, guide, open_lab
from dbproxy.lab.postgres import EmbeddedPostgres, open_embedded_postgres

INTERVAL = 0.02
GRACE = 5.0
SETTLE = 2.0
"""Seconds with the Proxy up before and after an outage."""
MOST_AT_ONCE = 400
"""Threads with a client each; during an outage 50 a second wait for the grace."""
CAUSE = "[upstream-unreachable]"


@dataclass
class Outage:
    """What clients met while the Proxy was down for `seconds`, and around it."""

    seconds: float
    served: int = 0
    slowest: float = 0.0
    refused: list[float] = field(default_factory=list)
    without_cause: list[str] = field(default_factory=list)
    database_full: int = 0
    busy: int = 0

    def as_dict(self) -> dict[str, object]:
        """For the report."""
        return {
            "down_seconds": self.seconds,
            "served": self.served,
            "slowest_served_s": round(self.slowest, 2),
            "refused": len(self.refused),
            "refused_after_s": [round(min(self.refused), 2), round(max(self.refused), 2)]
            if self.refused
            else None,
            "without_cause": self.without_cause[:3],
            "turned_away_by_a_full_database": self.database_full,
        }


def main() -> int:
    """Run both outages; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=("passthrough", "terminate", "tunnel"), default="tunnel")
    mode = parser.parse_args().mode
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        short, long = trio.run(run, mode, Path(name))
    print(json.dumps({"mode": mode, "outages": [short.as_dict(), long.as_dict()]}, indent=2))
    unnoticed = not short.refused and not short.without_cause
    named = not long.without_cause and max(long.refused, default=0.0) <= GRACE + 1
    return 0 if unnoticed and named and long.refused else 1


async def run(mode: str, directory: Path) -> tuple[Outage, Outage]:
    """Both outages, with one PostgreSQL, lab and dbproxy."""
    async with open_embedded_postgres(directory / "postgres") as postgres:
        await prepare(postgres)
        database = DatabaseResource(guide.SERVICE, postgres.address)
        async with open_lab(databases=[database], directory=directory / "lab") as lab:
            lab.create_role(guide.role_yaml())
            destination = directory / "machine-id"
            token = lab.add_bot(guide.BOT, roles=[guide.ROLE_NAME])
            config = guide.tbot_yaml(token, proxy=lab.address, destination=destination)
            await lab.tbot(config).renew()
            arguments: tuple[str | Path, ...] = (
                *("--destination-dir", destination, "--proxy", lab.address),
                *("--proxy-ca", lab.web_ca_file, "--log-format=json"),
                *("db", "--format=json", *([f"--{mode}"] if mode != "passthrough" else [])),
            )
            async with running_dbproxy(arguments, directory) as proxy:
                outages = [await outage(seconds, lab, proxy) for seconds in (3.0, 30.0)]
                await proxy.stop()
    return outages[0], outages[1]


async def prepare(postgres: EmbeddedPostgres) -> None:
    """What the guide's role may reach."""
    await postgres.execute(f"CREATE ROLE {guide.DATABASE_USER} LOGIN")
    await postgres.execute(f"CREATE DATABASE {guide.DATABASE} OWNER {guide.DATABASE_USER}")


async def outage(seconds: float, lab: Lab, proxy: ProxyProcess) -> Outage:
    """Clients come all the time; the Proxy goes, and comes back."""
    seen = Outage(seconds)
    print(f"down for {seconds:g} s …", file=sys.stderr, flush=True)
    threads = trio.CapacityLimiter(MOST_AT_ONCE)
    async with trio.open_nursery() as clients:
        stop = trio.CancelScope()
        clients.start_soon(come, clients, stop, seen, conninfo(proxy), threads)
        await trio.sleep(SETTLE)
        while seen.busy:  # who is being served now would be cut off: that is no new connection
            await trio.lowlevel.checkpoint()
        await lab.stop_proxy()
        await trio.sleep(seconds)
        await lab.start_proxy()
        await trio.sleep(SETTLE)
        stop.cancel()
    return seen


async def come(
    clients: trio.Nursery,
    stop: trio.CancelScope,
    seen: Outage,
    parameters: str,
    threads: trio.CapacityLimiter,
) -> None:
    """50 new clients a second."""
    with stop:
        while True:
            clients.start_soon(client, seen, parameters, threads)
            await trio.sleep(INTERVAL)


async def client(seen: Outage, parameters: str, threads: trio.CapacityLimiter) -> None:
    """Connect, ask, and note what came out."""
    seen.busy += 1
    began = trio.current_time()
    problem = await trio.to_thread.run_sync(ask, parameters, limiter=threads)
    seen.busy -= 1
    taken = trio.current_time() - began
    if problem is None:
        seen.served += 1
        seen.slowest = max(seen.slowest, taken)
    elif "connection slots" in problem or "too many clients" in problem:
        seen.database_full += 1
    else:
        seen.refused.append(taken)
        if CAUSE not in problem and "SSL exchange" not in problem:
            seen.without_cause.append(problem)


def ask(parameters: str) -> str | None:
    """One client; returns what it was told when it was refused."""
    try:
        with psycopg.connect(parameters, autocommit=True) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        return str(error)
    return None


def conninfo(proxy: ProxyProcess) -> str:
    """Libpq's parameters, from the start message."""
    started = proxy.started
    files = {
        "sslrootcert": started["ca_file"],
        "sslcert": started["cert_file"],
        "sslkey": started["key_file"],
    }
    return make_conninfo(
        host="localhost",
        port=proxy.port,
        user=started["user"],
        dbname=started["database"],
        sslmode="verify-full" if started["ca_file"] else "disable",
        **{key: value for key, value in files.items() if value},
    )


if __name__ == "__main__":
    sys.exit(main())
