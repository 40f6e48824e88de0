"""How connections are shared out between workers: who accepts, for 1 to 4 of them.

    python bench/workers.py
    python bench/workers.py --connections=2000 --json

The connections say nothing, so only accepting is measured: `one by one`, each closed before the
next one comes, and `at once`, all opened as fast as the system lets us and then held. For each
worker: its part of the connections, in percent, the largest first. Each connection wakes every
worker that waits, so the processor time of all processes together is shown too, by connection.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import trio

from dbproxy.lab import DatabaseResource, guide, open_lab

PATIENCE = 60.0


def main() -> None:
    """Run it and print the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 3, 4])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = {}
    with tempfile.TemporaryDirectory(prefix="workers-") as name:
        directory = Path(name)
        trio.run(write_destination, directory)
        for workers in arguments.workers:
            with running(directory, workers) as command:
                result[workers] = measure(command, workers, arguments.connections)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for workers, parts in result.items():
            for how, (cpu, *shares) in parts.items():
                told = "".join(f"{share:4}%" for share in shares)
                print(f"{workers} workers, {how:12}{told:22}{cpu:5} µs of processor time")


async def write_destination(directory: Path) -> None:
    """A destination as tbot leaves it."""
    databases = [DatabaseResource(guide.SERVICE, "127.0.0.1:1")]  # never connected to
    async with open_lab(databases=databases, directory=directory / "lab") as lab:
        lab.create_role(guide.role_yaml())
        lab.add_bot(guide.BOT, roles=[guide.ROLE_NAME])
        destination = directory / "machine-id"
        config = guide.tbot_yaml(lab.tokens[guide.BOT], proxy=lab.address, destination=destination)
        await lab.tbot(config).renew()


class Command:
    """A dbproxy that runs, with its log in a file."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        assert process.stdout is not None
        self.process = process
        self.port = int(process.stdout.readline().split(":")[-1])
        self._log = log

    def cpu_seconds(self) -> float:
        """Processor time of all its processes, in seconds."""
        parent = psutil.Process(self.process.pid)
        times = [process.cpu_times() for process in (parent, *parent.children())]
        return sum(time.user + time.system for time in times)

    def events(self, name: str) -> list[dict[str, object]]:
        """What the log has of one kind so far."""
        entries = (
            json.loads(line)
            for line in self._log.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        )
        return [entry for entry in entries if entry["event"] == name]

    def wait_for(self, name: str, count: int) -> list[dict[str, object]]:
        """The same, once there are that many."""
        deadline = time.monotonic() + PATIENCE
        while len(found := self.events(name)) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} {name}"
            time.sleep(0.05)
        return found


@contextmanager
def running(directory: Path, workers: int) -> Iterator[Command]:
    """Run dbproxy with that many workers; nothing it would connect to is there."""
    log = directory / f"log-{workers}"
    options = ["--debug", "--log-format=json", f"--destination-dir={directory}/machine-id"]
    options += ["--proxy=127.0.0.1:1", "db", "--tunnel", f"--workers={workers}"]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "dbproxy", *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            command = Command(process, log)
            command.wait_for("worker-started", workers if workers > 1 else 0)
            yield command
        finally:
            process.terminate()


def measure(command: Command, workers: int, connections: int) -> dict[str, list[int]]:
    """Processor time and parts, by how the connections came."""
    begin = command.cpu_seconds()
    for _ in range(connections):
        socket.create_connection(("127.0.0.1", command.port)).close()
    first = command.wait_for("connection-opened", connections)
    middle = command.cpu_seconds()
    with ExitStack() as held:
        for _ in range(connections):
            held.enter_context(socket.create_connection(("127.0.0.1", command.port)))
        both = command.wait_for("connection-opened", 2 * connections)
    end = command.cpu_seconds()
    micros = 1_000_000 / connections
    return {
        "one by one": [round((middle - begin) * micros), *shares(first, workers)],
        "at once": [round((end - middle) * micros), *shares(both[connections:], workers)],
    }


def shares(opened: list[dict[str, object]], workers: int) -> list[int]:
    """Each worker's part in percent, the largest first."""
    counts = Counter(entry.get("worker") for entry in opened)
    parts = sorted((round(100 * count / len(opened)) for count in counts.values()), reverse=True)
    return parts + [0] * (workers - len(parts))


if __name__ == "__main__":
    main()
