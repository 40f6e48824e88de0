"""Rounds: all proxies side by side, one run of the load generator after another.

In each round every proxy is started anew. Then one run follows another, and each goes through all
rows before the next one begins, so that what is compared is measured within seconds; the order of
the rows is turned round from round to round. Idle proxies cost nothing while another is measured.
"""

import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from comparison.certificates import Files, write_files
from comparison.figures import HELD, IDLE, MIB, Run, Samples, Usage
from comparison.processes import BenchError, Running, launch
from comparison.programs import RUN_TIMEOUT, Conversation, Programs, Upstream, running_upstream
from comparison.results import Results
from comparison.rows import Row, Site

KIB = 1024
IDLE_REST = 0.3
"""Seconds before the memory of idle connections is read."""
Progress = Callable[[str], None]
"""Called before each run with what it is, and with nothing once it is done."""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        rows: The rows.
        runs: The runs.
        rounds: How often.
        idle_rounds: In how many of them connections are held: that takes long and varies little.
    """

    rows: Sequence[Row]
    runs: Sequence[Run]
    rounds: int
    idle_rounds: int

    def runs_in(self, number: int) -> list[Run]:
        """The runs of a round."""
        return [run for run in self.runs if run.name != IDLE.name or number < self.idle_rounds]

    def rows_in(self, number: int) -> list[Row]:
        """The rows of a round, in its order: those that are only reported miss every other one."""
        rows = [
            row
            for row in self.rows
            if (row.judged or number % 2 == 0)
            and any(row.takes_part(run.name) for run in self.runs)
        ]
        return rows if number % 2 == 0 else rows[::-1]

    def steps(self) -> int:
        """How many runs there are in all."""
        return sum(
            row.takes_part(run.name)
            for number in range(self.rounds)
            for run in self.runs_in(number)
            for row in self.rows_in(number)
        )


@dataclass(frozen=True)
class Standing:
    """A row that is ready.

    Attributes:
        row: The row.
        site: What it was started with.
        proxy: Its process; None without a proxy.
    """

    row: Row
    site: Site
    proxy: Running | None

    def load_command(self, run: Run) -> list[str | Path]:
        """The load generator for one run."""
        address = self.site.upstream if self.proxy is None else f"127.0.0.1:{self.site.port}"
        target = ("-address", address, *self.row.load(self.site, self.proxy))
        return [self.site.programs.load, run.command, *target, *run.options]


def measure(plan: Plan, programs: Programs, results: Results, progress: Progress) -> None:
    """Do it, and add the samples and the failures to the results.

    Raises:
        BenchError: A proxy does not start.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        files = write_files(directory)
        with running_upstream(programs, files) as upstream:
            for number in range(plan.rounds):
                results.load_average.append(round(os.getloadavg()[0], 2))
                place = directory / f"round-{number}"
                measured = Round(place, upstream, files, programs, results, progress)
                measured.run(plan.rows_in(number), plan.runs_in(number))
            results.load_average.append(round(os.getloadavg()[0], 2))


@dataclass(frozen=True)
class Round:
    """One round."""

    directory: Path
    upstream: Upstream
    files: Files
    programs: Programs
    results: Results
    progress: Progress

    def run(self, rows: Iterable[Row], runs: Sequence[Run]) -> None:
        """All runs of all rows; connections are held by proxies that have served nothing else."""
        if any(run.name == IDLE.name for run in runs):
            for row in rows:
                with ExitStack() as stack:
                    if row.takes_part(IDLE.name):
                        idle = next(run for run in runs if run.name == IDLE.name)
                        self._measure(self.start(row, stack), idle)
        with ExitStack() as stack:
            standing = [self.start(row, stack) for row in rows]
            for run in runs:
                self.upstream.set_tickets(on=run.tickets)
                for one in standing:
                    if run.name != IDLE.name and one.row.takes_part(run.name):
                        self._measure(one, run)
            self.upstream.set_tickets(on=True)

    def start(self, row: Row, stack: ExitStack, upstream: str | None = None) -> Standing:
        """Start a row until the stack is unwound, in front of another upstream if one is given."""
        directory = Path(tempfile.mkdtemp(prefix=f"{row.name}-", dir=_made(self.directory)))
        address = upstream or (self.upstream.ping if row.ping else self.upstream.plain)
        site = Site(directory, free_port(), address, self.files, self.programs)
        if row.command is None:
            return Standing(row, site, None)
        state = {"STATE_DIRECTORY": str(directory / "state")}
        proxy = launch(row.name, row.command(site), directory, state)
        stack.callback(proxy.stop)
        proxy.wait_until_listening(site.port)
        proxy.settle()
        return Standing(row, site, proxy)

    def _measure(self, standing: Standing, run: Run) -> None:
        self.progress(f"{standing.row.title}: {run.title[0].lower()}{run.title[1:]}")
        take = self._idle if run.name == IDLE.name else self._loaded
        try:
            self.results.add(standing.row.name, take(standing, run))
        except BenchError as error:
            words = f" Its log ends: {standing.proxy.last_words()}" if standing.proxy else ""
            self.results.failures.append(f"{standing.row.title}, {run.title}: {error}{words}")
        self.progress("")

    def _loaded(self, standing: Standing, run: Run) -> Samples:
        proxy = standing.proxy
        with Conversation(standing.load_command(run), RUN_TIMEOUT) as load:
            load.hear()
            handshakes, resumed = self.upstream.handshakes()
            before = proxy.cpu_seconds() if proxy else None
            reply = load.ask("")
            after = proxy.cpu_seconds() if proxy else None
            total, of_them = self.upstream.handshakes()
        if proxy:
            proxy.settle()
        usage = Usage(
            None if before is None or after is None else after - before,
            proxy.rss_bytes() if proxy else None,
            total - handshakes,
            of_them - resumed,
        )
        return run.samples(run, reply, usage)

    def _idle(self, standing: Standing, run: Run) -> Samples:
        proxy = standing.proxy
        samples: dict[str, float | None] = {}
        with Conversation(standing.load_command(run), RUN_TIMEOUT) as load:
            load.hear()
            start = proxy.rss_bytes() if proxy else 0
            if proxy:
                samples["start_mib"] = start / MIB
            while (reply := load.ask(""))["event"] == "held":
                if proxy:
                    proxy.settle()
                    time.sleep(IDLE_REST)
                    held = reply["connections"]
                    samples[f"{HELD}{held}"] = (proxy.rss_bytes() - start) / KIB / held
        return run.named(samples) | run.samples(run, reply, Usage())


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _made(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    return directory
