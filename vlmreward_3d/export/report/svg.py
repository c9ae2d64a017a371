"""Curves as SVG text, colored by the page that they are put into."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["curves"]

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 480, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 24
_MOST_POINTS = 600


def curves(
    series: Mapping[str, Points],
    *,
    label: str = "Curves",
    log: bool = False,
    limits: tuple[float, float] | None = None,
) -> str:
    """Lines over the steps.

    Args:
        series: (step, value) pairs by name, steps ascending. Values that are not finite, and with
            `log` those that are not positive, are left out.
        label: Name of what is drawn, for those who cannot see it.
        log: Logarithmic values.
        limits: Lowest and highest value shown; those of the data without.

    Returns:
        An `<svg>` element. Its lines have the classes `line-0`, `line-1` and so on, its grid
        `grid`; text has the current color.
    """
    kept = {name: _thinned(_visible(points, log)) for name, points in series.items()}
    steps = [step for points in kept.values() for step, _ in points]
    values = [value for points in kept.values() for _, value in points]
    described = escape(f"{label} over the steps: {_ends(kept)}", quote=True)
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{described}">']
    if not steps:
        parts.append(_text(_WIDTH / 2, _HEIGHT / 2, "nothing to show", "middle"))
        return "".join([*parts, "</svg>"])

    first, last = min(steps), max(max(steps), min(steps) + 1)
    low, high = limits or (min(values), max(values))
    if log:
        low, high = math.log10(low), math.log10(high)
    if high - low < 1e-9 * max(1.0, abs(low)):
        low, high = low - 0.5, high + 0.5

    def across(step: float) -> float:
        return _LEFT + (step - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    def down(value: float) -> float:
        share = ((math.log10(value) if log else value) - low) / (high - low)
        return _TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM)

    for mark in range(5):
        level = low + mark / 4 * (high - low)
        value = 10**level if log else level
        y = down(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 6, y + 4, _number(value), "end"))
    for step, anchor in ((first, "start"), (last, "end")):
        parts.append(_text(across(step), _HEIGHT - 6, f"{step:g}", anchor))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, "step", "middle"))
    for index, (name, points) in enumerate(kept.items()):
        path = " ".join(f"{across(step):.1f},{down(value):.1f}" for step, value in points)
        parts.append(
            f'<polyline class="line-{index}" points="{path}"><title>{escape(name)}</title>'
            "</polyline>"
        )
    return "".join([*parts, "</svg>"])


def _ends(series: Mapping[str, Points]) -> str:
    """First and last value of each curve, in words."""
    said = [
        f"{name} from {points[0][1]:.3g} to {points[-1][1]:.3g}"
        for name, points in series.items()
        if points
    ]
    return ", ".join(said) or "nothing to show"


def _visible(points: Points, log: bool) -> Points:
    return [(s, v) for s, v in points if math.isfinite(v) and (v > 0 or not log)]


def _thinned(points: Points) -> Points:
    """Means over equal intervals, if there are more points than pixels."""
    stretch = math.ceil(len(points) / _MOST_POINTS)
    if stretch <= 1:
        return points
    groups = [points[i : i + stretch] for i in range(0, len(points), stretch)]
    return [
        (sum(s for s, _ in group) / len(group), sum(v for _, v in group) / len(group))
        for group in groups
    ]


def _number(value: float) -> str:
    """Three digits, in no more than seven characters."""
    if 1000 <= abs(value) < 1e5:
        return f"{value:.0f}"
    return f"{value:.3g}".replace("e+0", "e").replace("e-0", "e-")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
