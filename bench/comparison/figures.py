"""What is measured: the runs of the load generator, and the metrics that come out of each.

A metric is named after its run: `bulk-up-1.cpu_s_per_gb`. Samples are plain numbers by that name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

GB: Final = 1e9
MB: Final = 1e6
MIB: Final = 1 << 20

Reply = Mapping[str, Any]
"""What the load generator says at the end of a run."""
Samples = dict[str, float]


@dataclass(frozen=True)
class Unit:
    """How the values of a kind of metric are shown.

    Attributes:
        title: What it is, with its unit.
        higher_is_better: The best peer is the one with the highest value.
        digits: Decimal places.
    """

    title: str
    higher_is_better: bool
    digits: int


UNITS: Final[Mapping[str, Unit]] = {
    "mb_per_s": Unit("MB/s", higher_is_better=True, digits=0),
    "cpu_s_per_gb": Unit("CPU s/GB", higher_is_better=False, digits=3),
    "per_s": Unit("per second", higher_is_better=True, digits=0),
    "p50_us": Unit("p50, µs", higher_is_better=False, digits=0),
    "p99_us": Unit("p99, µs", higher_is_better=False, digits=0),
    "cpu_us": Unit("CPU µs each", higher_is_better=False, digits=1),
    "p50_ms": Unit("p50, ms", higher_is_better=False, digits=2),
    "p99_ms": Unit("p99, ms", higher_is_better=False, digits=2),
    "cpu_ms": Unit("CPU ms each", higher_is_better=False, digits=2),
    "resumed": Unit("resumed, %", higher_is_better=True, digits=0),
    "start_mib": Unit("RSS at start, MiB", higher_is_better=False, digits=1),
    "echoed": Unit("have echoed", higher_is_better=True, digits=0),
    "rss_mib": Unit("RSS afterwards, MiB", higher_is_better=False, digits=1),
    "tps": Unit("transactions/s", higher_is_better=True, digits=0),
    "of_direct": Unit("of direct, %", higher_is_better=True, digits=0),
}


HELD: Final = "kib_each_"
"""So many are held: a kind of metric for each number of them."""


def unit_of(metric: str) -> Unit:
    """How a metric is shown."""
    kind = metric.rpartition(".")[2]
    if kind.startswith(HELD):
        held = int(kind.removeprefix(HELD))
        return Unit(f"KiB each, {held:,} held", higher_is_better=False, digits=1)
    return UNITS[kind]


@dataclass(frozen=True)
class Usage:
    """What the proxy used during a run.

    Attributes:
        cpu_seconds: User and system time of its whole process tree; None when there is no proxy.
        rss_bytes: Resident memory of its process tree afterwards; None when there is no proxy.
        handshakes: How many TLS handshakes the upstream has seen during the run.
        resumed: How many of them resumed a session.
    """

    cpu_seconds: float | None = None
    rss_bytes: int | None = None
    handshakes: int = 0
    resumed: int = 0


@dataclass(frozen=True)
class Run:
    """One run of the load generator.

    Attributes:
        name: Unique, and the first part of the names of its metrics.
        title: For people.
        command: Sub-command of the load generator.
        options: Its options.
        tickets: Whether the upstream issues and takes session tickets.
        samples: Makes metrics of the reply and the proxy's usage.
    """

    name: str
    title: str
    command: str
    options: tuple[str, ...]
    samples: Callable[["Run", Reply, Usage], Samples]
    tickets: bool = True

    def named(self, values: Mapping[str, float | None]) -> Samples:
        """The values under the full names of their metrics; what could not be measured is out."""
        return {f"{self.name}.{key}": value for key, value in values.items() if value is not None}

    def quick(self) -> "Run":
        """The same in a fraction of the time: shows that it works, measures little."""
        options = self.options
        for option, value in (("--seconds", "0.1"), ("--hold", "200"), ("--bytes", str(4 * MIB))):
            if option in options:
                at = options.index(option)
                options = (*options[: at + 1], value, *options[at + 2 :])
        return replace(self, options=options)


def bulk_samples(run: Run, reply: Reply, usage: Usage) -> Samples:
    """Speed, and processor time for each byte."""
    cpu = usage.cpu_seconds
    return run.named(
        {
            "mb_per_s": reply["bytes"] / MB / reply["seconds"],
            "cpu_s_per_gb": None if cpu is None else cpu / (reply["bytes"] / GB),
            "rss_mib": None if usage.rss_bytes is None else usage.rss_bytes / MIB,
        }
    )


def round_trip_samples(run: Run, reply: Reply, usage: Usage) -> Samples:
    """Rate, latency, and processor time for each message there and back."""
    cpu = usage.cpu_seconds
    return run.named(
        {
            "per_s": reply["count"] / reply["seconds"],
            "p50_us": reply["p50_us"],
            "p99_us": reply["p99_us"],
            "cpu_us": None if cpu is None else 1e6 * cpu / reply["count"],
        }
    )


def connect_samples(run: Run, reply: Reply, usage: Usage) -> Samples:
    """Rate, time until the first answer, processor time, and how many resumed."""
    cpu = usage.cpu_seconds
    return run.named(
        {
            "per_s": reply["count"] / reply["seconds"],
            "p50_ms": reply["p50_us"] / 1e3,
            "p99_ms": reply["p99_us"] / 1e3,
            "cpu_ms": None if cpu is None else 1e3 * cpu / reply["count"],
            "resumed": 100 * usage.resumed / usage.handshakes if usage.handshakes else None,
        }
    )


def beside_samples(run: Run, reply: Reply, usage: Usage) -> Samples:
    """Latency of the small round trips, and what the bulk streams moved meanwhile."""
    del usage
    return run.named(
        {
            "p50_us": reply["p50_us"],
            "p99_us": reply["p99_us"],
            "mb_per_s": reply["bytes"] / MB / reply["seconds"],
        }
    )


def idle_samples(run: Run, reply: Reply, usage: Usage) -> Samples:
    """How many connections were held and have echoed; their memory was measured before."""
    del usage
    return run.named({"echoed": reply["count"]})


DIRECTIONS: Final = {"up": "to the upstream", "down": "from the upstream", "both": "both at once"}
SIZES: Final = {64: "64 B", 4096: "4 KiB"}


def _bulk(direction: str, connections: int) -> Run:
    total = 512 if connections == 1 else 256  # MiB
    per_connection = total // connections // (2 if direction == "both" else 1)
    return Run(
        f"bulk-{direction}-{connections}",
        f"Bulk {DIRECTIONS[direction]}, {_streams(connections)}",
        "bulk",
        (
            *("--direction", direction, "--connections", str(connections)),
            *("--bytes", str(per_connection * MIB)),
        ),
        bulk_samples,
    )


def _round_trips(size: int, connections: int) -> Run:
    return Run(
        f"rt-{size}-{connections}",
        f"Round trips of {SIZES[size]}, {_connections(connections)}",
        "roundtrips",
        ("--size", str(size), "--connections", str(connections), "--seconds", "0.4"),
        round_trip_samples,
    )


def _connect(at_once: int, *, tickets: bool) -> Run:
    return Run(
        f"connect-{at_once}-{'resumed' if tickets else 'full'}",
        f"New connections, {'one after another' if at_once == 1 else f'{at_once} at once'}, "
        + ("resumption possible" if tickets else "full handshakes"),
        "connect",
        ("--connections", str(at_once), "--seconds", "0.4"),
        connect_samples,
        tickets=tickets,
    )


def _streams(count: int) -> str:
    return "1 stream" if count == 1 else f"{count} streams"


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


IDLE: Final = Run(
    "idle",
    "Idle connections, then all echo once",
    "idle",
    ("--hold", "1000,5000"),
    idle_samples,
)
PACED: Final = Run(
    "connect-paced",
    "New connections, one every 10 ms, resumption possible",
    "connect",
    ("--connections", "1", "--interval", "10ms", "--seconds", "0.8"),
    connect_samples,
)
BESIDE: Final = Run(
    "beside",
    "Round trips of 64 B beside 4 bulk streams (2 up, 2 down)",
    "beside",
    ("--connections", "4", "--seconds", "1"),
    beside_samples,
)
RUNS: Final = (
    IDLE,
    *(_connect(at_once, tickets=tickets) for at_once in (1, 8) for tickets in (False, True)),
    PACED,
    *(_round_trips(size, connections) for size in SIZES for connections in (1, 32, 256)),
    *(_bulk(direction, connections) for connections in (1, 8) for direction in DIRECTIONS),
    BESIDE,
)
"""In the order in which they run: memory first, while nothing has been used."""
