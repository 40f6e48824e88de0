"""Where dbproxy's time goes: per byte, per message, per connection.

    bench/profile                          all of it, with cProfile
    bench/profile --run=rt-64-32           one run; scripts/bench --list names them
    bench/profile --with=perf              the native side: OpenSSL, the kernel, the interpreter
    bench/profile --with=py-spy            what the Python side does in wall-clock time
    bench/profile --option=--terminate     dbproxy in another mode

How to read it. The head of each table says what one unit (a megabyte, a round trip, a connection)
costs without a profiler: wall-clock and processor time. The lines are functions, the most expensive
first; `own` is the time in the function itself, without what it calls, so the column adds up;
`calls` is how often it is called for each unit: a function that is called more than a few times for
a round trip, or more than once for a batch of bytes, is where to look first. cProfile slows Python
code down two to three times and C code not at all: compare lines of Python with each other, believe
the counts, and take absolute times from the head or from perf. `<…>` are functions in C: sockets,
epoll (`poll` is mostly waiting), the binding to OpenSSL; what is left is Python's share.
"""

import argparse
import pstats
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from comparison.certificates import write_files
from comparison.figures import MB, RUNS, Reply, Run
from comparison.measure import Standing, free_port
from comparison.processes import BenchError, Running, launch
from comparison.programs import Conversation, Programs, build, running_upstream
from comparison.rows import ROWS, Row, Site, dbproxy
from rich.console import Console
from rich.table import Table

DEFAULT_RUNS: Final = ("bulk-up-1", "bulk-down-1", "rt-64-32", "connect-8-resumed")
TOOLS: Final = ("cprofile", "perf", "py-spy")
PROFILED: Final = Path(__file__).with_name("profiled.py")
WRITE_TIMEOUT: Final = 10.0
LIBRARIES: Final = 8
"""How many of them perf shows."""
SHORTEN: Final = 2
"""Parts of a path that are shown."""


@dataclass(frozen=True)
class Subject:
    """What is profiled, and with what.

    Attributes:
        run: The load.
        options: Of `dbproxy db`.
        tool: One of `TOOLS`.
        lines: How many lines are shown.
    """

    run: Run
    options: tuple[str, ...]
    tool: str
    lines: int


@dataclass(frozen=True)
class Measured:
    """What a run says: how many units of what, and what they took."""

    units: float
    unit: str
    seconds: float
    cpu_seconds: float

    @property
    def head(self) -> str:
        """One line."""
        wall, cpu = (1e6 * value / self.units for value in (self.seconds, self.cpu_seconds))
        return f"{wall:,.1f} µs and {cpu:,.1f} µs of processor time for each {self.unit}"


def main() -> int:
    """Profile what the command line asks for; returns the exit status."""
    arguments = parse_arguments()
    console = Console()
    known = {run.name: run for run in RUNS}
    try:
        if arguments.tool != "cprofile" and not shutil.which(arguments.tool):
            raise BenchError(f"{arguments.tool} is not installed")
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="profile-")))
            programs = build(directory)
            for name in arguments.run or DEFAULT_RUNS:
                run = replace(known[name], options=seconds(known[name], arguments.seconds))
                options = tuple(arguments.option or ["--tunnel"])
                subject = Subject(run, options, arguments.tool, arguments.lines)
                profile(subject, programs, console)
    except BenchError as error:
        print(f"profile: {error}", file=sys.stderr)
        return 1
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="bench/profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [run.name for run in RUNS if run.name != "idle"]
    parser.add_argument("--run", action="append", choices=names, metavar="NAME")
    parser.add_argument("--with", dest="tool", choices=TOOLS, default="cprofile")
    parser.add_argument("--option", action="append", help="of dbproxy db; default: --tunnel")
    parser.add_argument("--seconds", type=float, default=2, help="of round trips or connections")
    parser.add_argument("--lines", type=int, default=25)
    return parser.parse_args()


