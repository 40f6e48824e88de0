"""Bar charts as SVG, without a library: readable on light and on dark pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 720
LABEL_WIDTH = 250
VALUE_WIDTH = 130
BAR_HEIGHT = 18
GAP = 8
HEAD = 34
MARGIN = 8
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; font-size: 14px; }
.bar { fill: #8c959f; } .ours { fill: #0969da; } .range { stroke: #57606a; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .range { stroke: #c9d1d9; }
  .bar { fill: #6e7681; } .ours { fill: #58a6ff; }
}"""


@dataclass(frozen=True)
class Item:
    """One bar.

    Attributes:
        label: What it is.
        value: Its length.
        low: Where the range begins.
        high: Where it ends.
        text: The value as shown.
        ours: Whether it stands out.
    """

    label: str
    value: float
    low: float
    high: float
    text: str
    ours: bool = False


def bar_chart(title: str, items: Sequence[Item]) -> str:
    """A horizontal bar for each item, with a line over its range."""
    height = HEAD + len(items) * (BAR_HEIGHT + GAP) + MARGIN
    longest = max((max(item.value, item.high) for item in items), default=0) or 1
    scale = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) / longest
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    label = f'role="img" aria-label="{escape(title)}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>',
        f"<style>\n{STYLE}\n</style>",
        f'<text class="title" x="{MARGIN}" y="20">{escape(title)}</text>',
    ]
    for number, item in enumerate(items):
        lines += _bar(item, HEAD + number * (BAR_HEIGHT + GAP), scale)
    return "\n".join([*lines, "</svg>", ""])


def _bar(item: Item, top: int, scale: float) -> list[str]:
    base, middle = top + BAR_HEIGHT - 5, top + BAR_HEIGHT / 2
    low, high = (LABEL_WIDTH + scale * bound for bound in (item.low, item.high))
    length = scale * item.value
    kind = "bar ours" if item.ours else "bar"
    place = f'x="{LABEL_WIDTH}" y="{top}" width="{length:.1f}" height="{BAR_HEIGHT}"'
    span = f'x1="{low:.1f}" y1="{middle:g}" x2="{high:.1f}" y2="{middle:g}"'
    after = max(LABEL_WIDTH + length, high) + 8
    return [
        f'<text x="{LABEL_WIDTH - 8}" y="{base}" text-anchor="end">{escape(item.label)}</text>',
        f'<rect class="{kind}" {place} rx="2"/>',
        f'<line class="range" {span}/>',
        f'<text x="{after:.1f}" y="{base}">{escape(item.text)}</text>',
    ]
