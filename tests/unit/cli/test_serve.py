import os
import signal
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from started import PASSTHROUGH

from dbproxy.cli.serve import run_with_signals
from dbproxy.errors import Code, DBProxyError, ListenError
from dbproxy.proxy import Started
from dbproxy.relay.reactor import OWN_LOOP


class StandInProxy:
    """Does nothing, and notes what it is asked for."""

    def __init__(self, *, starts: bool = True, drains: bool = True) -> None:
        self.calls: list[str] = []
        self.reloaded = trio.Event()
        self.stopping = trio.Event()
        self._starts = starts
        self._drains = drains
        self._ended = trio.Event()

    async def run(
        self, *, task_status: trio.TaskStatus[Started] = trio.TASK_STATUS_IGNORED
    ) -> None:
        if not self._starts:
            await trio.sleep_forever()
        task_status.started(PASSTHROUGH)
        await self._ended.wait()

    def stop(self) -> None:
        self.calls.append("stop")
        self.stopping.set()
        if self._drains:
            self._ended.set()

    def stop_now(self) -> None:
        self.calls.append("stop_now")
        self._ended.set()

    async def reload(self) -> None:
        self.calls.append("reload")
        self.reloaded.set()


Act = Callable[[], Awaitable[None]]


async def run_and(proxy: StandInProxy, act: Act) -> list[Started]:
    """Run the proxy; once it has started, do `act` beside it."""
    told: list[Started] = []
    begun = trio.Event()

    def tell(started: Started) -> None:
        told.append(started)
        begun.set()

    async def act_when_begun() -> None:
        await begun.wait()
        await act()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(act_when_begun)
            await run_with_signals(proxy, tell)
    return told


async def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_the_proxy_and_the_run_ends_well(number: signal.Signals) -> None:
    proxy = StandInProxy()

    async def act() -> None:
        await send(number)

    assert await run_and(proxy, act) == [PASSTHROUGH]
    assert proxy.calls == ["stop"]


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
async def test_a_second_signal_ends_at_once(second: signal.Signals) -> None:
    proxy = StandInProxy(drains=False)

    async def act() -> None:
        await send(signal.SIGTERM)
        await proxy.stopping.wait()
        await send(second)

    await run_and(proxy, act)
    assert proxy.calls == ["stop", "stop_now"]


async def test_sighup_reloads_and_the_proxy_runs_on() -> None:
    proxy = StandInProxy()

    async def act() -> None:
        await send(signal.SIGHUP)
        await proxy.reloaded.wait()
        proxy.reloaded = trio.Event()
        await send(signal.SIGHUP)
        await proxy.reloaded.wait()
        await send(signal.SIGTERM)

    await run_and(proxy, act)
    assert proxy.calls == ["reload", "reload", "stop"]


async def test_a_reload_that_takes_its_time_does_not_delay_the_end() -> None:
    class SlowToReload(StandInProxy):
        async def reload(self) -> None:
            await super().reload()
            await trio.sleep_forever()

    proxy = SlowToReload()

    async def act() -> None:
        await send(signal.SIGHUP)
        await proxy.reloaded.wait()
        await send(signal.SIGTERM)

    await run_and(proxy, act)
    assert proxy.calls == ["reload", "stop"]


async def test_a_signal_while_the_proxy_starts_ends_it_without_a_start_message() -> None:
    proxy = StandInProxy(starts=False)
    told: list[Started] = []

    async def interrupt() -> None:
        await trio.testing.wait_all_tasks_blocked()
        await send(signal.SIGTERM)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt)
            await run_with_signals(proxy, told.append)
    assert told == []


async def test_a_command_has_trio_s_loop_to_itself_from_the_start() -> None:
    seen: list[bool] = []

    class Asking(StandInProxy):
        async def run(
            self, *, task_status: trio.TaskStatus[Started] = trio.TASK_STATUS_IGNORED
        ) -> None:
            seen.append(OWN_LOOP.get())

    assert not OWN_LOOP.get()
    with trio.fail_after(5), pytest.raises(ExceptionGroup):  # it did not report that it started
        await run_with_signals(Asking(), lambda _started: None)
    assert seen == [True]


async def test_an_error_at_the_start_comes_out() -> None:
    class Failing(StandInProxy):
        async def run(
            self, *, task_status: trio.TaskStatus[Started] = trio.TASK_STATUS_IGNORED
        ) -> None:
            raise ListenError(Code.ADDRESS_IN_USE, "127.0.0.1:12345 is in use")

    with pytest.raises(ExceptionGroup) as caught:
        await run_with_signals(Failing(), lambda _started: None)
    assert caught.group_contains(ListenError, match="is in use")


async def test_a_start_message_that_cannot_be_written_ends_the_proxy() -> None:
    def tell(_started: Started) -> None:
        raise DBProxyError(Code.INTERNAL_ERROR, "no room")

    with trio.fail_after(5), pytest.raises(ExceptionGroup) as caught:
        await run_with_signals(StandInProxy(), tell)
    assert caught.group_contains(DBProxyError, match="no room")


async def test_when_the_run_ends_by_itself_nothing_keeps_waiting_for_signals() -> None:
    proxy = StandInProxy()

    async def act() -> None:
        proxy.stop_now()

    await run_and(proxy, act)
    assert proxy.calls == ["stop_now"]
