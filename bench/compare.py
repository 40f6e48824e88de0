"""dbproxy and its peers side by side: the same load for all, in one run.

    scripts/bench                                 everything
    scripts/bench --quick                         one short round: does it all work?
    scripts/bench --row=dbproxy --row=nginx --run=bulk-up-1 --run=rt-64-32
    scripts/bench --list                          the names of rows and runs
    scripts/bench --write-docs                    everything, and docs/performance.md
    scripts/bench --from=bench.json --write-docs  the page again, from a file

Exit status 1 when something did not work, which is then named. A missed bar is no error.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol, TypeVar

from comparison.figures import IDLE, RUNS
from comparison.machine import describe_machine, describe_versions
from comparison.measure import Plan, measure
from comparison.page import write_page
from comparison.pgbench import SCRIPTS, measure_pgbench, steps, takes_part
from comparison.processes import BenchError
from comparison.programs import build
from comparison.results import Results, RowInfo
from comparison.rows import ROWS, Row
from comparison.terminal import show
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

DOCS = Path(__file__).resolve().parents[1] / "docs"


class Named(Protocol):
    """A row, a run or a script."""

    @property
    def name(self) -> str:
        """As options name it."""

    @property
    def title(self) -> str:
        """For people."""


Item = TypeVar("Item", bound=Named)
ROUNDS = 5
IDLE_ROUNDS = 2
FILES_FOR_5000 = 12_000
"""Two sockets for each connection, and what else a proxy has open."""


def main() -> int:
    """Do what the command line asks for; returns the exit status."""
    arguments = parse_arguments()
    console = Console(stderr=False)
    if arguments.list:
        list_names(console)
        return 0
    if arguments.source:
        results = Results.read(arguments.source)
    else:
        try:
            results = run(arguments, Console(stderr=True))
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        results.write(arguments.json)
        results = Results.read(arguments.json)  # rounded as they are kept, so that pages are alike
    show(results, console)
    if arguments.write_docs:
        write_page(results, DOCS)
    return 1 if results.failures else 0


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    parser.add_argument("--row", action="append", metavar="NAME", help="only these; * is allowed")
    parser.add_argument("--run", action="append", metavar="NAME", help="only these; * is allowed")
    parser.add_argument("--list", action="store_true", help="show the names")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("bench.json"),
        metavar="FILE",
        help="where the results go; default: bench.json",
    )
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="show results, measure nothing"
    )
    parser.add_argument("--write-docs", action="store_true", help="write docs/performance.md")
    parsed = parser.parse_args(arguments)
    if parsed.quick and parsed.write_docs:
        parser.error("the figures of --quick mean nothing and do not belong in the documentation")
    return parsed


def list_names(console: Console) -> None:
    """Rows and runs by name."""
    console.print("Rows", style="bold")
    for row in ROWS:
        missing = f" ({reason})" if (reason := row.missing()) else ""
        console.print(f"  {row.name:20} {row.title}{missing}", soft_wrap=True)
    console.print("Runs", style="bold")
    runs: tuple[Named, ...] = (*RUNS, *SCRIPTS)
    for one in runs:
        console.print(f"  {one.name:20} {one.title}", soft_wrap=True)


def run(arguments: argparse.Namespace, console: Console) -> Results:
    """Measure.

    Raises:
        BenchError: Something did not work.
    """
    check_names(ROWS, arguments.row or ())
    check_names((*RUNS, *SCRIPTS), arguments.run or ())
    began = time.monotonic()
    open_files = raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="bench-programs-") as directory:
        programs = build(Path(directory))
        results = Results(
            datetime.now(UTC).isoformat(timespec="minutes"),
            arguments.rounds or (1 if arguments.quick else ROUNDS),
            arguments.quick,
            describe_machine(),
            describe_versions(programs),
        )
        patterns = arguments.run or ["*"]
        rows = usable_rows(arguments, results)
        plan = make_plan(arguments, rows, results, open_files)
        scripts = matching(SCRIPTS, patterns)
        pgbench_rows = [row for row in rows if takes_part(row)]
        results.rows = [RowInfo(row.name, row.title, row.peer) for row in rows]
        measured: tuple[Named, ...] = (*plan.runs, *scripts)
        results.runs = {one.name: one.title for one in measured}
        with progress_bar(console) as bar:
            total = plan.steps() + steps(pgbench_rows, scripts, quick=arguments.quick)
            task = bar.add_task("", total=total)

            def progress(text: str) -> None:
                bar.update(task, description=text, advance=0 if text else 1)
                if text and not console.is_terminal:  # where nobody sees the bar move
                    print(text, file=sys.stderr, flush=True)

            if plan.runs:
                measure(plan, programs, results, progress)
            if scripts and pgbench_rows:
                measure_pgbench(pgbench_rows, scripts, programs, results, progress)
    results.seconds = round(time.monotonic() - began)
    return results


def usable_rows(arguments: argparse.Namespace, results: Results) -> list[Row]:
    """The rows that were asked for; why one cannot run is noted in the results."""
    rows = []
    for row in matching(ROWS, arguments.row or ["*"]):
        if reason := row.missing():
            results.note(f"{row.title}: {reason}")
        else:
            rows.append(row)
    return rows


def make_plan(
    arguments: argparse.Namespace, rows: Sequence[Row], results: Results, open_files: int
) -> Plan:
    """Choose the runs of the load generator."""
    runs = matching(RUNS, arguments.run or ["*"])
    if arguments.quick:
        runs = [one.quick() for one in runs]
    elif open_files < FILES_FOR_5000:
        results.note(f"5,000 held connections: only {open_files} files may be open")
        runs = [
            replace(one, options=("--hold", "1000")) if one.name == IDLE.name else one
            for one in runs
        ]
    return Plan(rows, runs, results.rounds, min(results.rounds, IDLE_ROUNDS))


def check_names(items: Sequence[Named], patterns: Sequence[str]) -> None:
    """Refuse a pattern that means nothing.

    Raises:
        BenchError: It matches none.
    """
    for pattern in patterns:
        if not any(fnmatch(item.name, pattern) for item in items):
            raise BenchError(f"nothing is called {pattern}; --list shows the names")


def matching(items: Sequence[Item], patterns: Sequence[str]) -> list[Item]:
    """Those that a pattern matches."""
    return [item for item in items if any(fnmatch(item.name, pattern) for pattern in patterns)]


def raise_file_limit() -> int:
    """Allow us, and those we start, as many open files as we may; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def progress_bar(console: Console) -> Progress:
    """How far it is."""
    columns = (
        BarColumn(30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    return Progress(*columns, console=console)


if __name__ == "__main__":
    sys.exit(main())
