"""The installed `dbproxy` command as a process, and what its log says."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

COMMAND = os.environ.get("DBPROXY_COMMAND") or str(Path(sys.executable).with_name("dbproxy"))
STOP_TIMEOUT = 30.0


@dataclass
class ProxyProcess:
    """A running dbproxy.

    Attributes:
        process: The process.
        started: The start message.
        events: The log: one dictionary for each line.
        peak_kib: The most resident memory seen, in KiB.
    """

    process: trio.Process
    started: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    memory_kib: list[int] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self.started["address"].rpartition(":")[2])

    def of(self, name: str) -> list[dict[str, Any]]:
        """The events of this name."""
        return [event for event in self.events if event["event"] == name]

    def sample_memory(self) -> None:
        """Note the resident memory now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        self.memory_kib.append(int(line.split()[1]))

    def processor_seconds(self) -> float:
        """Processor time that it has used so far."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    async def stop(self) -> None:
        """Ask it to stop and wait until it has."""
        self.process.send_signal(signal.SIGTERM)
        with trio.fail_after(STOP_TIMEOUT):
            await self.process.wait()


@asynccontextmanager
async def running_dbproxy(
    arguments: Sequence[str | Path], state: Path
) -> AsyncIterator[ProxyProcess]:
    """Run `dbproxy` with these arguments; killed at the end of the block if it still runs."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DBPROXY_", "TBOT_", "PG"))
    }
    process = await trio.lowlevel.open_process(
        [COMMAND, *map(str, arguments)],
        env=environment | {"STATE_DIRECTORY": str(state)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    proxy = ProxyProcess(process)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_collect, process.stderr, proxy.events)
            first = b""
            while b"\n" not in first:
                data = await process.stdout.receive_some()
                if not data:
                    await process.wait()
                    raise SystemExit(f"dbproxy did not start: {proxy.events}")
                first += data
            proxy.started = json.loads(first)
            yield proxy
            if process.returncode is None:
                process.kill()
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _collect(stream: trio.abc.ReceiveStream, events: list[dict[str, Any]]) -> None:
    rest = b""
    async for data in stream:
        *lines, rest = (rest + data).split(b"\n")
        events.extend(_parse(line) for line in lines)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        event = {"event": "not-json", "line": line.decode("utf-8", "replace")}
    assert isinstance(event, dict)
    return event
