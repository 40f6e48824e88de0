"""`docs/performance.md` and its charts, written from the results alone."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from comparison.bars import OURS, Verdict, judge
from comparison.charts import Item, bar_chart
from comparison.figures import unit_of
from comparison.results import Results
from comparison.summary import look_up
from comparison.wording import amount, bar_aim, bar_must, cell, measured, outcome

PAGE: Final = "performance.md"
CHARTS: Final = "performance"
"""The folder beside the page that the charts and the results are in."""
RESULTS: Final = "results.json"

CHARTED: Final = {
    "cpu-up": ("bulk-up-1.cpu_s_per_gb", "CPU seconds per GB, 1 stream up (less is better)"),
    "cpu-down": ("bulk-down-1.cpu_s_per_gb", "CPU seconds per GB, 1 stream down (less is better)"),
    "speed-up": ("bulk-up-1.mb_per_s", "MB/s, 1 stream up (more is better)"),
    "speed-down": ("bulk-down-1.mb_per_s", "MB/s, 1 stream down (more is better)"),
    "message-cpu": (
        "rt-64-32.cpu_us",
        "CPU µs per 64-byte round trip, 32 connections (less is better)",
    ),
    "latency": ("rt-64-1.p50_us", "p50 of a 64-byte round trip, µs (less is better)"),
    "connect": (
        "connect-8-resumed.per_s",
        "New connections per second, 8 at once (more is better)",
    ),
    "beside": (
        "beside.p99_us",
        "p99 of a round trip beside 4 bulk streams, µs (less is better)",
    ),
    "memory": ("idle.kib_each_5000", "KiB for each of 5,000 idle connections (less is better)"),
}
"""The charts, by file name: metric and title."""


def write_page(results: Results, docs: Path) -> None:
    """Write the page, its charts, and the results that they were made from."""
    folder = docs / CHARTS
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages(results).items():
        (docs / name).write_text(text, encoding="utf-8")
    results.write(folder / RESULTS)


def pages(results: Results) -> dict[str, str]:
    """The texts by their path below `docs`."""
    charts = {f"{CHARTS}/{name}.svg": chart(results, *CHARTED[name]) for name in charted(results)}
    return {PAGE: "\n".join(page(results)), **charts}


def charted(results: Results) -> list[str]:
    """The charts for which there are figures."""
    return [
        name
        for name, (metric, _) in CHARTED.items()
        if any(metric in metrics for metrics in results.samples.values())
    ]


def chart(results: Results, metric: str, title: str) -> str:
    """One metric of all rows, the best one first."""
    known = [
        (row, value)
        for row in results.rows
        if (value := look_up(results.samples, row.name, metric)) is not None
    ]
    known.sort(key=lambda pair: pair[1].median, reverse=unit_of(metric).higher_is_better)
    return bar_chart(
        title,
        [
            Item(
                row.title,
                value.median,
                value.low,
                value.high,
                amount(metric, value.median),
                ours=row.name.startswith(OURS),
            )
            for row, value in known
        ],
    )


def page(results: Results) -> Iterator[str]:
    """The lines of the page."""
    yield "# Performance"
    yield ""
    yield "<!-- Written by scripts/bench from performance/results.json; do not edit. -->"
    yield ""
    yield from _method(results)
    yield from _bars(list(judge(results.samples, results.peers)))
    yield from _charts(results)
    yield from _figures(results)


def _method(results: Results) -> Iterator[str]:
    yield (
        "dbproxy beside what else could do its work, in one run on one machine. Absolute figures "
        "differ from machine to machine, and so do the peers'; what counts is the ratios."
    )
    yield ""
    if results.quick:
        yield "**This was a quick run, to see that everything works. Its figures mean nothing.**"
        yield ""
    yield from _table(
        ("machine", ""),
        [
            *results.machine.items(),
            ("when", f"{results.began}, {results.seconds / 60:.0f} minutes"),
            ("load average", ", ".join(f"{average:g}" for average in results.load_average)),
            ("versions", ", ".join(f"{name} {text}" for name, text in results.versions.items())),
        ],
    )
    peers = "; ".join(row.title for row in results.rows if row.peer) or "none"
    yield "## Method"
    yield ""
    yield from METHOD.format(rounds=results.rounds, peers=peers).splitlines()
    yield ""
    if results.failures:
        yield "Failed in this run:"
        yield ""
        yield from (f"- {' '.join(failure.split())}" for failure in results.failures)
        yield ""
    if results.notes:
        yield "Left out of this run:"
        yield ""
        yield from (f"- {note}" for note in results.notes)
        yield ""


METHOD: Final = """\
- **Everything runs on this one machine**, over loopback: load generator, proxy, and a TLS 1.3
  server in the Teleport Proxy's place that demands and verifies the client certificate (RSA 2048,
  as Teleport's are). Load generator and server are Go programs of our own
  ([bench/go](../bench/go)), the same for all rows; they check every byte.
