"""What a run of the soak found."""

import os
import statistics
from dataclasses import asdict, dataclass
from typing import Any

from soak.load import Outcome
from soak.proxy_process import ProxyProcess


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run: a scenario in a mode.

    Attributes:
        scenario: `renewal`, or `rotation`.
        mode: dbproxy's mode.
        gap_ms: Milliseconds between two files that tbot wrote.
        seconds: How long the load lasted.
        renewals: Renewals that tbot completed while dbproxy ran, the one before its start included.
        generations: Generations that dbproxy adopted, as it logged them.
        generations_used: How many of them at least one connection used.
        torn_accepted: Generations beyond tbot's renewals: mixtures of two.
        reload_failures: Renewals that dbproxy could not read in time, or refused.
        connections: New connections that were tried.
        long_queries: Queries on the connections that stayed from the beginning to the end.
        failed: How many of both failed.
        failures: The first reasons.
        refused_by_dbproxy: Closed connections in the log that did not end well, by code.
        p50_ms: Time of a new connection and its query, from the planned moment on: the median.
        p99_ms: Its 99th percentile.
        worst_ms: The longest.
        processor_ms_each: Processor time of dbproxy, in ms, divided by the new connections.
        memory_mib: dbproxy's resident memory: after a tenth of the time, after half, at the end.
        load_average: The machine's, at the end.
    """

    scenario: str
    mode: str
    gap_ms: float
    seconds: float
    renewals: int
    generations: int
    generations_used: int
    torn_accepted: int
    reload_failures: int
    connections: int
    long_queries: int
    failed: int
    failures: list[str]
    refused_by_dbproxy: dict[str, int]
    p50_ms: float
    p99_ms: float
    worst_ms: float
    processor_ms_each: float
    memory_mib: tuple[float, float, float]
    load_average: float

    @property
    def passed(self) -> bool:
        """Whether nothing failed, nothing torn was accepted and every generation was used.

        A rotation forces renewals, which may follow others at once: nobody can use those between.
        """
        if self.failed or self.torn_accepted or self.refused_by_dbproxy:
            return False
        every = self.generations_used == self.generations == self.renewals
        return every or self.scenario == "rotation"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"passed": self.passed}


def make_report(
    *,
    scenario: str,
    gap: float,
    seconds: float,
    renewals: int,
    processor_seconds: float,
    proxy: ProxyProcess,
    outcome: Outcome,
) -> Report:
    """Count what the log of a stopped proxy and the load say."""
    generations = {event["generation"] for event in proxy.of("identity-loaded")}
    closed = proxy.of("connection-closed")
    used = {event["generation"] for event in closed} & generations
    bad = [event for event in closed if event["outcome"] != "relayed"]
    codes = [str(event.get("code") or event["outcome"]) for event in bad]
    milliseconds = sorted(1000 * latency for latency in outcome.latencies) or [0.0]
    memory = [kib / 1024 for kib in proxy.memory_kib]
    return Report(
        scenario=scenario,
        mode=proxy.started["mode"],
        gap_ms=gap * 1000,
        seconds=seconds,
        renewals=renewals,
        generations=len(generations),
        generations_used=len(used),
        torn_accepted=max(0, len(generations) - renewals),
        reload_failures=len(proxy.of("identity-reload-failed")),
        connections=outcome.connections,
        long_queries=outcome.queries,
        failed=len(outcome.failures),
        failures=[f"{second:.2f} s: {reason}" for second, reason in outcome.failures[:5]],
        refused_by_dbproxy={code: codes.count(code) for code in sorted(set(codes))},
        p50_ms=round(statistics.median(milliseconds), 1),
        p99_ms=round(milliseconds[int(len(milliseconds) * 0.99)], 1),
        worst_ms=round(milliseconds[-1], 1),
        processor_ms_each=round(1000 * processor_seconds / max(outcome.connections, 1), 1),
        memory_mib=(_early(memory, 10), _early(memory, 2), round(memory[-1], 1)),
        load_average=round(os.getloadavg()[0], 2),
    )


def _early(values: list[float], share: int) -> float:
    """The value when one of so many shares of the time was over."""
    return round(values[len(values) // share], 1)


def summary(report: Report) -> str:
    """A few lines for people."""
    verdict = "PASS" if report.passed else "FAIL"
    memory = ", ".join(f"{mib:g}" for mib in report.memory_mib)
    gap, seconds, failed = report.gap_ms, report.seconds, report.failed
    lines = [
        f"{verdict}  {report.scenario}, {report.mode}, {gap:g} ms between files, {seconds:g} s",
        (
            f"  failed: {failed} of {report.connections} new connections"
            f" and {report.long_queries} queries on long ones"
        ),
        (
            f"  tbot: {report.renewals} renewals; dbproxy: {report.generations} generations,"
            f" {report.generations_used} used, {report.torn_accepted} torn accepted,"
            f" {report.reload_failures} reloads failed"
        ),
        (
            f"  new connection and query: p50 {report.p50_ms} ms, p99 {report.p99_ms} ms,"
            f" worst {report.worst_ms} ms"
        ),
        (
            f"  dbproxy: {report.processor_ms_each} ms of processor time for each connection,"
            f" memory {memory} MiB; load average {report.load_average}"
        ),
    ]
    if report.refused_by_dbproxy:
        lines.append(f"  connections that did not end well: {report.refused_by_dbproxy}")
    lines.extend(f"  {failure}" for failure in report.failures)
    return "\n".join(lines)
