"""dbproxy and its peers side by side: the same load for all, in one run.

    scripts/bench                                 everything
    scripts/bench --quick                         one short round: does it all work?
    scripts/bench --row=dbproxy --row=nginx --run=bulk-up-1 --run=rt-64-32
    scripts/bench --list                          the names of rows and runs
    scripts/bench --write-docs                    everything, and docs/performance.md
    scripts/bench --from=bench.json --write-docs  the page again, from a file

Exit status 1 when something did not work. A missed bar is a result, not an error.
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
from typing import TypeVar

from comparison.figures import IDLE, RUNS, Run
from comparison.machine import describe_machine, describe_versions
from comparison.measure import Plan, measure
from comparison.page import write_page
from comparison.processes import BenchError
from comparison.programs import build
from comparison.results import Results, RowInfo
from comparison.rows import ROWS, Row
from comparison.terminal import show
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

DOCS = Path(__file__).resolve().parents[1] / "docs"
ROUNDS = 5
IDLE_ROUNDS = 3
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
    show(results, console)
    if arguments.write_docs:
        write_page(results, DOCS)
    return 0


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
    return parser.parse_args(arguments)


def list_names(console: Console) -> None:
    """Rows and runs by name."""
    for heading, items in (("Rows", ROWS), ("Runs", RUNS)):
        console.print(heading, style="bold")
        for item in items:
            missing = item.missing() if isinstance(item, Row) else None
            console.print(f"  {item.name:20} {item.title}{f' ({missing})' if missing else ''}")


def run(arguments: argparse.Namespace, console: Console) -> Results:
    """Measure.

    Raises:
        BenchError: Something did not work.
    """
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
        plan = make_plan(arguments, results, open_files)
        results.rows = [RowInfo(row.name, row.title, row.peer) for row in plan.rows]
        results.runs = {one.name: one.title for one in plan.runs}
        with progress_bar(console) as bar:
            task = bar.add_task("", total=plan.steps())

            def progress(text: str) -> None:
                bar.update(task, description=text, advance=0 if text else 1)

            measure(plan, programs, results, progress)
    results.seconds = round(time.monotonic() - began)
    return results


def make_plan(arguments: argparse.Namespace, results: Results, open_files: int) -> Plan:
    """Choose rows and runs; what cannot be done is noted in the results."""
    rows = []
    for row in chosen(ROWS, arguments.row):
        if reason := row.missing():
            results.note(f"{row.title}: {reason}")
        else:
            rows.append(row)
    runs = [one.quick() if arguments.quick else one for one in chosen(RUNS, arguments.run)]
    if open_files < FILES_FOR_5000 and not arguments.quick:
        results.note(f"5,000 held connections: only {open_files} files may be open")
        runs = [
            replace(one, options=("--hold", "1000")) if one.name == IDLE.name else one
            for one in runs
        ]
    return Plan(rows, runs, results.rounds, min(results.rounds, IDLE_ROUNDS))


Item = TypeVar("Item", Row, Run)


def chosen(items: Sequence[Item], patterns: Sequence[str] | None) -> list[Item]:
    """Those that a pattern matches; all without patterns.

    Raises:
        BenchError: A pattern matches none.
    """
    for pattern in patterns or ():
        if not any(fnmatch(item.name, pattern) for item in items):
            raise BenchError(f"no row or run is called {pattern}; --list shows the names")
    return [
        item
        for item in items
        if not patterns or any(fnmatch(item.name, pattern) for pattern in patterns)
    ]


def raise_file_limit() -> int:
    """Allow us, and those we start, as many open files as we may; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def progress_bar(console: Console) -> Progress:
    """How far it is."""
    columns = (BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=console)


if __name__ == "__main__":
    sys.exit(main())
