"""More clients than there are file descriptors for."""

import json
import resource
from contextlib import AsyncExitStack
from pathlib import Path

import trio
from commands import PATIENCE, running_dbproxy

STARTUP = b"\x00\x00\x00\x14\x00\x03\x00\x00user\x00alice\x00\x00"
LIMIT = 40
CLIENTS = 80


def descriptors_of(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


async def refusal(port: int) -> bytes:
    """What a client reads that asks for its database when it cannot be reached."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as client:
        await client.send_all(STARTUP)
        return b"".join([part async for part in client])


async def test_clients_wait_while_descriptors_are_short_and_are_served_afterwards(
    tmp_path: Path, destination: Path
) -> None:
    arguments = ("db", "--destination-dir", destination, "--proxy=127.0.0.1:1", "--tunnel")
    async with running_dbproxy(*arguments, "--log-format=json", home=tmp_path) as command:
        port = await command.port()
        resource.prlimit(command.process.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        async with AsyncExitStack() as clients:
            for _ in range(CLIENTS):
                await clients.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
            failure = await command.event("accept-failed")
            # The attempts that follow, ten a second, add nothing to the log.
            await trio.sleep(0.5)
        with trio.fail_after(PATIENCE):
            answer = await refusal(port)
        assert await command.stop() == 0
    assert b"[upstream-unreachable]" in answer
    assert (failure["level"], failure["code"]) == ("warning", "too-many-files")
    assert "LimitNOFILE=" in failure["next_step"]
    events = [json.loads(line)["event"] for line in command.err.received if line]
    assert events.count("accept-failed") == 1


async def test_a_client_for_whom_no_upstream_can_be_opened_is_told_why(
    tmp_path: Path, destination: Path
) -> None:
    arguments = (
        "--debug",
        "db",
        "--destination-dir",
        destination,
        "--proxy=127.0.0.1:1",
        "--tunnel",
    )
    async with running_dbproxy(*arguments, "--log-format=json", home=tmp_path) as command:
        port = await command.port()
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            await command.event("connection-opened")
            used = descriptors_of(command.process.pid)
            resource.prlimit(command.process.pid, resource.RLIMIT_NOFILE, (used, LIMIT))
            await client.send_all(STARTUP)
            with trio.fail_after(PATIENCE):
                answer = b"".join([part async for part in client])
        record = await command.event("connection-closed", outcome="refused")
        resource.prlimit(command.process.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        assert b"[upstream-unreachable]" in await refusal(port)
        assert await command.stop() == 0
    assert record["code"] == "too-many-files"
    assert b"C53000\x00" in answer
    assert b"[too-many-files]" in answer
    assert all(json.loads(line) for line in command.err.received if line)
