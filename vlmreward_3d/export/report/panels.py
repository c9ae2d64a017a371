"""Metrics of a run, arranged in panels of curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vlmreward_3d.vlm3d import StepReport

__all__ = ["WEIGHT", "Panel", "panels"]

WEIGHT = "weight"
"""Kind of the panel with the weights that were applied."""

_TITLES = {
    "prob_yes": "P(Yes)",
    "grad_norm": "Norm of the gradient at the pixels, without weight",
    WEIGHT: "Weight of the gradient, as applied",
}
_LOG = ("loss", "grad_norm", WEIGHT)
_LAST = ("grad_norm", WEIGHT, "field")


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes.

    Attributes:
        kind: Last part of the metrics' names, or "field" for all of those of the field.
        title: Heading.
        series: (step, value) pairs by the metric's name.
        log: True for a logarithmic value axis.
        limits: Lowest and highest value shown; None for those of the data.
    """

    kind: str
    title: str
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    log: bool = False
    limits: tuple[float, float] | None = None


def panels(reports: Sequence[StepReport], *, headline: bool = False) -> list[Panel]:
    """One panel for each kind of metric, with a curve for each guidance, and one for the field.

    Args:
        reports: The log of a run.
        headline: Only the metrics that `StepReport.headline` has.
    """
    found: dict[str, Panel] = {}
    for report in reports:
        metrics = report.headline if headline else report.metrics
        for name, value in metrics.items():
            source, _, kind = name.partition("/")
            kind = "field" if source == "field" else kind
            panel = found.setdefault(kind, _panel(kind))
            panel.series.setdefault(name, []).append((report.step, value))
    last = [found.pop(kind) for kind in _LAST if kind in found]
    return [*found.values(), *last]


def _panel(kind: str) -> Panel:
    title = _TITLES.get(kind, kind.replace("_", " ").capitalize())
    share = kind == "field" or kind.startswith("prob") or kind.endswith("fraction")
    return Panel(kind, title, log=kind in _LOG, limits=(0, 1) if share else None)
