"""Figures, limits and verdicts as text; the same on the terminal and on the page."""

from comparison.bars import OURS, Bar, Verdict
from comparison.figures import unit_of
from comparison.results import Results
from comparison.summary import best, look_up, ratio

NO_RATIO = (".echoed", ".resumed", ".of_direct")
"""Kinds of metrics of which a ratio says nothing."""


def amount(metric: str, value: float) -> str:
    """A value with the decimals that its unit deserves."""
    return f"{value:,.{unit_of(metric).digits}f}"


def cell(results: Results, row: str, metric: str) -> str:
    """A median with its spread and, in our row, the multiple of the best peer's; "" without one."""
    value = look_up(results.samples, row, metric)
    if value is None:
        return ""
    text = amount(metric, value.median)
    if value.rounds > 1:
        text += f" ±{100 * value.spread:.0f} %"
    leader = best(results.samples, results.peers, metric)
    if row == OURS and leader is not None and not metric.endswith(NO_RATIO):
        text += f" ({ratio(value, leader[1]):.2f} ×)"
    return text


def bar_must(bar: Bar) -> str:
    """The limit: `≤ 0.95 × best peer`."""
    return _limit(bar, bar.must, bar.against)


def bar_aim(bar: Bar) -> str:
    """What is aimed at, in the same form."""
    return "–" if bar.aim is None else _limit(bar, bar.aim, bar.aim_against or bar.against)


def _limit(bar: Bar, limit: float, against: str | None) -> str:
    sign = "≥" if unit_of(bar.metric).higher_is_better else "≤"
    return f"{sign} {limit:,g}" if against is None else f"{sign} {limit:g} × {against}"


def measured(verdict: Verdict) -> str:
    """What came out: `0.80 × (0.42 to 0.53, nginx)`."""
    bar = verdict.bar
    if verdict.measured is None or verdict.ours is None:
        return "not measured"
    if bar.against is None or verdict.theirs is None:
        return amount(bar.metric, verdict.ours)
    ours, theirs = amount(bar.metric, verdict.ours), amount(bar.metric, verdict.theirs)
    return f"{verdict.measured:.2f} × ({ours} to {theirs}, {verdict.peer})"


def outcome(verdict: Verdict) -> str:
    """`passed`, `passed, aim reached`, or `missed`."""
    if verdict.passed is None:
        return "–"
    if not verdict.passed:
        return "missed"
    return "passed, aim reached" if verdict.reached else "passed"
