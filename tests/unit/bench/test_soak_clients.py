"""When a run of a load generator counts as clean."""

import pytest
from soak_clients import Run


def run(**changes: object) -> Run:
    values: dict[str, object] = {
        "program": "redis-benchmark",
        "mode": "tunnel",
        "requests": 1000,
        "seconds": 2.0,
        "connections": 1010,
        "not_well": {},
        "left": 10,
        "failure": "",
        "processor_us_each": 50.0,
        "memory_mib": (55.0, 60.0),
        "load_average": 1.5,
    }
    return Run(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{}, {"not_well": {"abandoned": 4, "client-tls-failed": 6}}])
def test_clients_that_left_while_they_connected_do_no_harm(changes: dict[str, object]) -> None:
    assert run(**changes).is_clean


@pytest.mark.parametrize(
    "changes",
    [
        {"failure": "it said so"},
        {"requests": 0},
        {"not_well": {"upstream-unreachable": 1}},
        {"not_well": {"abandoned": 11}},
        {"not_well": {"abandoned": 1}, "left": 0},
    ],
)
def test_what_is_not_clean(changes: dict[str, object]) -> None:
    assert not run(**changes).is_clean


def test_a_run_is_a_row_of_a_table() -> None:
    row = run(not_well={"abandoned": 3}).row()
    assert row == "| redis-benchmark | tunnel | 1,000 | 1,010 | 3 | 500 | 50 | 55 → 60 | 1.5 |"
