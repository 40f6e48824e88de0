"""Steady load: a new connection and a query every so often, beside some connections that stay."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import psycopg
import trio

T = TypeVar("T")

MOST_AT_ONCE = 40
"""Connections at once; the embedded PostgreSQL takes 60."""
LONG_QUERY_INTERVAL = 1.0
"""Seconds between two queries on a connection that stays."""
QUERY = "SELECT 40 + 2"
ANSWER = (42,)


@dataclass
class Outcome:
    """What became of the load.

    Attributes:
        connections: New connections that were tried.
        queries: Queries on the connections that stay.
        failures: What failed: seconds since the start, and why.
        latencies: Seconds from the moment planned to the end of each new connection.
    """

    connections: int = 0
    queries: int = 0
    failures: list[tuple[float, str]] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)


class SteadyLoad:
    """Runs the load.

    Args:
        conninfo: Makes the parameters of a new connection; called for each.
        interval: Seconds between new connections, however long they take.
        long: How many connections stay.
    """

    def __init__(self, conninfo: Callable[[], str], interval: float, long: int) -> None:
        self.outcome = Outcome()
        self._conninfo = conninfo
        self._interval = interval
        self._long = long
        self._threads = trio.CapacityLimiter(MOST_AT_ONCE)
        self._long_threads = trio.CapacityLimiter(max(long, 1))
        self._begin = time.monotonic()

    async def run(self, duration: float) -> None:
        """Go on for `duration` seconds, then wait for what is under way."""
        self._begin = time.monotonic()
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(self._long):
                nursery.start_soon(self._stay, begin + duration)
            for number in range(int(duration / self._interval)):
                planned = begin + number * self._interval
                await trio.sleep_until(planned)
                nursery.start_soon(self._connect, planned)

    async def _connect(self, planned: float) -> None:
        self.outcome.connections += 1
        work = partial(_connect_and_query, self._conninfo)
        if await self._try("new connection", work, self._threads) is not None:
            self.outcome.latencies.append(trio.current_time() - planned)

    async def _stay(self, end: float) -> None:
        connect = partial(_connect, self._conninfo)
        connection = await self._try("long connection", connect, self._long_threads)
        if connection is None:
            return
        while trio.current_time() < end:
            self.outcome.queries += 1
            ask = partial(_query, connection)
            if await self._try("query on a long connection", ask, self._long_threads) is None:
                return
            await trio.sleep(LONG_QUERY_INTERVAL)
        await trio.to_thread.run_sync(connection.close)

    async def _try(
        self, what: str, work: Callable[[], T], threads: trio.CapacityLimiter
    ) -> T | None:
        try:
            return await trio.to_thread.run_sync(work, limiter=threads)
        except (psycopg.Error, OSError) as error:
            reason = " / ".join(str(error).split("\n"))
            self.outcome.failures.append((time.monotonic() - self._begin, f"{what}: {reason}"))
            return None


def _connect(conninfo: Callable[[], str]) -> psycopg.Connection:
    return psycopg.connect(conninfo(), autocommit=True)


def _query(connection: psycopg.Connection) -> bool:
    answer = connection.execute(QUERY).fetchone()
    if answer != ANSWER:
        raise psycopg.DataError(f"the answer was {answer}")
    return True


def _connect_and_query(conninfo: Callable[[], str]) -> bool:
    with _connect(conninfo) as connection:
        return _query(connection)
