"""Many tunnels together: each on its own, ended together."""

import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing
from started import TUNNEL

from dbproxy.backoff import Backoff
from dbproxy.errors import (
    PROBLEMS,
    Code,
    ConfigError,
    DBProxyError,
    IdentityError,
    ListenError,
    UsageError,
)
from dbproxy.events import Event, InsecureChoice, Subscriber, TunnelFailed
from dbproxy.fleet import Fleet, Tunnel
from dbproxy.fleet import runner as runner_module
from dbproxy.proxy import Prepared, Started
from dbproxy.settings import Settings

HEAD = """\
version: v2
proxy_server: teleport.example.com:443
services:
"""
ENTRIES = """\
  - {{type: database, service: {0}, destination: {{path: /opt/{0}}}}}
  - {{type: database-tunnel, name: {0}, service: {0}, listen: "tcp://127.0.0.1:0"}}
"""

MISSING = IdentityError(Code.IDENTITY_MISSING, "/opt/one does not exist")
IN_USE = ListenError(Code.ADDRESS_IN_USE, "another process uses it")

BUG = ZeroDivisionError("division by zero")
WHILE_SERVING = 7.0
"""Seconds after which a bug shows in a tunnel that is open."""

Outcome = Exception | None
"""What an attempt to open ends with; nothing means that it succeeds."""


@dataclass
class World:
    """What stand-ins for proxies do, and what has been done to them."""

    outcomes: dict[str, deque[Outcome]] = field(default_factory=dict)
    bugs: dict[str, deque[Outcome]] = field(default_factory=dict)
    reload_bugs: list[Exception] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    attempts: list[tuple[str, float]] = field(default_factory=list)
    events_at_each_attempt: tuple[Event, ...] = ()
    drain: float = 0.0
    slow: bool = False
    opened: dict[str, trio.Event] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    published: list[tuple[str, Event]] = field(default_factory=list)
    listeners: int = 0

    def failures(self, name: str) -> list[TunnelFailed]:
        return [
            event
            for owner, event in self.published
            if owner == name and isinstance(event, TunnelFailed)
        ]

    def attempts_of(self, name: str) -> list[float]:
        return [at for owner, at in self.attempts if owner == name]

    def tell(self, tunnel: Tunnel, started: Started) -> None:
        assert started.service == tunnel.service
        self.told.append(tunnel.name)
        self.opened.setdefault(tunnel.name, trio.Event()).set()

    def subscriber_for(self, tunnel: Tunnel) -> Subscriber:
        return lambda event: self.published.append((tunnel.name, event))

    async def all_open(self, *names: str) -> None:
        for name in names:
            await self.opened.setdefault(name, trio.Event()).wait()


class StandInProxy:
    """A DatabaseProxy without sockets and files."""

    world: World

    def __init__(self, settings: Settings, publish: Subscriber) -> None:
        self._name = settings.service or ""
        self._publish = publish
        self._ended = trio.CancelScope()
        self._grace: float | None = None

    async def prepare(self) -> Prepared:
        world = self.world
        world.attempts.append((self._name, trio.current_time()))
        for event in world.events_at_each_attempt:
            self._publish(event)
        await trio.sleep(math.inf if world.slow else 0)
        outcomes = world.outcomes.get(self._name, deque())
        outcome = outcomes.popleft() if outcomes else None
        if outcome is not None:
            raise outcome
        world.listeners += 1
        return cast("Prepared", StandInPrepared(replace(TUNNEL, service=self._name)))

    async def serve(self, _prepared: Prepared) -> None:
        try:
            bugs = self.world.bugs.get(self._name)
            with self._ended:
                await trio.sleep(WHILE_SERVING if bugs else math.inf)
            if bugs:
                raise ExceptionGroup("", [bugs.popleft() or AssertionError()])
            if self._grace:
                await trio.sleep(self._grace)
        finally:
            self.world.listeners -= 1

    def stop(self) -> None:
        self.world.calls.append((self._name, "stop"))
        self._grace = self.world.drain if self._grace is None else self._grace
        self._ended.cancel()

    def stop_now(self) -> None:
        self.world.calls.append((self._name, "stop_now"))
        self._grace = 0
        self._ended.cancel()

    async def reload(self) -> None:
        self.world.calls.append((self._name, "reload"))
        if self.world.reload_bugs:
            raise self.world.reload_bugs.pop()


