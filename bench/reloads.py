"""Ten thousand renewals read by one store: time of each reload, and memory before and after.

    python bench/reloads.py
    python bench/reloads.py --reloads=1000 --json

Each round rewrites a destination in place, as tbot does, with RSA keys made in advance, reloads,
and makes the TLS contexts of the new generation, as the first connection after a renewal does.
Exit status 1 when half of the reloads take 20 ms or more, or memory grows by more than a megabyte
after the first tenth.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path

import trio

from dbproxy.identity import DestinationSource, IdentityStore
from dbproxy.lab import DatabaseResource, Lab, guide, open_lab
from dbproxy.lab.keys import PrivateKey, new_rsa_key
from dbproxy.lab.tbot import Tbot
from dbproxy.upstream import UpstreamTrust

KEYS = 4
LIMIT_MS = 20.0
LIMIT_KIB = 1024


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reloads", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reloads-") as directory:
        result = trio.run(measure, arguments.reloads, Path(directory))
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        print("\n".join(f"{name:22} {value}" for name, value in result.items()))
    return 0 if result["passed"] else 1


async def measure(reloads: int, directory: Path) -> dict[str, object]:
    """The figures, by name."""
    keys: list[PrivateKey] = [new_rsa_key() for _ in range(KEYS)]
    databases = [DatabaseResource(guide.SERVICE, "127.0.0.1:1")]  # never connected to
    async with open_lab(databases=databases, directory=directory / "lab") as lab:
        lab.create_role(guide.role_yaml())
        tbot = make_tbot(lab, keys, directory / "machine-id")
        await tbot.renew()
        store = IdentityStore(DestinationSource(directory / "machine-id"))
        trust = UpstreamTrust()
        await store.load()
        times, memory = [], []
        for number in range(reloads):
            await tbot.renew()
            begin = time.perf_counter()
            await store.reload()
            times.append(1000 * (time.perf_counter() - begin))
            trust.connection("localhost", ["teleport-postgres"], store.current, authenticate=True)
            if number % max(reloads // 100, 1) == 0:
                gc.collect()
                memory.append(resident_kib())
                tell(number, memory[-1])
    times.sort()
    grown = memory[-1] - memory[len(memory) // 10]
    median = times[len(times) // 2]
    return {
        "reloads": reloads,
        "generations": store.current.generation,
        "p50_ms": round(median, 2),
        "p99_ms": round(times[int(len(times) * 0.99)], 2),
        "worst_ms": round(times[-1], 2),
        "memory_early_mib": round(memory[len(memory) // 10] / 1024, 2),
        "memory_late_mib": round(memory[-1] / 1024, 2),
        "grown_kib": grown,
        "load_average": round(os.getloadavg()[0], 2),
        "passed": median < LIMIT_MS
        and grown < LIMIT_KIB
        and store.current.generation == reloads + 1,
    }


def make_tbot(lab: Lab, keys: list[PrivateKey], destination: Path) -> Tbot:
    """A writer without a database behind it: only its certificates matter here."""
    token = lab.add_bot(guide.BOT, roles=[guide.ROLE_NAME])
    config = guide.tbot_yaml(token, proxy=lab.address, destination=destination)
    return lab.tbot(config, generate_key=cycle(keys).__next__)


def resident_kib() -> int:
    """The resident memory of this process, in KiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def tell(number: int, kib: int) -> None:
    """Say how far it is; standard output is for the result."""
    print(f"{number}: {kib / 1024:.1f} MiB", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
