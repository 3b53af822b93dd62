"""A chart of bars, as an SVG that is the same whenever it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT = 760, 250, 110  # of the whole; of it the labels and the numbers
ROW, HEAD = 22, 44
COLOURS = ("#8a94a6", "#1f6feb", "#d97706", "#059669", "#7c3aed")


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar; bars of one series have one colour."""

    label: str
    value: float
    shown: str
    series: int = 0


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Bars from zero, one below the other; the longest is as long as there is room."""
    longest = max((row.value for row in rows), default=0.0) or 1.0
    height = HEAD + ROW * len(rows) + 10
    drawn = [_bar(row, n, (WIDTH - LEFT - RIGHT) * row.value / longest) for n, row in enumerate(rows)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return "\n".join(
        [
            f'{head} font-family="system-ui, sans-serif" font-size="13" fill="#1f2328">',
            '<rect width="100%" height="100%" rx="6" fill="#ffffff"/>',
            f'<text x="16" y="27" font-size="15" font-weight="600">{escape(title)}</text>',
            *drawn,
            "</svg>\n",
        ]
    )


def _bar(row: Bar, n: int, length: float) -> str:
    top = HEAD + ROW * n
    return (
        f'<text x="{LEFT - 8}" y="{top + 15}" text-anchor="end">{escape(row.label)}</text>'
        f'<rect x="{LEFT}" y="{top + 3}" width="{max(1.0, length):.1f}" height="{ROW - 6}" rx="2" '
        f'fill="{COLOURS[row.series]}"/>'
        f'<text x="{LEFT + max(1.0, length) + 6:.1f}" y="{top + 15}">{escape(row.shown)}</text>'
    )
