from __future__ import annotations

import pytest

from dbproxy.lab import Action, Alert, Fault, FaultPlan, Step
from dbproxy.lab.errors import LabError
from dbproxy.lab.faults import Injector

RESET = Fault(Step.ACCEPT, Action.RESET)


def chosen(injector: Injector, step: Step, count: int) -> list[bool]:
    return [injector.choose(step) is not None for _ in range(count)]


def test_without_a_plan_nothing_goes_wrong() -> None:
    assert chosen(Injector(), Step.ACCEPT, 3) == [False] * 3


def test_a_fault_concerns_its_step_only() -> None:
    injector = Injector(FaultPlan(RESET))
    assert chosen(injector, Step.ACCEPT, 2) == [True, True]
    assert chosen(injector, Step.HANDSHAKE, 2) == [False, False]


def test_the_first_connections_or_every_so_maniest() -> None:
    first = Injector(FaultPlan(Fault(Step.ACCEPT, Action.RESET, first=2)))
    assert chosen(first, Step.ACCEPT, 4) == [True, True, False, False]
    every = Injector(FaultPlan(Fault(Step.ACCEPT, Action.RESET, every=2)))
    assert chosen(every, Step.ACCEPT, 4) == [False, True, False, True]


def test_the_first_fault_that_applies_is_chosen_and_all_of_them_count() -> None:
    plan = FaultPlan(
        Fault(Step.ACCEPT, Action.RESET, first=1), Fault(Step.ACCEPT, Action.STALL, first=2)
    )
    injector = Injector(plan)
    assert [injector.choose(Step.ACCEPT) for _ in range(3)] == [plan[0], plan[1], None]


def test_a_fault_may_concern_clients_of_one_protocol() -> None:
    injector = Injector(FaultPlan(Fault(Step.CLIENT_HELLO, Action.CLOSE, alpn="teleport-redis")))
    assert injector.choose(Step.CLIENT_HELLO, ("teleport-postgres",)) is None
    assert injector.choose(Step.CLIENT_HELLO, ("x", "teleport-redis")) is not None


def test_a_new_plan_counts_anew() -> None:
    injector = Injector(FaultPlan(Fault(Step.ACCEPT, Action.RESET, first=1)))
    assert chosen(injector, Step.ACCEPT, 2) == [True, False]
    injector.plan = FaultPlan(Fault(Step.ACCEPT, Action.RESET, first=1))
    assert chosen(injector, Step.ACCEPT, 2) == [True, False]


def test_a_fault_says_what_it_is() -> None:
    assert str(Fault(Step.CLIENT_HELLO, Alert.UNKNOWN_CA)) == "unknown ca at client hello"


@pytest.mark.parametrize(
    "arguments",
    [
        {"step": Step.ACCEPT, "action": Alert.UNKNOWN_CA},
        {"step": Step.ACCEPT, "action": Action.STALL, "size": 1},
        {"step": Step.ACCEPT, "action": Action.STALL, "every": 0},
        {"step": Step.SENT, "action": Action.STALL, "size": -1},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(LabError):
        Fault(**arguments)  # type: ignore[arg-type]
