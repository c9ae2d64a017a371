"""The picture of an explanation."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vlmreward.images.filters import smooth

if TYPE_CHECKING:
    from vlmreward.explain.explanation import Explanation

__all__ = ["check_suffix", "draw"]

_ACROSS = 4
_WIDTH = 2.1  # inches a view
_MARGIN = 1.0  # for the color bar
_GRAY = (0.62, 0.38)  # darkest level of the pale view under the heat, and its range


def _matplotlib() -> tuple[Any, ...]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "matplotlib is not installed; expected for pictures: pip install 'vlmreward[3d]'"
        ) from error
    return Figure, FigureCanvasAgg, ScalarMappable, Normalize


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Refuse a file whose name ends like none that matplotlib writes.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: matplotlib writes no files with this ending.
    """
    _, FigureCanvasAgg, _, _ = _matplotlib()
    kinds = sorted(FigureCanvasAgg.get_supported_filetypes())
    suffix = Path(path).suffix
    if suffix.removeprefix(".").lower() not in kinds:
        raise ValueError(
            f"path is {str(path)!r}, which ends in {suffix!r}; expected one of {', '.join(kinds)}"
        )


def draw(explanation: Explanation, path: Path, query: int, blur_sigma: float) -> Path:
    """Views above their heat maps; see ``Explanation.save``."""
    Figure, FigureCanvasAgg, ScalarMappable, Normalize = _matplotlib()
    images = explanation.images[query].float().clamp(0, 1).cpu()
    heat = explanation.attribution[query].float().cpu()
    shown = smooth(heat, blur_sigma) if blur_sigma > 0 else heat
    # One scale for all views; a few pixels may stick out
    top = float(shown.abs().flatten().quantile(0.998)) or 1.0
    low = -top if explanation.signed else 0.0
    colors = "RdBu_r" if explanation.signed else "YlOrRd"
    # The heat covers the view where there is some, so that one sees what lies under it
    opacity = (shown.abs() / top).clamp(0, 1).pow(0.6)
    captions = _captions(explanation, query, heat)

    across = min(len(images), _ACROSS)
    rows = -(-len(images) // across)
    wide = max(across * _WIDTH + _MARGIN, 2 * _WIDTH + _MARGIN)
    tall = _WIDTH * images.shape[-2] / images.shape[-1]
    title = _title(explanation, query, int(14 * wide))
    legend = textwrap.fill(_legend(explanation), int(16 * wide))
    lines = title.count("\n") + legend.count("\n") + 2
    figure = Figure(figsize=(wide, rows * (2 * tall + 0.55) + 0.2 * lines), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.02, w_pad=0.04, hspace=0, wspace=0)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 * rows, across, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for i, image in enumerate(images):
        row, column = 2 * (i // across), i % across
        above, below = axes[row][column], axes[row + 1][column]
        above.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        above.set_title(f"view {i + 1}", fontsize=9)
        pale = _GRAY[0] + _GRAY[1] * image.mean(dim=0)
        below.imshow(pale.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        below.imshow(
            shown[i].numpy(),
            alpha=opacity[i].numpy(),
            cmap=colors,
            vmin=low,
            vmax=top,
            interpolation="nearest",
        )
        below.set_title(captions[i], fontsize=8)
    # Not of a heat map, whose opacity it would take over
    key = ScalarMappable(Normalize(low, top), colors)
    figure.colorbar(key, ax=axes, shrink=0.7, label=explanation.method.replace("-", " "))
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(legend, fontsize=8)
    figure.savefig(path, dpi=130)
    return path


def _captions(explanation: Explanation, query: int, heat: torch.Tensor) -> list[str]:
    """The numbers of every view."""
    sums = heat.flatten(1).sum(dim=1)
    if explanation.signed:
        shares = [f"pixels {float(share):+.2f}" for share in sums]
    else:
        shares = [f"pixels {float(share):.0%}" for share in sums / sums.sum().clamp(min=1e-12)]
    changes = [-float(effect) for effect in explanation.views[query]]
    return [f"{s}\n{_without(explanation)} {c:+.2f}" for s, c in zip(shares, changes)]


def _without(explanation: Explanation) -> str:
    return "left out" if explanation.replacement is None else "blanked"


def _title(explanation: Explanation, query: int, width: int) -> str:
    value = explanation.reward[query]
    parts = [f"log-odds {float(value):+.2f}, P(Yes) {float(value.sigmoid()):.0%}"]
    if explanation.baseline_reward is not None and explanation.residual is not None:
        parts.append(f"baseline {float(explanation.baseline_reward[query]):+.2f}")
        parts.append(f"not attributed {float(explanation.residual[query]):+.2f}")
    question = textwrap.shorten(explanation.questions[query], 3 * width, placeholder=" ...")
    return "\n".join([*textwrap.wrap(question, width), *textwrap.wrap("; ".join(parts), width)])


def _legend(explanation: Explanation) -> str:
    change = f"{_without(explanation)}: change of the log-odds without the view"
    if explanation.signed:
        return f"red: for Yes, blue: against; pixels: sum over the view; {change}"
    return f"pixels: share of the view; {change}"