@dataclass
class StandInPrepared:
    started: Started


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World()
    monkeypatch.setattr(StandInProxy, "world", world, raising=False)
    monkeypatch.setattr(runner_module, "DatabaseProxy", StandInProxy)
    yield world
    assert world.listeners == 0


MakeFleet = Callable[..., Fleet]


@pytest.fixture
def make_fleet(world: World, tmp_path: Path) -> MakeFleet:
    def make(*names: str, tell: Callable[[Tunnel, Started], None] = world.tell) -> Fleet:
        path = tmp_path / "tbot.yaml"
        path.write_text(HEAD + "".join(ENTRIES.format(name) for name in names))
        return Fleet(
            Settings(config=path),
            tell=tell,
            subscriber_for=world.subscriber_for,
            backoff=lambda: Backoff(1.0, 10.0, draw=lambda: 1.0),
        )

    return make


@asynccontextmanager
async def running(fleet: Fleet) -> AsyncIterator[None]:
    """Run the fleet for the length of the block, and stop it in the end."""
    async with trio.open_nursery() as nursery:
        await nursery.start(fleet.run)
        yield
        fleet.stop()


async def test_every_tunnel_is_opened_and_told(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(make_fleet("one", "two", "three")):
        await world.all_open("one", "two", "three")
        assert world.listeners == 3
    assert sorted(world.told) == ["one", "three", "two"]
    assert sorted(world.calls) == [("one", "stop"), ("three", "stop"), ("two", "stop")]


async def test_one_that_fails_does_not_disturb_the_others_and_is_tried_again(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    world.outcomes["two"] = deque([MISSING] * 6)
    begin = trio.current_time()
    async with running(make_fleet("one", "two")):
        await world.all_open("one")
        assert trio.current_time() == begin
        await world.all_open("two")
    assert world.told == ["one", "two"]
    assert [at - begin for at in world.attempts_of("two")] == [0, 1, 3, 7, 15, 25, 35]


async def test_each_failure_is_an_event_with_its_code_of_that_tunnel(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    world.outcomes["two"] = deque([MISSING, IN_USE])
    async with running(make_fleet("one", "two")):
        await world.all_open("two")
    assert world.failures("one") == []
    assert world.failures("two") == [
        TunnelFailed(
            service="two",
            listen="tcp://127.0.0.1:0",
            attempt=number,
            retry_in=pause,
            code=error.code,
            reason=error.message,
            next_step=next_step,
        )
        for number, pause, error, next_step in (
            (1, 1.0, MISSING, MISSING.next_step),
            (2, 2.0, IN_USE, runner_module.LISTEN_ELSEWHERE),
        )
    ]
    assert "--port" not in runner_module.LISTEN_ELSEWHERE


async def test_a_bug_in_the_opening_of_a_tunnel_does_not_end_the_others(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    world.outcomes["two"] = deque([BUG, MISSING, BUG])
    begin = trio.current_time()
    async with running(make_fleet("one", "two")):
        await world.all_open("one", "two")
    assert [at - begin for at in world.attempts_of("two")] == [0, 1, 3, 7]
    assert [call for call in world.calls if call[0] == "one"] == [("one", "stop")]
    first, second, third = world.failures("two")
    assert (first.code, first.error) == (Code.INTERNAL_ERROR, BUG)
    assert first.reason == "unexpected ZeroDivisionError: division by zero"
    assert first.next_step == PROBLEMS[Code.INTERNAL_ERROR].next_step
    assert (second.code, second.error) == (Code.IDENTITY_MISSING, None)
    assert (third.attempt, third.retry_in) == (3, 4)


async def test_a_bug_in_an_open_tunnel_opens_that_one_again(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    world.bugs["two"] = deque([BUG, BUG])
    begin = trio.current_time()
    async with running(make_fleet("one", "two")):
        await trio.sleep(60)
        assert world.listeners == 2
    assert [at - begin for at in world.attempts_of("two")] == [0, 8, 17]
    assert len(world.attempts_of("one")) == 1
    assert sorted(world.told) == ["one", "two", "two", "two"]
    assert [call for call in world.calls if call[0] == "one"] == [("one", "stop")]
    for failure in world.failures("two"):
        assert failure.code is Code.INTERNAL_ERROR
        assert failure.reason == "unexpected ZeroDivisionError: division by zero"
        assert isinstance(failure.error, ExceptionGroup)
    assert [failure.attempt for failure in world.failures("two")] == [1, 2]


async def test_a_bug_in_a_reload_concerns_its_tunnel_alone(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    fleet = make_fleet("one", "two")
    async with running(fleet):
        await world.all_open("one", "two")
        world.reload_bugs = [BUG]
        await fleet.reload()
        await trio.sleep(5)
        assert world.listeners == 2
    names = [name for name, event in world.published if isinstance(event, TunnelFailed)]
    assert len(names) == 1
    assert world.failures(names[0])[0].error is BUG
    assert len(world.attempts) == 3


async def test_stopping_ends_the_waiting_after_a_bug(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    world.bugs["one"] = deque([BUG] * 10)
    begin = trio.current_time()
    async with running(make_fleet("one")):
        await trio.sleep(WHILE_SERVING + 0.5)
        assert world.listeners == 0
    assert trio.current_time() == begin + WHILE_SERVING + 0.5
    assert len(world.attempts) == 1


async def test_a_bug_in_the_draining_holds_nothing_up(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    world.bugs["one"] = deque([BUG])
    begin = trio.current_time()
    async with running(make_fleet("one")):
        await world.all_open("one")
    assert trio.current_time() == begin
    assert len(world.failures("one")) == 1
    assert len(world.attempts) == 1


async def test_cancelling_ends_a_tunnel_that_has_had_a_bug(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    world.bugs["one"] = deque([BUG] * 10)
    for seconds in (WHILE_SERVING / 2, WHILE_SERVING + 0.5, WHILE_SERVING + 2):
        begin = trio.current_time()
        with trio.move_on_after(seconds):
            await make_fleet("one").run()
        assert trio.current_time() == begin + seconds


async def test_what_every_attempt_says_is_published_once_until_the_tunnel_is_open(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    choice = InsecureChoice(option="--insecure", consequence="anyone can read")
    world.events_at_each_attempt = (choice,)
    world.outcomes["one"] = deque([IN_USE, IN_USE])
    async with running(make_fleet("one")):
        await world.all_open("one")
    assert [event for _, event in world.published if event == choice] == [choice]
    assert len(world.failures("one")) == 2


def test_after_the_opening_equal_events_count_each() -> None:
    seen: list[Event] = []
    publish = runner_module._Opening(seen.append)
    event = InsecureChoice(option="", consequence="")
    publish(event)
    publish(event)
    publish.succeeded()
    publish(event)
    publish(event)
    assert len(seen) == 3


async def test_the_configuration_is_read_anew_at_each_attempt(
    world: World,
    make_fleet: MakeFleet,
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
) -> None:
    fleet = make_fleet("one")
    path = tmp_path / "tbot.yaml"
    whole = path.read_text()
    path.write_text(whole.replace("type: database,", "type: identity,"))
    async with running(fleet):
        await trio.sleep(0.5)
        path.write_text("{")
        await trio.sleep(1)
        path.write_text(whole)
        await world.all_open("one")
    codes = [failure.code for failure in world.failures("one")]
    assert codes == [Code.DESTINATION_NOT_FOUND, Code.CONFIG_MALFORMED]
    assert "{type: database, service: one," in world.failures("one")[0].next_step


async def test_stopping_ends_the_waiting_for_the_next_attempt(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    world.outcomes["one"] = deque([MISSING] * 100)
    begin = trio.current_time()
    async with running(make_fleet("one", "two")):
        await trio.sleep(20)
    assert trio.current_time() == begin + 20
    assert world.told == ["two"]


async def test_stopping_ends_an_attempt(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    world.slow = True
    with trio.fail_after(1):
        async with running(make_fleet("one")):
            await trio.testing.wait_all_tasks_blocked()
    assert world.told == []


@pytest.mark.parametrize("moment", range(6))
async def test_stopping_at_any_moment_of_the_opening_leaves_nothing_open(
    world: World, make_fleet: MakeFleet, moment: int, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.fail_after(1):
        async with running(make_fleet("one")):
            for _ in range(moment):
                await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("moment", range(6))
async def test_cancelling_at_any_moment_of_the_opening_leaves_nothing_open(
    world: World, make_fleet: MakeFleet, moment: int, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            await nursery.start(make_fleet("one").run)
            for _ in range(moment):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


async def test_every_tunnel_is_drained_at_the_same_time(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    world.drain = 5
    async with running(make_fleet("one", "two")):
        await world.all_open("one", "two")
        begin = trio.current_time()
    assert trio.current_time() == begin + 5


async def test_stopping_at_once_ends_the_draining(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    world.drain = 5
    fleet = make_fleet("one", "two")
    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(fleet.run)
        await world.all_open("one", "two")
        fleet.stop_now()
    assert trio.current_time() == begin
    assert sorted(world.calls) == [("one", "stop_now"), ("two", "stop_now")]


async def test_stopped_before_it_runs_it_opens_nothing(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    fleet = make_fleet("one")
    fleet.stop()
    with trio.fail_after(1):
        await fleet.run()
    assert world.told == []


async def test_reloading_reads_every_identity(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    fleet = make_fleet("one", "two")
    async with running(fleet):
        await world.all_open("one", "two")
        await fleet.reload()
        assert sorted(world.calls) == [("one", "reload"), ("two", "reload")]


async def test_reloading_tries_at_once_what_is_not_open(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    world.outcomes["one"] = deque([MISSING] * 5)
    fleet = make_fleet("one")
    async with running(fleet):
        await trio.sleep(20)
        assert world.told == []
        await fleet.reload()
        await world.all_open("one")
        assert len(world.attempts_of("one")) == 6
        assert trio.current_time() - world.attempts_of("one")[-1] == 0
        assert world.attempts_of("one")[-1] - world.attempts_of("one")[-2] == 5


async def test_a_start_message_that_cannot_be_written_ends_all_tunnels(
    world: World, make_fleet: MakeFleet, autojump_clock: trio.testing.MockClock
) -> None:
    def tell(_tunnel: Tunnel, _started: Started) -> None:
        raise DBProxyError(Code.INTERNAL_ERROR, "no room")

    with trio.fail_after(1), pytest.raises(ExceptionGroup) as caught:
        await make_fleet("one", "two", tell=tell).run()
    assert caught.group_contains(DBProxyError, match="no room")


def test_without_a_configuration_there_is_nothing_to_open() -> None:
    with pytest.raises(UsageError) as caught:
        Fleet(Settings(), tell=lambda _tunnel, _started: None)
    assert "--config" in caught.value.next_step


def test_without_a_teleport_proxy_no_attempt_is_made(world: World, tmp_path: Path) -> None:
    path = tmp_path / "tbot.yaml"
    path.write_text("services:\n" + ENTRIES.format("one"))
    with pytest.raises(UsageError, match="address of the Teleport Proxy is not known"):
        Fleet(Settings(config=path), tell=world.tell)
    Fleet(Settings(config=path, proxy="teleport.example.com"), tell=world.tell)


def test_a_configuration_that_cannot_be_read_is_an_error_at_once(
    world: World, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        Fleet(Settings(config=tmp_path / "absent"), tell=world.tell)
