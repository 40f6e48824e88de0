"""Results on the terminal."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from comparison.bars import OURS, Verdict, judge
from comparison.figures import unit_of
from comparison.results import Results
from comparison.wording import bar_must, cell, measured, outcome

STYLES = {True: "green", False: "red", None: "dim"}


def show(results: Results, console: Console) -> None:
    """Print a table for each run, and the bars."""
    for run, title in results.runs.items():
        if results.metrics_of(run):
            console.print(run_table(results, run, title))
    if results.quick:
        console.print("A quick run: it all works, and the figures mean nothing.", style="bold")
    else:
        console.print(bars_table(list(judge(results.samples, results.peers))))
    for failure in results.failures:
        console.print(f"Failed: {failure}", style="red", markup=False)
    for note in results.notes:
        console.print(f"Left out: {note}", style="dim")
    averages = ", ".join(f"{average:g}" for average in results.load_average)
    console.print(
        f"{results.seconds:.0f} s; load average before each round and at the end: {averages}"
    )


def run_table(results: Results, run: str, title: str) -> Table:
    """One run: a line for each row, with median, spread, and our multiple of the best peer's."""
    metrics = results.metrics_of(run)
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for metric in metrics:
        table.add_column(unit_of(metric).title, justify="right")
    for row in results.rows:
        cells = [cell(results, row.name, metric) for metric in metrics]
        if any(cells):
            table.add_row(row.title, *cells, style="bold" if row.name == OURS else "")
    return table


def bars_table(verdicts: list[Verdict]) -> Table:
    """The bars and whether they were kept."""
    table = Table(title="Bars", title_justify="left", title_style="bold")
    for heading in ("figure", "must", "measured", "verdict"):
        table.add_column(heading)
    for cells, style in _bar_rows(verdicts):
        table.add_row(*cells, style=style)
    return table


def _bar_rows(verdicts: list[Verdict]) -> Iterator[tuple[tuple[str, str, str, str], str]]:
    for verdict in verdicts:
        bar = verdict.bar
        cells = (bar.title, bar_must(bar), measured(verdict), outcome(verdict))
        yield cells, STYLES[verdict.passed]
