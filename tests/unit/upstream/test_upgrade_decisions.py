"""How long results of the upgrade test are kept, and who waits for whom. The clock is virtual."""

import pytest
import trio
from trio.testing import MockClock

from dbproxy.upstream import ProxyAddress
from dbproxy.upstream.upgrade_decisions import UpgradeDecisions
from dbproxy.upstream.upgrade_need import UpgradeNeed

ONE, OTHER = ProxyAddress("one.example.com", 443), ProxyAddress("other.example.com", 443)
YES = UpgradeNeed(required=True, reason="chose nothing")
NO = UpgradeNeed(required=False, reason="knows it")
GUESS = UpgradeNeed(required=False, reason="was silent", certain=False)
MINUTE, HOUR = 60, 3600


class ScriptedTest:
    """The upgrade test: a second each, one result after the other, and then the last for ever."""

    def __init__(self, *results: UpgradeNeed | Exception) -> None:
        self._results = list(results)
        self.tested: list[ProxyAddress] = []

    async def __call__(self, address: ProxyAddress) -> UpgradeNeed:
        self.tested.append(address)
        await trio.sleep(1)
        result = self._results.pop(0) if len(self._results) > 1 else self._results[0]
        if isinstance(result, Exception):
            raise result
        return result


@pytest.mark.parametrize("result", [YES, NO])
async def test_an_answer_is_kept_for_an_hour(
    result: UpgradeNeed, autojump_clock: MockClock
) -> None:
    test = ScriptedTest(result)
    decisions = UpgradeDecisions(test)
    for _ in range(59):
        assert await decisions.need(ONE) is result
        await trio.sleep(MINUTE)
    assert len(test.tested) == 1
    await trio.sleep(MINUTE)
    assert await decisions.need(ONE) is result
    assert len(test.tested) == 2


async def test_a_guess_is_kept_for_seconds_only(autojump_clock: MockClock) -> None:
    test = ScriptedTest(GUESS, YES)
    decisions = UpgradeDecisions(test)
    assert await decisions.need(ONE) is GUESS
    await trio.sleep(4)
    assert await decisions.need(ONE) is GUESS
    await trio.sleep(2)
    assert await decisions.need(ONE) is YES
    await trio.sleep(HOUR / 2)
    assert await decisions.need(ONE) is YES
    assert len(test.tested) == 2


async def test_a_guess_does_not_contradict_an_answer(autojump_clock: MockClock) -> None:
    test = ScriptedTest(YES, GUESS, NO)
    decisions = UpgradeDecisions(test)
    assert await decisions.need(ONE) is YES
    await trio.sleep(MINUTE)
    decisions.forget(ONE)
    assert await decisions.need(ONE) is YES, "an outage says nothing about balancers"
    assert await decisions.need(ONE) is YES
    assert len(test.tested) == 2
    await trio.sleep(6)
    assert await decisions.need(ONE) is NO, "but it is asked again soon"


async def test_a_guess_ends_when_the_server_has_answered(autojump_clock: MockClock) -> None:
    test = ScriptedTest(GUESS, GUESS, YES)
    decisions = UpgradeDecisions(test)
    assert await decisions.need(ONE) is GUESS
    decisions.forget(ONE)
    assert await decisions.need(ONE) is GUESS
    assert len(test.tested) == 1
    for result in (GUESS, YES, YES, YES):
        decisions.forget(ONE, answered=True)
        assert await decisions.need(ONE) is result
    assert len(test.tested) == 3, "an answer that is as new as the failure stays"


async def test_each_address_has_its_own_result(autojump_clock: MockClock) -> None:
    test = ScriptedTest(YES, NO)
    decisions = UpgradeDecisions(test)
    assert await decisions.need(ONE) is YES
    assert await decisions.need(OTHER) is NO
    assert await decisions.need(ONE) is YES
    assert test.tested == [ONE, OTHER]


async def test_after_a_failed_connection_the_test_is_made_again(autojump_clock: MockClock) -> None:
    test = ScriptedTest(NO, YES)
    decisions = UpgradeDecisions(test)
    assert await decisions.need(ONE) is NO
    await trio.sleep(MINUTE)
    decisions.forget(ONE)
    assert await decisions.need(ONE) is YES
    assert await decisions.need(ONE) is YES
    assert len(test.tested) == 2


async def test_many_failures_at_once_ask_for_one_test(autojump_clock: MockClock) -> None:
    test = ScriptedTest(NO)
    decisions = UpgradeDecisions(test)
    await decisions.need(ONE)
    await trio.sleep(MINUTE)
    for _ in range(100):
        decisions.forget(ONE)
        await decisions.need(ONE)
    assert len(test.tested) == 2


async def test_forgetting_one_address_leaves_the_others(autojump_clock: MockClock) -> None:
    test = ScriptedTest(NO)
    decisions = UpgradeDecisions(test)
    await decisions.need(ONE)
    await trio.sleep(MINUTE)
    decisions.forget(OTHER)
    await decisions.need(ONE)
    assert test.tested == [ONE]


async def test_callers_at_the_same_time_share_one_test(autojump_clock: MockClock) -> None:
    test = ScriptedTest(GUESS)
    decisions = UpgradeDecisions(test)
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(decisions.need, ONE)
    assert trio.current_time() - started == pytest.approx(1)
    assert len(test.tested) == 1


async def test_addresses_do_not_wait_for_each_other(autojump_clock: MockClock) -> None:
    decisions = UpgradeDecisions(ScriptedTest(NO))
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(decisions.need, ONE)
        nursery.start_soon(decisions.need, OTHER)
    assert trio.current_time() - started == pytest.approx(1)


async def test_a_caller_that_is_cancelled_leaves_the_test_to_the_next(
    autojump_clock: MockClock,
) -> None:
    test = ScriptedTest(YES)
    decisions = UpgradeDecisions(test)
    scope = trio.CancelScope(deadline=trio.current_time() + 0.5)
    results = []

    async def impatient() -> None:
        with scope:
            await decisions.need(ONE)

    async def patient() -> None:
        await trio.sleep(0.1)
        results.append(await decisions.need(ONE))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(impatient)
        nursery.start_soon(patient)
    assert scope.cancelled_caught
    assert results == [YES]
    assert len(test.tested) == 2


async def test_a_test_that_raises_keeps_nothing(autojump_clock: MockClock) -> None:
    decisions = UpgradeDecisions(ScriptedTest(KeyError("mistake"), YES))
    with pytest.raises(KeyError):
        await decisions.need(ONE)
    assert await decisions.need(ONE) is YES
