"""Medians, spreads, ratios, and who is the best."""

import pytest
from comparison.summary import Value, best, look_up, ratio, value

TABLE = {
    "dbproxy": {"bulk-up-1.mb_per_s": [900.0, 1000.0, 1100.0], "rt-64-1.p50_us": [90.0]},
    "go": {"bulk-up-1.mb_per_s": [500.0, 800.0, 600.0], "rt-64-1.p50_us": [120.0]},
    "nginx": {"bulk-up-1.mb_per_s": [700.0], "rt-64-1.p50_us": [100.0]},
}


def test_a_value_is_the_median_with_its_range() -> None:
    assert value([3.0, 1.0, 2.0]) == Value(2.0, 1.0, 3.0, 3)
    assert value([3.0, 1.0]).median == 2.0


def test_the_spread_is_half_the_range_as_a_share_of_the_median() -> None:
    assert value([90.0, 100.0, 110.0]).spread == pytest.approx(0.1)
    assert value([0.0, 0.0]).spread == 0.0


def test_no_samples_have_no_value() -> None:
    with pytest.raises(ValueError, match="no sample"):
        value([])
    assert look_up({"go": {"x.tps": []}}, "go", "x.tps") is None
    assert look_up({}, "go", "x.tps") is None


def test_the_best_is_the_highest_or_the_lowest_as_the_metric_says() -> None:
    fastest = best(TABLE, ["go", "nginx"], "bulk-up-1.mb_per_s")
    quickest = best(TABLE, ["go", "nginx"], "rt-64-1.p50_us")
    assert fastest == ("nginx", value([700.0]))
    assert quickest == ("nginx", value([100.0]))
    assert best(TABLE, ["go"], "bulk-up-1.mb_per_s") == ("go", value([500.0, 600.0, 800.0]))
    assert best(TABLE, ["stunnel"], "rt-64-1.p50_us") is None


def test_a_ratio_is_ours_by_theirs() -> None:
    assert ratio(value([50.0]), value([100.0])) == 0.5
    assert ratio(value([50.0]), value([0.0])) == float("inf")
