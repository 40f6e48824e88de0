"""Medians, spreads and ratios of samples."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from comparison.figures import unit_of

Table = Mapping[str, Mapping[str, Sequence[float]]]
"""Samples by row and metric."""


@dataclass(frozen=True)
class Value:
    """What several rounds say.

    Attributes:
        median: The figure.
        low: The smallest sample.
        high: The largest one.
        rounds: How many samples there are.
    """

    median: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """Half of the range as a share of the median: 0.05 is ±5 %."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def value(samples: Sequence[float]) -> Value:
    """The median and the range.

    Raises:
        ValueError: There is no sample.
    """
    if not samples:
        raise ValueError("no sample")
    return Value(median(samples), min(samples), max(samples), len(samples))


def look_up(table: Table, row: str, metric: str) -> Value | None:
    """The value of a metric in a row; None when it was not measured."""
    samples = table.get(row, {}).get(metric)
    return value(samples) if samples else None


def best(table: Table, rows: Iterable[str], metric: str) -> tuple[str, Value] | None:
    """The row with the best median, and its value; None when none of them has the metric."""
    known = [(row, found) for row in rows if (found := look_up(table, row, metric))]
    if not known:
        return None
    choose = max if unit_of(metric).higher_is_better else min
    return choose(known, key=lambda pair: pair[1].median)


def ratio(ours: Value, theirs: Value) -> float:
    """Our median as a multiple of theirs; infinite when theirs is nothing."""
    return ours.median / theirs.median if theirs.median else float("inf")
