"""Runs the demo from the first line to the last, and cleans up however it ends."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from enum import IntEnum
from typing import Final

import trio

from dbproxy.lab.demo.acts import open_ports, query, refuse, renew, stay, stop
from dbproxy.lab.demo.narrator import Narrator, NobodyListens, StepFailed, first_leaf
from dbproxy.lab.demo.stage import open_stage
from dbproxy.lab.demo.workshop import Workshop, open_workshop
from dbproxy.lab.errors import LabError

__all__ = ["Ending", "Performance"]

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending(IntEnum):
    """How the demo ended: the exit status."""

    DONE = 0
    FAILED = 1
    INTERRUPTED = 130
    NOBODY_READS = 141
    """What shells report for a program that SIGPIPE ended."""


class Performance:
    """One run of the demo.

    Args:
        say: Tells it.
        keep: Stay up after the last step until a signal comes.
    """

    def __init__(self, say: Narrator, *, keep: bool) -> None:
        self._say = say
        self._keep = keep
        self._ending = Ending.INTERRUPTED

    async def run(self) -> Ending:
        """Run it; SIGINT, SIGTERM and SIGHUP end it at any time.

        Whatever ends it, its processes and its directory are gone afterwards.
        """
        started = trio.current_time()
        with trio.open_signal_receiver(*SIGNALS) as signals:
            try:
                await self._run_until(signals)
            except* NobodyListens:
                self._ending = Ending.NOBODY_READS
            except* (StepFailed, LabError) as group:
                self._fail(group)
        self._conclude(trio.current_time() - started)
        return self._ending

    async def _run_until(self, signals: AsyncIterator[int]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
            with open_workshop() as workshop:
                await self._tell(workshop)
            nursery.cancel_scope.cancel()

    async def _tell(self, workshop: Workshop) -> None:
        self._say.title("dbproxy demo: Teleport's Machine ID guide on this machine")
        self._say.note(f"Everything runs on loopback and lies in {workshop.directory}.")
        async with open_stage(workshop, self._say) as stage, open_ports(stage, self._say) as ports:
            await query(ports, self._say)
            await refuse(ports, self._say)
            await renew(stage, ports, self._say)
            if self._keep:
                self._ending = Ending.DONE  # a signal is the good end from now on
                await stay(stage, ports, self._say)
            await stop(stage, ports, self._say)
        self._ending = Ending.DONE

    def _fail(self, group: BaseExceptionGroup[BaseException]) -> None:
        self._ending = Ending.FAILED
        with suppress(NobodyListens):
            self._say.failed(first_leaf(group))

    def _conclude(self, seconds: float) -> None:
        how = {
            Ending.DONE: f"Done in {seconds:.0f} s.",
            Ending.FAILED: "The demo failed.",
            Ending.INTERRUPTED: "Interrupted.",
            Ending.NOBODY_READS: "Nobody reads this.",
        }[self._ending]
        with suppress(NobodyListens):
            self._say.end(f"{how} Its processes have ended and its files are removed.")


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()
