"""Results as a file: everything that the tables, charts and the page are made from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1


@dataclass
class RowInfo:
    """A row as the results know it."""

    name: str
    title: str
    peer: bool


@dataclass
class Results:
    """One run of the benchmark.

    Attributes:
        began: When, ISO 8601 in UTC.
        seconds: How long it took.
        rounds: How many rounds were asked for.
        quick: A run that only shows that everything works; its figures mean nothing.
        load_average: One-minute load averages of the machine, before each round and at the end.
        machine: What it ran on.
        versions: Of everything that took part.
        rows: In the order of the tables.
        runs: Titles of the runs, by name, in order.
        samples: By row and metric, one for each round.
        notes: What was left out, and why.
        failures: What did not work; the figures of those runs are missing.
    """

    began: str
    rounds: int
    quick: bool
    machine: dict[str, str]
    versions: dict[str, str]
    seconds: float = 0.0
    load_average: list[float] = field(default_factory=list)
    rows: list[RowInfo] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def peers(self) -> list[str]:
        """The rows that dbproxy is judged against."""
        return [row.name for row in self.rows if row.peer]

    def add(self, row: str, samples: Mapping[str, float]) -> None:
        """Take the samples of one round."""
        metrics = self.samples.setdefault(row, {})
        for metric, value in samples.items():
            metrics.setdefault(metric, []).append(value)

    def note(self, text: str) -> None:
        """Say what was left out, once."""
        if text not in self.notes:
            self.notes.append(text)

    def metrics_of(self, run: str) -> list[str]:
        """The metrics of a run that any row has, in the order in which they were first seen."""
        found: dict[str, None] = {}
        for metrics in self.samples.values():
            found |= dict.fromkeys(name for name in metrics if name.rpartition(".")[0] == run)
        return list(found)

    def write(self, path: Path) -> None:
        """Write them as JSON; samples keep six digits."""
        data = {"format": FORMAT} | asdict(self)
        data["samples"] = {
            row: {metric: _rounded(values) for metric, values in metrics.items()}
            for row, metrics in self.samples.items()
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Read what `write` wrote.

        Raises:
            ValueError: It is something else.
        """
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format", None) != FORMAT:
            raise ValueError(f"{path} has no results in format {FORMAT}")
        data["rows"] = [RowInfo(**row) for row in data["rows"]]
        return cls(**data)


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