def seconds(run: Run, duration: float) -> tuple[str, ...]:
    """The options of a run, so long."""
    return (
        (*run.options, "--seconds", f"{duration:g}") if "--seconds" in run.options else run.options
    )


def profile(subject: Subject, programs: Programs, console: Console) -> None:
    """One run without and one with the profiler, each with a dbproxy of its own."""
    console.print(f"\n{subject.run.title}, dbproxy db {' '.join(subject.options)}", style="bold")
    with tempfile.TemporaryDirectory(prefix="profile-") as name:
        directory = Path(name)
        files = write_files(directory)
        with running_upstream(programs, files) as upstream:
            upstream.set_tickets(on=subject.run.tickets)
            site = Site(directory, free_port(), upstream.ping, files, programs)
            measured = observe(subject, site, Observer())
            console.print(f"Without a profiler: {measured.head}.")
            observer = OBSERVERS[subject.tool](directory, subject.lines)
            profiled = observe(subject, replace(site, port=free_port()), observer)
            console.print(observer.report(profiled))


class Observer:
    """Watches dbproxy during a run; this one does nothing."""

    def command(self, command: Sequence[str | Path]) -> Sequence[str | Path]:
        """The command line to start instead."""
        return command

    def begin(self, proxy: Running) -> None:
        """The run begins."""

    def end(self, proxy: Running) -> None:
        """The run has ended; dbproxy still runs."""

    def report(self, measured: Measured) -> Table | str:
        """What there is to show."""
        del measured
        return ""


def observe(subject: Subject, site: Site, observer: Observer) -> Measured:
    """One run under observation."""
    row = row_for(subject.options)
    assert row.command is not None
    proxy = launch(
        f"dbproxy-{site.port}",
        observer.command(row.command(site)),
        site.directory,
        {"STATE_DIRECTORY": str(site.directory / "state")},
    )
    try:
        proxy.wait_until_listening(site.port)
        proxy.settle()
        with Conversation(Standing(row, site, proxy).load_command(subject.run)) as load:
            load.hear()
            observer.begin(proxy)
            before = proxy.cpu_seconds()
            reply = load.ask("")
            used = proxy.cpu_seconds() - before
            observer.end(proxy)
        return units_of(subject.run, reply, used)
    finally:
        proxy.stop()


def row_for(options: tuple[str, ...]) -> Row:
    """How the load generator connects depends on the mode."""
    like = "dbproxy-terminate" if "--terminate" in options else "dbproxy"
    row = next(row for row in ROWS if row.name == like)
    return replace(row, command=dbproxy(*options))


def units_of(run: Run, reply: Reply, used: float) -> Measured:
    """What the units of a run are."""
    if "count" in reply:
        unit = "connection" if run.command == "connect" else "round trip"
        return Measured(reply["count"], unit, reply["seconds"], used)
    return Measured(reply["bytes"] / MB, "megabyte", reply["seconds"], used)


class CProfile(Observer):
    """dbproxy within `profiled.py`, whose profiler two signals switch on and off."""

    def __init__(self, directory: Path, lines: int) -> None:
        self._file = directory / "profile"
        self._lines = lines

    def command(self, command: Sequence[str | Path]) -> Sequence[str | Path]:
        return (sys.executable, PROFILED, self._file, *command[1:])

    def begin(self, proxy: Running) -> None:
        proxy.process.send_signal(signal.SIGUSR1)
        time.sleep(0.05)

    def end(self, proxy: Running) -> None:
        proxy.process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + WRITE_TIMEOUT
        while not self._file.exists():
            if time.monotonic() > deadline:
                raise BenchError(f"no profile was written: {proxy.last_words()}")
            time.sleep(0.05)

    def report(self, measured: Measured) -> Table:
        functions = sorted(functions_in(self._file), key=lambda one: -one.own)
        total = sum(one.own for one in functions)
        table = Table(title=f"cProfile: {measured.head}", title_justify="left")
        for heading in ("own, µs", "own, %", "with callees, µs", "calls"):
            table.add_column(heading, justify="right")
        table.add_column("function")
        for one in functions[: self._lines]:
            table.add_row(
                f"{1e6 * one.own / measured.units:,.1f}",
                f"{100 * one.own / total:.1f}",
                f"{1e6 * one.cumulative / measured.units:,.1f}",
                f"{one.calls / measured.units:,.2f}",
                one.where,
            )
        return table


