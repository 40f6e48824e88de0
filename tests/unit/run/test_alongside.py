"""A command beside a whole proxy in this process."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio
from lab_client import until
from proxy_bench import STARTUP

from dbproxy.errors import Code, DBProxyError
from dbproxy.events import Event
from dbproxy.proxy import Prepared
from dbproxy.run import Command, run_alongside

from .conftest import MakeSettings

PATIENCE = 20.0
NOTES = """
import os, signal, sys
path, ends_at = sys.argv[1], sys.argv[2:]
def note(number, _frame):
    name = signal.Signals(number).name
    with open(path, "a") as file:
        print(name, file=file)
    if name in ends_at:
        os._exit(9)
for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
    signal.signal(getattr(signal, name), note)
with open(path, "a") as file:
    print("ready", file=file)
while True:
    signal.pause()
"""

pytestmark = pytest.mark.usefixtures("no_descriptor_may_be_left")


class Notes:
    """A command that writes down which signals it gets."""

    def __init__(self, directory: Path, *ends_at: str) -> None:
        self._path = directory / "notes"
        self._ends_at = ends_at

    def command(self, _prepared: Prepared) -> Command:
        words = (sys.executable, "-c", NOTES, str(self._path), *self._ends_at)
        return Command(words, os.environ)

    @property
    def lines(self) -> list[str]:
        return self._path.read_text().split() if self._path.exists() else []

    async def has(self, line: str) -> None:
        await until(lambda: line in self.lines, PATIENCE)


def shell(script: str) -> Callable[[Prepared], Command]:
    return lambda _prepared: Command(("sh", "-c", script), os.environ)


def not_heard(_number: int) -> bool:
    return False


def ignore(_event: Event) -> None:
    pass


async def send(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)
        await trio.sleep(0.05)


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
async def test_the_status_is_the_commands(
    settings_at_a_server: MakeSettings, script: str, status: int
) -> None:
    events: list[Event] = []
    with trio.fail_after(PATIENCE):
        async with settings_at_a_server() as settings:
            assert status == await run_alongside(
                settings, events.append, shell(script), heard=not_heard
            )
    names = [event.name for event in events]
    assert names[-1] == "stopped"
    assert names.index("listening") < names.index("draining")


async def test_the_command_is_made_with_the_port_that_is_listened_on(
    settings_at_a_server: MakeSettings, tmp_path: Path
) -> None:
    def make(prepared: Prepared) -> Command:
        assert prepared.started.address.endswith(f":{prepared.facts.port}")
        program = f"import socket; socket.create_connection(('127.0.0.1', {prepared.facts.port}))"
        return Command((sys.executable, "-c", program), os.environ)

    with trio.fail_after(PATIENCE):
        async with settings_at_a_server() as settings:
            assert await run_alongside(settings, ignore, make, heard=not_heard) == 0


async def test_signals_reach_the_command_in_their_order(
    settings_at_a_server: MakeSettings, tmp_path: Path
) -> None:
    notes = Notes(tmp_path, "SIGHUP")

    async def act() -> None:
        await notes.has("ready")
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            await send(number)
            await notes.has(number.name)
        await send(signal.SIGHUP)

    with trio.fail_after(PATIENCE):
        async with settings_at_a_server() as settings, trio.open_nursery() as nursery:
            nursery.start_soon(act)
            status = await run_alongside(settings, ignore, notes.command, heard=not_heard)
    assert status == 9
    assert notes.lines == ["ready", "SIGUSR1", "SIGTERM", "SIGINT", "SIGHUP"]


async def test_what_the_command_has_heard_is_not_sent_again(
    settings_at_a_server: MakeSettings, tmp_path: Path
) -> None:
    notes = Notes(tmp_path, "SIGTERM")

    async def act() -> None:
        await notes.has("ready")
        await send(signal.SIGINT, signal.SIGTERM)

    with trio.fail_after(PATIENCE):
        async with settings_at_a_server() as settings, trio.open_nursery() as nursery:
            nursery.start_soon(act)
            status = await run_alongside(
                settings, ignore, notes.command, heard=lambda number: number == signal.SIGINT
            )
    assert status == 9
    assert notes.lines == ["ready", "SIGTERM"]


async def test_a_second_sigint_kills_the_command(
    settings_at_a_server: MakeSettings, tmp_path: Path
) -> None:
    notes = Notes(tmp_path)

    async def act() -> None:
        await notes.has("ready")
        await send(signal.SIGINT)
        await notes.has("SIGINT")
        await send(signal.SIGINT)

    with trio.fail_after(PATIENCE):
        async with settings_at_a_server() as settings, trio.open_nursery() as nursery:
            nursery.start_soon(act)
            status = await run_alongside(settings, ignore, notes.command, heard=not_heard)
    assert status == 128 + signal.SIGKILL


async def test_a_signal_before_the_command_runs_ends_everything(
    settings_at_a_server: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbproxy.upstream.acceptance.REJECTION_TIME", 60.0)

    def make(prepared: Prepared) -> Command:
        os.kill(os.getpid(), signal.SIGTERM)  # while it is waited for a connection
        return shell("exit 0")(prepared)

    with trio.fail_after(PATIENCE):
        async with settings_at_a_server() as settings:
            status = await run_alongside(settings, ignore, make, heard=not_heard)
    assert status == 128 + signal.SIGTERM


async def test_a_signal_while_connections_drain_ends_them(
    settings_at_a_server: MakeSettings,
) -> None:
    """The command ends, and somebody else keeps a connection open."""
    events: list[Event] = []

    async def act() -> None:
        await until(lambda: any(event.name == "draining" for event in events), PATIENCE)
        await send(signal.SIGTERM)

    def make_with_client(prepared: Prepared) -> Command:
        nursery.start_soon(keep_open, prepared.facts.port)
        return shell("sleep 0.5")(prepared)

    async def keep_open(port: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(STARTUP)
            with suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass

    with trio.fail_after(PATIENCE):
        async with (
            settings_at_a_server(drain_timeout=600.0) as settings,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(act)
            run = partial(run_alongside, settings, events.append, make_with_client)
            assert await run(heard=not_heard) == 0
            nursery.cancel_scope.cancel()


async def test_a_command_that_cannot_be_started_ends_the_proxy(
    settings_at_a_server: MakeSettings,
) -> None:
    def make(_prepared: Prepared) -> Command:
        return Command(("no-such-program",), os.environ)

    with trio.fail_after(PATIENCE), pytest.raises(ExceptionGroup) as caught:
        async with settings_at_a_server() as settings:
            await run_alongside(settings, ignore, make, heard=not_heard)
    assert caught.group_contains(DBProxyError, match="no-such-program")


async def test_without_a_connection_the_command_is_not_started(
    settings_at_a_server: MakeSettings, tmp_path: Path
) -> None:
    notes = Notes(tmp_path, "SIGTERM")
    with trio.fail_after(PATIENCE):
        async with settings_at_a_server(proxy="127.0.0.1:1") as settings:
            with pytest.raises(ExceptionGroup) as caught:
                await run_alongside(settings, ignore, notes.command, heard=not_heard)
    (error,) = caught.value.exceptions
    assert isinstance(error, DBProxyError)
    assert error.code is Code.UPSTREAM_UNREACHABLE
    assert notes.lines == []


@pytest.mark.parametrize("obedient", [True, False])
async def test_when_the_proxy_fails_the_command_is_told_and_killed_in_the_end(
    settings_at_a_server: MakeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    obedient: bool,
) -> None:
    notes = Notes(tmp_path, *(["SIGTERM"] if obedient else []))

    async def fail(*_arguments: object, **_options: object) -> None:
        await notes.has("ready")
        raise RuntimeError("a bug")

    monkeypatch.setattr("dbproxy.proxy.watch", fail)
    begin = trio.current_time()
    with trio.fail_after(PATIENCE), pytest.raises(ExceptionGroup) as caught:
        async with settings_at_a_server(drain_timeout=600.0 if obedient else 0.3) as settings:
            await run_alongside(settings, ignore, notes.command, heard=not_heard)
    assert caught.group_contains(RuntimeError, match="a bug")
    assert notes.lines == ["ready", "SIGTERM"]
    assert obedient or trio.current_time() - begin >= 0.3


async def test_cancelling_tells_the_command_to_end(
    settings_at_a_server: MakeSettings, tmp_path: Path
) -> None:
    notes = Notes(tmp_path, "SIGTERM")
    with trio.fail_after(PATIENCE):
        async with settings_at_a_server() as settings, trio.open_nursery() as nursery:
            run = partial(run_alongside, settings, ignore, notes.command, heard=not_heard)
            nursery.start_soon(run)
            await notes.has("ready")
            nursery.cancel_scope.cancel()
    assert notes.lines == ["ready", "SIGTERM"]