- {rounds} rounds. In each, all proxies are started anew and stand side by side; each run goes
  through all rows before the next run begins, and every other round goes through them backwards.
  Figures are medians of the rounds; ± is half the range between the smallest and the largest one.
  Connections are held in the first two rounds only, and rows that no bar is about take part in
  every other round.
- **CPU** is user and system time of the proxy's whole process tree, from when all connections are
  open until all bytes have arrived or the time is up. **RSS** is that of the tree; what processes
  share is counted for each. Memory per idle connection is the growth since the start, held
  connections only.
- The client is PostgreSQL's: it sends a StartupMessage and waits for the answer before anything
  counts. The time of a new connection is that from `connect` until this answer.
- With `--prewarm 8` up to eight handshakes are done before their clients come. In the run that the
  bar is about a client comes every 10 ms, which is time enough to make another; where they come one
  right after the other, or eight at once, it is not, and most of them wait for their own.
- "Full handshakes" are made by a server without session tickets. With tickets each proxy resumes
  or not, as it pleases; the column says how many connections did. tsh does not.
- dbproxy and the Go peer speak Teleport's ping framing where the row says so. The Go peer does what
  tsh does: `crypto/tls`, `io.Copy` both ways, header and payload as two writes, no session cache.
  **stunnel, HAProxy and nginx cannot frame** and carry the bytes in plain TLS, which is less work;
  stunnel and nginx send no ALPN value either. All use their defaults but for what the row says.
- Peers are the distribution's packages, and dbproxy runs on the distribution's Python where that is
  3.11 or newer. On one that pyenv has built, without options, it took 2 to 7 % more processor time
  for each connection and each round trip here.
- GB are 10⁹ bytes, MB 10⁶, KiB and MiB powers of two. "Best peer" is the best of {peers}.
- In the `pgbench` rows a real PostgreSQL stands behind the TLS server, which carries the bytes to
  its Unix socket; so proxy *and* server are in the path, and "direct" is the Unix socket without
  either.
- Repeat it with `scripts/bench`; [bench/README.md](../bench/README.md) says how to run single rows.
"""


def _bars(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield "## Bars"
    yield ""
    yield "What dbproxy promises (`--tunnel`, ping framing on unless said otherwise):"
    yield ""
    yield from _table(
        ("figure", "must", "aim", "measured", "verdict"),
        [
            (
                verdict.bar.title,
                bar_must(verdict.bar),
                bar_aim(verdict.bar),
                measured(verdict),
                _strong(outcome(verdict)),
            )
            for verdict in verdicts
        ],
    )


def _strong(text: str) -> str:
    return f"**{text}**" if text == "missed" else text


def _charts(results: Results) -> Iterator[str]:
    yield "## Charts"
    yield ""
    for name in charted(results):
        yield f"![{CHARTED[name][1]}]({CHARTS}/{name}.svg)"
        yield ""


def _figures(results: Results) -> Iterator[str]:
    yield "## All figures"
    yield ""
    yield "In the row of dbproxy, × is the multiple of the best peer's figure."
    yield ""
    for run, title in results.runs.items():
        metrics = results.metrics_of(run)
        if not metrics:
            continue
        yield f"### {title}"
        yield ""
        yield from _table(
            ("", *(unit_of(metric).title for metric in metrics)),
            [
                (row.title, *cells)
                for row in results.rows
                if any(cells := [cell(results, row.name, metric) for metric in metrics])
            ],
        )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""