@dataclass(frozen=True)
class Function:
    """A function in a profile.

    Attributes:
        where: Its name, and for Python code the end of its path: `relay/pump.py:71 carry`.
        calls: How often it was called.
        own: Seconds in itself.
        cumulative: Seconds in itself and all that it called.
    """

    where: str
    calls: int
    own: float
    cumulative: float


def functions_in(file: Path) -> Iterator[Function]:
    """The functions in a file of cProfile."""
    # Not get_stats_profile(): it knows one function of each name only.
    entries: dict[tuple[str, int, str], tuple[int, int, float, float, object]]
    entries = vars(pstats.Stats(str(file)))["stats"]
    for (path, line, name), (_, calls, own, cumulative, _) in entries.items():
        shown = name if path == "~" else f"{'/'.join(Path(path).parts[-SHORTEN:])}:{line} {name}"
        yield Function(shown, calls, own, cumulative)


class Sampler(Observer):
    """A program that samples the process from outside."""

    def __init__(self, directory: Path, lines: int) -> None:
        self._file = directory / "samples"
        self._lines = lines
        self._sampler: subprocess.Popen[bytes] | None = None

    def record(self, pid: int) -> Sequence[str | Path]:
        """The command that samples until it is interrupted."""
        raise NotImplementedError

    def begin(self, proxy: Running) -> None:
        self._sampler = subprocess.Popen(
            list(map(str, self.record(proxy.process.pid))),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        time.sleep(0.5)  # it attaches

    def end(self, proxy: Running) -> None:
        del proxy
        assert self._sampler is not None
        self._sampler.send_signal(signal.SIGINT)
        _, words = self._sampler.communicate(timeout=60)
        if not self._file.exists():
            raise BenchError(f"no samples: {words.decode(errors='replace').strip()}")


class Perf(Sampler):
    """perf: the symbols with the most samples, of the kernel and of all libraries."""

    def record(self, pid: int) -> Sequence[str | Path]:
        return ("perf", "record", "--quiet", "-p", str(pid), "-o", self._file)

    def report(self, measured: Measured) -> str:
        return "\n".join(
            [
                f"perf: {measured.head}",
                *self._report("overhead,dso")[:LIBRARIES],
                "",
                *self._report("overhead,dso,symbol")[: self._lines],
            ]
        )

    def _report(self, fields: str) -> list[str]:
        command = ["perf", "report", "--stdio", "--fields", fields, "-i", str(self._file)]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return [line for line in said.splitlines() if line.strip() and not line.startswith("#")]


class PySpy(Sampler):
    """py-spy: the Python stacks with the most samples."""

    def record(self, pid: int) -> Sequence[str | Path]:
        return ("py-spy", "record", "--format=raw", "--native", "-p", str(pid), "-o", self._file)

    def report(self, measured: Measured) -> str:
        own: dict[str, int] = {}
        for line in self._file.read_text(encoding="utf-8").splitlines():
            stack, _, count = line.rpartition(" ")
            leaf = stack.rpartition(";")[2]
            own[leaf] = own.get(leaf, 0) + int(count)
        total = sum(own.values()) or 1
        ranked = sorted(own.items(), key=lambda item: -item[1])[: self._lines]
        lines = [f"{100 * count / total:6.1f} %  {leaf}" for leaf, count in ranked]
        return "\n".join([f"py-spy: {measured.head}", *lines])


OBSERVERS: Final = {"cprofile": CProfile, "perf": Perf, "py-spy": PySpy}


if __name__ == "__main__":
    sys.exit(main())
