"""What becomes of the load generator's replies, and which runs there are."""

import pytest
from comparison.bars import BARS, Bar
from comparison.figures import RUNS, Run, Usage, unit_of


def run(name: str) -> Run:
    return next(one for one in RUNS if one.name == name)


def test_a_bulk_run_gives_speed_and_processor_time_for_each_gigabyte() -> None:
    bulk = run("bulk-up-1")
    reply = {"bytes": 500_000_000, "seconds": 0.5}
    assert bulk.samples(bulk, reply, Usage(0.4, 30 << 20)) == {
        "bulk-up-1.mb_per_s": 1000,
        "bulk-up-1.cpu_s_per_gb": 0.8,
        "bulk-up-1.rss_mib": 30,
    }


def test_a_run_without_a_proxy_has_no_processor_time() -> None:
    bulk = run("bulk-up-1")
    samples = bulk.samples(bulk, {"bytes": 500_000_000, "seconds": 0.5}, Usage())
    assert samples == {"bulk-up-1.mb_per_s": 1000}


def test_round_trips_give_rate_latency_and_processor_time_for_each() -> None:
    trips = run("rt-64-32")
    reply = {"count": 1000, "seconds": 0.5, "p50_us": 80.0, "p99_us": 200.0}
    samples = trips.samples(trips, reply, Usage(0.02))
    assert samples["rt-64-32.per_s"] == 2000
    assert samples["rt-64-32.cpu_us"] == pytest.approx(20)


def test_new_connections_say_how_many_were_resumed() -> None:
    connect = run("connect-8-resumed")
    reply = {"count": 100, "seconds": 1.0, "p50_us": 1500.0, "p99_us": 4000.0}
    samples = connect.samples(connect, reply, Usage(0.1, 0, handshakes=100, resumed=99))
    assert samples["connect-8-resumed.resumed"] == 99
    assert samples["connect-8-resumed.p50_ms"] == 1.5
    assert samples["connect-8-resumed.cpu_ms"] == pytest.approx(1)


def test_full_handshakes_are_made_by_taking_the_tickets_away() -> None:
    assert not run("connect-1-full").tickets
    assert run("connect-1-resumed").tickets


@pytest.mark.parametrize("one", RUNS, ids=lambda one: one.name)
def test_the_quick_variant_of_a_run_has_the_same_options(one: Run) -> None:
    quick = one.quick()
    assert len(quick.options) == len(one.options)
    assert quick.options[::2] == one.options[::2]
    assert quick.options != one.options


@pytest.mark.parametrize("bar", BARS, ids=lambda bar: bar.title)
def test_a_bar_is_about_a_run_that_is_made_and_a_metric_that_has_a_unit(bar: Bar) -> None:
    assert any(one.name == bar.metric.rpartition(".")[0] for one in RUNS)
    assert unit_of(bar.metric).title


def test_memory_is_told_by_the_number_of_connections() -> None:
    assert unit_of("idle.kib_each_5000").title == "KiB each, 5,000 held"
