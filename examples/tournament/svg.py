"""Ratings with their intervals as SVG text, colored by the page that they are put into."""

from __future__ import annotations

import math
from html import escape

from tournament.results import Table

_WIDTH, _ROW, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 28, 190, 24, 8, 28
_TICKS = 6
_LONGEST = 24


def intervals(table: Table) -> str:
    """Points with bars over a common scale, the best method on top.

    Args:
        table: ratings by a criterion.

    Returns:
        An ``<svg>`` element with a title. Its bars have the class "span", its grid "grid", the
        numbers of the scale "tick".
    """
    ratings = table.ratings
    step = _step(float(ratings.low.min()), float(ratings.high.max()))
    low = step * math.floor(ratings.low.min() / step)
    high = step * math.ceil(ratings.high.max() / step)
    height = _TOP + _ROW * len(table.methods) + _BOTTOM

    def across(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    best = table.methods[table.ranking[0]]
    title = f"Ratings by {table.criterion} with 95 % intervals; the highest is that of {best}"
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
    ]
    for mark in range(round((high - low) / step) + 1):
        value = low + mark * step
        x = across(value)
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{height - _BOTTOM}"/>')
        parts.append(_text(x, height - 8, f"{value:g}", "middle", "tick"))
    for row, i in enumerate(table.ranking):
        y = _TOP + _ROW * (row + 0.5)
        ends = across(float(ratings.low[i])), across(float(ratings.high[i]))
        name = table.marked(i)
        shown = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        parts.append(_text(_LEFT - 12, y + 4, shown, "end", "name"))
        parts.append(f'<path class="span" d="M{ends[0]:.1f} {y:.1f}H{ends[1]:.1f}"/>')
        parts.append(f'<circle cx="{across(float(ratings.elo[i])):.1f}" cy="{y:.1f}" r="4"/>')
    return "".join([*parts, "</svg>"])


def _step(low: float, high: float) -> float:
    """A round number that divides a range into about as many parts as there are to be."""
    rough = max(high - low, 1.0) / _TICKS
    power = 10 ** math.floor(math.log10(rough))
    return next(power * x for x in (1, 2, 5, 10) if power * x >= rough)


def _text(x: float, y: float, text: str, anchor: str, kind: str) -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )
