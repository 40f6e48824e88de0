"""The bars: what dbproxy promises against its peers, and whether a run kept it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from comparison.figures import unit_of
from comparison.summary import Table, best, look_up, ratio

OURS: Final = "dbproxy"
PREWARMED: Final = "dbproxy-prewarm"
WORKERS: Final = "dbproxy-workers"
TSH: Final = "go"
BEST_PEER: Final = "best peer"
GO_PEER: Final = "Go peer"


@dataclass(frozen=True)
class Bar:
    """One promise.

    Attributes:
        title: What is promised.
        metric: The figure.
        against: Whose figure is the measure; None for an absolute limit.
        must: The limit: a multiple of the other's figure, or an absolute value.
        aim: What is aimed at, in the same terms; None when there is no more to want.
        aim_against: Whose figure the aim is a multiple of, where it is another one.
        row: The row that is judged.
    """

    title: str
    metric: str
    against: str | None
    must: float
    aim: float | None
    aim_against: str | None = None
    row: str = OURS


@dataclass(frozen=True)
class Verdict:
    """What a run says about a bar.

    Attributes:
        bar: The bar.
        ours: Our median; None when it was not measured.
        theirs: The other's median, if there is another one and it was measured.
        peer: The other's row.
        measured: Our figure in the terms of the bar.
        passed: Whether the limit was kept; None when it was not measured.
        reached: Whether the aim was reached; None when there is none or it was not measured.
    """

    bar: Bar
    ours: float | None = None
    theirs: float | None = None
    peer: str | None = None
    measured: float | None = None
    passed: bool | None = None
    reached: bool | None = None


def _for_directions(
    title: str, metric: str, against: str, must: float, aim: float
) -> tuple[Bar, Bar]:
    up, down = (
        Bar(f"{title}, 1 stream {way}", f"bulk-{way}-1.{metric}", against, must, aim)
        for way in ("up", "down")
    )
    return up, down


BARS: Final = (
    *_for_directions("CPU s/GB", "cpu_s_per_gb", BEST_PEER, 0.95, 0.75),
    *_for_directions("MB/s", "mb_per_s", BEST_PEER, 0.95, 1.2),
    *_for_directions("CPU s/GB", "cpu_s_per_gb", GO_PEER, 0.8, 0.6),
    *_for_directions("MB/s", "mb_per_s", GO_PEER, 1.1, 1.3),
    Bar("CPU µs per 64-byte round trip, 32 connections", "rt-64-32.cpu_us", BEST_PEER, 1.4, 1.0),
    Bar("p50 of a 64-byte round trip, 1 connection", "rt-64-1.p50_us", BEST_PEER, 1.1, 0.9),
    Bar(
        "New connections/s, 8 at once, resumption possible",
        "connect-8-resumed.per_s",
        GO_PEER,
        1.2,
        1.0,
        aim_against=BEST_PEER,
    ),
    Bar(
        "The same with `--workers auto`; the Go peer does not resume",
        "connect-8-resumed.per_s",
        GO_PEER,
        1.2,
        1.0,
        aim_against=BEST_PEER,
        row=WORKERS,
    ),
    Bar(
        "p50 of a new connection with `--prewarm`, one every 10 ms",
        "connect-paced.p50_ms",
        BEST_PEER,
        0.5,
        0.25,
        row=PREWARMED,
    ),
    Bar("RSS for each of 1,000 idle connections, KiB", "idle.kib_each_1000", None, 45, 25),
    Bar("RSS for each of 5,000 idle connections, KiB", "idle.kib_each_5000", None, 45, 25),
    Bar("RSS at start, MiB", "idle.start_mib", None, 60, 40),
    Bar("p99 of 64-byte round trips beside 4 bulk streams", "beside.p99_us", BEST_PEER, 2.0, 1.0),
    Bar("Connections held, all echo once", "idle.echoed", None, 5000, None),
)


def judge(table: Table, peers: Iterable[str], bars: Iterable[Bar] = BARS) -> Iterator[Verdict]:
    """What the samples say about each bar.

    Args:
        table: The samples.
        peers: The rows among which the best peer is looked for.
        bars: The bars.
    """
    peers = list(peers)
    for bar in bars:
        yield _judge(bar, table, peers)


def _judge(bar: Bar, table: Table, peers: list[str]) -> Verdict:
    ours = look_up(table, bar.row, bar.metric)
    if ours is None:
        return Verdict(bar)
    if bar.against is None:
        passed = _within(bar, ours.median, bar.must)
        reached = None if bar.aim is None else _within(bar, ours.median, bar.aim)
        return Verdict(bar, ours.median, None, None, ours.median, passed, reached)
    other = best(table, _candidates(bar.against, peers), bar.metric)
    if other is None:
        return Verdict(bar, ours.median)
    peer, theirs = other
    measured = ratio(ours, theirs)
    reached = None
    aimed = best(table, _candidates(bar.aim_against or bar.against, peers), bar.metric)
    if bar.aim is not None and aimed is not None:
        reached = _within(bar, ratio(ours, aimed[1]), bar.aim)
    passed = _within(bar, measured, bar.must)
    return Verdict(bar, ours.median, theirs.median, peer, measured, passed, reached)


def _candidates(against: str, peers: list[str]) -> list[str]:
    return [TSH] if against == GO_PEER else peers


def _within(bar: Bar, measured: float, limit: float) -> bool:
    return measured >= limit if unit_of(bar.metric).higher_is_better else measured <= limit
