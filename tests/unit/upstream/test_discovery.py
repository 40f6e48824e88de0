"""Asking the Teleport Proxy where it wants to be reached: seldom, in bounded time, and for all."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from dbproxy.errors import Code, UpstreamError
from dbproxy.events import DiscoveryFailed, Event, UpstreamDiscovered
from dbproxy.settings import Settings
from dbproxy.upstream import (
    ConfiguredAddress,
    Discovery,
    FetchedAnswer,
    FixedRoute,
    ProxyAddress,
    UpstreamRoute,
)
from dbproxy.wiring import make_route_finder

WEB = ConfiguredAddress("given.example.com", 8443)
PORTLESS = ConfiguredAddress("given.example.com", None)
AUTH = ConfiguredAddress(
    "auth.example.com", 3025, f"auth_server in {Path('tbot.yaml')}", may_be_auth_service=True
)

Step = FetchedAnswer | Exception | Callable[[], Awaitable[FetchedAnswer]]


def teleport(public: str | None = None, version: str = "18.1.0", **proxy: Any) -> FetchedAnswer:
    document = {
        "proxy": {"ssh": {"public_addr": public}, "tls_routing_enabled": True} | proxy,
        "server_version": version,
        "min_client_version": "17.0.0",
        "cluster_name": "example",
    }
    return FetchedAnswer(200, {}, json.dumps(document).encode())


def refused(port: int = 8443) -> UpstreamError:
    return UpstreamError(Code.UPSTREAM_UNREACHABLE, f"cannot connect to {port}: refused")


NOT_FOUND = FetchedAnswer(404, {}, b"404 page not found")


def after(seconds: float, step: Step) -> Callable[[], Awaitable[FetchedAnswer]]:
    async def wait() -> FetchedAnswer:
        await trio.sleep(seconds)
        return await give(step)

    return wait


async def give(step: Step) -> FetchedAnswer:
    if isinstance(step, Exception):
        raise step
    return step if isinstance(step, FetchedAnswer) else await step()


class FetchStandIn:
    """Stands in for HTTP over TLS: answers by port, and keeps count."""

    def __init__(self, step: Step | None = None, **by_port: Step) -> None:
        self.steps: dict[int, Step] = {int(port[1:]): it for port, it in by_port.items()}
        self.step = step
        self.asked: list[str] = []
        self.running = 0

    async def __call__(self, address: ProxyAddress, path: str) -> FetchedAnswer:
        assert path == "/webapi/find"
        self.asked.append(str(address))
        self.running += 1
        try:
            await trio.lowlevel.checkpoint()
            return await give(self.steps.get(address.port) or self.step or NOT_FOUND)
        finally:
            self.running -= 1


class Bench:
    """A `Discovery` with a stand-in, and what it published."""

    def __init__(self, fetch: FetchStandIn, configured: ConfiguredAddress = WEB) -> None:
        self.fetch = fetch
        self.events: list[Event] = []
        self.discovery = Discovery(configured, fetch, publish=self.events.append)

    async def find(self, protocol: str = "postgres") -> UpstreamRoute:
        return await self.discovery.find(protocol)

    async def address(self) -> str:
        return str((await self.find()).address)

    @property
    def requests(self) -> int:
        return len(self.fetch.asked)


class TestRoute:
    """What comes of an answer."""

    async def test_the_public_address_replaces_the_given_one(
        self, autojump_clock: MockClock
    ) -> None:
        bench = Bench(FetchStandIn(teleport("public.example.com:443")))
        assert await bench.find() == UpstreamRoute(
            address=ProxyAddress("public.example.com", 443),
            tls_routing=True,
            decision="the public address that given.example.com:8443 publishes",
            cluster="example",
            server_version="18.1.0",
            min_client_version="17.0.0",
        )
        assert bench.events == [
            UpstreamDiscovered(
                address="public.example.com:443",
                decision="the public address that given.example.com:8443 publishes",
                cluster="example",
                server_version="18.1.0",
                tls_routing=True,
            )
        ]

    @pytest.mark.parametrize("public", [None, "given.example.com:8443"])
    async def test_without_another_address_the_given_one_stays(
        self, autojump_clock: MockClock, public: str | None
    ) -> None:
        route = await Bench(FetchStandIn(teleport(public))).find()
        assert str(route.address) == "given.example.com:8443"
        assert route.decision == "as given with --proxy, and the Teleport Proxy names no other"
        assert route.discovery_problem is None

    async def test_where_nothing_is_said_about_tls_routing_it_is_taken_to_be_on(
        self, autojump_clock: MockClock
    ) -> None:
        route = await Bench(FetchStandIn(teleport(tls_routing_enabled=None))).find()
        assert route.tls_routing

    async def test_with_tls_routing_off_the_database_has_an_address_of_its_own(
        self, autojump_clock: MockClock
    ) -> None:
        db = {"postgres_public_addr": "pg.example.com:5432"}
        bench = Bench(FetchStandIn(teleport(tls_routing_enabled=False, db=db)))
        route = await bench.find()
        assert str(route.address) == "pg.example.com:5432"
        assert not route.tls_routing
        assert "TLS routing is off" in route.decision

    @pytest.mark.parametrize(
        ("db", "what"),
        [
            ({}, "publishes no address for mysql databases"),
            ({"mysql_public_addr": "h:x"}, "publishes proxy.db.mysql_public_addr as 'h:x'"),
        ],
    )
    async def test_without_one_it_is_an_error_and_only_for_this_protocol(
        self, autojump_clock: MockClock, db: dict[str, str], what: str
    ) -> None:
        bench = Bench(FetchStandIn(teleport(tls_routing_enabled=False, db=db)))
        with pytest.raises(UpstreamError) as caught:
            await bench.find("mysql")
        assert caught.value.code is Code.TLS_ROUTING_OFF
        assert f"the Teleport Proxy at given.example.com:8443 {what}" in caught.value.message
        assert await bench.address() == "given.example.com:8443"
        assert bench.requests == 1


class TestFailure:
    """Without an answer the given address holds, and that is told once."""

    @pytest.mark.parametrize(
        ("step", "reason"),
        [
            (refused(), "cannot connect to 8443: refused"),
            (NOT_FOUND, "the server at given.example.com:8443 answered with HTTP status 404"),
            (teleport("a b"), "the server at given.example.com:8443 publishes proxy.ssh.public_ad"),
            (trio.sleep_forever, "there was no answer from given.example.com:8443 within 5 s"),
        ],
    )
    async def test_the_given_address_is_used(
        self, autojump_clock: MockClock, step: Any, reason: str
    ) -> None:
        bench = Bench(FetchStandIn(step))
        route = await bench.find()
        assert (str(route.address), route.tls_routing) == ("given.example.com:8443", True)
        assert route.decision == "as given with --proxy, because discovery failed"
        (event,) = bench.events
        assert isinstance(event, DiscoveryFailed)
        assert event.code is Code.DISCOVERY_FAILED
        assert event.address == "given.example.com:8443"
        assert event.reason == route.discovery_problem
        assert event.reason.startswith(reason)
        assert "--no-discovery" in event.next_step

    async def test_no_connection_waits_longer_than_the_time_out(
        self, autojump_clock: MockClock
    ) -> None:
        bench = Bench(FetchStandIn(trio.sleep_forever))
        started = trio.current_time()
        await bench.find()
        assert trio.current_time() - started == 5

    async def test_it_is_told_once_until_there_is_an_answer(
        self, autojump_clock: MockClock
    ) -> None:
        bench = Bench(FetchStandIn(refused()))
        for step in (refused(), NOT_FOUND, refused(), teleport(), teleport(), refused()):
            bench.fetch.step = step
            await bench.find()
            bench.discovery.forget()
            await trio.sleep(60)
        assert [type(event) for event in bench.events] == [
            DiscoveryFailed,
            UpstreamDiscovered,
            DiscoveryFailed,
        ]

    async def test_an_auth_server_that_is_no_proxy_is_named_as_what_it_may_be(
        self, autojump_clock: MockClock
    ) -> None:
        bench = Bench(FetchStandIn(refused()), AUTH)
        problem = (await bench.find()).discovery_problem
        assert problem == (
            "auth_server in tbot.yaml (auth.example.com:3025) does not answer as a Teleport Proxy:"
            " cannot connect to 8443: refused"
        )
        (event,) = bench.events
        assert isinstance(event, DiscoveryFailed)
        assert event.reason == problem
        assert "Auth Service" in event.next_step
        assert "--proxy" in event.next_step

    async def test_the_last_answer_is_better_than_none(self, autojump_clock: MockClock) -> None:
        bench = Bench(FetchStandIn(teleport("public.example.com:443")))
        await bench.find()
        bench.fetch.step = refused()
        await trio.sleep(601)
        assert await bench.address() == "public.example.com:443"
        assert bench.requests == 2
        assert isinstance(bench.events[-1], DiscoveryFailed)
        assert bench.events[-1].address == "public.example.com:443"

    async def test_a_bug_is_not_taken_for_a_failure(self, autojump_clock: MockClock) -> None:
        with pytest.raises(ZeroDivisionError):
            await Bench(FetchStandIn(ZeroDivisionError())).find()


class TestMemory:
    """How often it asks."""

    async def test_an_answer_counts_for_ten_minutes(self, autojump_clock: MockClock) -> None:
        bench = Bench(FetchStandIn(teleport()))
        await bench.find()
        await trio.sleep(599)
        await bench.find()
        assert bench.requests == 1
        bench.fetch.step = teleport("new.example.com:443", version="18.2.0")
        await trio.sleep(1)
        assert await bench.address() == "new.example.com:443"
        assert bench.requests == 2

    async def test_the_same_answer_is_told_once(self, autojump_clock: MockClock) -> None:
        bench = Bench(FetchStandIn(teleport()))
        for _ in range(3):
            await bench.find()
            await trio.sleep(600)
        assert bench.requests == 3
        assert len(bench.events) == 1

    async def test_a_failure_counts_for_a_minute(self, autojump_clock: MockClock) -> None:
        bench = Bench(FetchStandIn(refused()))
        await bench.find()
        await trio.sleep(59)
        await bench.find()
        assert bench.requests == 1
        bench.fetch.step = teleport("public.example.com:443")
        await trio.sleep(1)
        assert await bench.address() == "public.example.com:443"

    async def test_after_a_failed_dial_it_asks_again(self, autojump_clock: MockClock) -> None:
        bench = Bench(FetchStandIn(teleport("old.example.com:443")))
        await bench.find()
        await trio.sleep(3)
        bench.fetch.step = teleport("new.example.com:443")
        bench.discovery.forget()
        assert await bench.address() == "new.example.com:443"
        await bench.find()
        assert bench.requests == 2

    async def test_an_upstream_that_is_down_is_not_asked_by_every_connection(
        self, autojump_clock: MockClock
    ) -> None:
        bench = Bench(FetchStandIn(refused()))
        for _ in range(1000):
            await bench.find()
            bench.discovery.forget()
            await trio.sleep(0.02)
        assert 9 <= bench.requests <= 11  # in 20 seconds

    async def test_a_dial_that_fails_while_it_asks_anyway_asks_no_second_time(
        self, autojump_clock: MockClock
    ) -> None:
        bench = Bench(FetchStandIn(after(1, teleport())))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.find)
            await trio.sleep(0.5)
            bench.discovery.forget()
        await bench.find()
        assert bench.requests == 1

    async def test_a_remembered_answer_is_not_waited_for(self, autojump_clock: MockClock) -> None:
        bench = Bench(FetchStandIn(teleport()))
        await bench.find()
        with trio.testing.assert_no_checkpoints():
            await bench.find()

    async def test_it_is_due_until_there_is_an_answer_and_when_that_is_out_of_date(
        self, autojump_clock: MockClock
    ) -> None:
        """Whoever finds it so has to wait."""
        bench = Bench(FetchStandIn(after(1, teleport())))
        seen = [bench.discovery.due]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.find)
            await trio.sleep(0.5)
            seen.append(bench.discovery.due)
        seen.append(bench.discovery.due)
        await trio.sleep(601)
        seen.append(bench.discovery.due)
        assert seen == [True, True, False, True]


class TestSharing:
    """One request for everybody who waits."""

    async def test_callers_share_a_request_and_its_answer(self, autojump_clock: MockClock) -> None:
        bench = Bench(FetchStandIn(after(1, teleport("public.example.com:443"))))
        found: list[str] = []

        async def find() -> None:
            found.append(await bench.address())

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(find)
        assert found == ["public.example.com:443"] * 100
        assert bench.requests == 1

    async def test_callers_share_a_failure(self, autojump_clock: MockClock) -> None:
        bench = Bench(FetchStandIn(trio.sleep_forever))
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(bench.find)
        assert bench.requests == 1
        assert trio.current_time() - started == 5

    async def test_whoever_asks_may_be_cancelled_and_the_others_get_their_answer(
        self, autojump_clock: MockClock
    ) -> None:
        bench = Bench(FetchStandIn(after(1, teleport("public.example.com:443"))))
        found: list[str] = []

        async def find() -> None:
            found.append(await bench.address())

        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0.5) as first:
                nursery.start_soon(find)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(find)
                await bench.find()
        assert first.cancelled_caught
        assert found == ["public.example.com:443"] * 2
        assert bench.requests == 1

    async def test_the_one_who_asks_is_cancelled_and_another_asks_instead(
        self, autojump_clock: MockClock
    ) -> None:
        bench = Bench(FetchStandIn(after(1, teleport("public.example.com:443"))))
        found: list[str] = []

        async def give_up() -> None:
            with trio.move_on_after(0.5):
                await bench.find()

        async def find() -> None:
            found.append(await bench.address())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_up)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(find)
            nursery.start_soon(find)
        assert found == ["public.example.com:443"] * 2
        assert bench.requests == 2
        assert bench.fetch.running == 0

    async def test_also_behind_many_that_give_up_the_wait_has_an_end(
        self, autojump_clock: MockClock
    ) -> None:
        bench = Bench(FetchStandIn(trio.sleep_forever))
        waited: list[float] = []

        async def give_up(delay: float) -> None:
            with trio.move_on_after(delay):
                await bench.find()

        async def find() -> None:
            started = trio.current_time()
            await bench.find()
            waited.append(trio.current_time() - started)

        async with trio.open_nursery() as nursery:
            for number in range(1, 10):
                nursery.start_soon(give_up, 4.0 * number)
                await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(find)
        assert waited == [10]
        assert bench.fetch.running == 0


class TestPorts:
    """A missing port: 443 and 3080."""

    async def test_the_one_that_answers_counts(self, autojump_clock: MockClock) -> None:
        bench = Bench(FetchStandIn(p443=refused(443), p3080=teleport()), PORTLESS)
        route = await bench.find()
        assert str(route.address) == "given.example.com:3080"
        assert route.decision == "given with --proxy; of the ports 443 and 3080 this one answers"
        assert sorted(bench.fetch.asked) == ["given.example.com:3080", "given.example.com:443"]

    async def test_one_that_hangs_holds_nothing_up_for_long(
        self, autojump_clock: MockClock
    ) -> None:
        bench = Bench(FetchStandIn(p443=trio.sleep_forever, p3080=teleport()), PORTLESS)
        started = trio.current_time()
        assert await bench.address() == "given.example.com:3080"
        assert trio.current_time() - started == 0.25
        assert bench.fetch.running == 0

    @pytest.mark.parametrize(("delay", "port"), [(0, 443), (0.2, 443), (0.3, 3080)])
    async def test_443_is_preferred_when_it_is_not_much_slower(
        self, autojump_clock: MockClock, delay: float, port: int
    ) -> None:
        bench = Bench(FetchStandIn(p443=after(delay, teleport()), p3080=teleport()), PORTLESS)
        assert await bench.address() == f"given.example.com:{port}"

    async def test_443_does_not_wait_for_the_other(self, autojump_clock: MockClock) -> None:
        bench = Bench(FetchStandIn(p443=teleport(), p3080=trio.sleep_forever), PORTLESS)
        started = trio.current_time()
        assert await bench.address() == "given.example.com:443"
        assert trio.current_time() == started
        assert bench.fetch.running == 0

    async def test_what_answers_and_is_not_teleport_does_not_count(
        self, autojump_clock: MockClock
    ) -> None:
        bench = Bench(FetchStandIn(p443=NOT_FOUND, p3080=after(1, teleport())), PORTLESS)
        assert await bench.address() == "given.example.com:3080"

    async def test_when_none_answers_443_is_tried_and_both_reasons_are_told(
        self, autojump_clock: MockClock
    ) -> None:
        bench = Bench(FetchStandIn(p443=NOT_FOUND, p3080=refused(3080)), PORTLESS)
        route = await bench.find()
        assert str(route.address) == "given.example.com:443"
        assert route.discovery_problem == (
            "the server at given.example.com:443 answered with HTTP status 404;"
            " cannot connect to 3080: refused"
        )

    async def test_cancelled_it_leaves_no_request_behind(self, autojump_clock: MockClock) -> None:
        bench = Bench(FetchStandIn(trio.sleep_forever), PORTLESS)
        with trio.move_on_after(1) as scope:
            await bench.find()
        assert scope.cancelled_caught
        assert bench.fetch.running == 0
        bench.fetch.step = teleport()
        assert await bench.address() == "given.example.com:443"


class TestWithoutDiscovery:
    """The address as it was given."""

    async def test_nobody_is_asked(self, autojump_clock: MockClock) -> None:
        fetch = FetchStandIn(teleport("public.example.com:443"))
        events: list[Event] = []
        finder = make_route_finder(Settings(no_discovery=True), PORTLESS, fetch, events.append)
        finder.forget()
        route = await finder.find("postgres")
        assert str(route.address) == "given.example.com:443"
        assert route.tls_routing
        assert route.decision == "as given with --proxy, without discovery"
        assert route.discovery_problem is None
        assert not fetch.asked
        assert not events

    async def test_otherwise_the_proxy_is_asked(self, autojump_clock: MockClock) -> None:
        fetch = FetchStandIn(teleport("public.example.com:443"))
        finder = make_route_finder(Settings(), WEB, fetch, lambda _event: None)
        assert str((await finder.find("postgres")).address) == "public.example.com:443"

    async def test_it_waits_for_nothing(self, autojump_clock: MockClock) -> None:
        with trio.testing.assert_no_checkpoints():
            await FixedRoute(WEB).find("postgres")
