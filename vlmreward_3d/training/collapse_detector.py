"""Noticing that a run has failed though its numbers are finite."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlmreward.utils.arguments import whole
from vlmreward_3d.vlm3d import StepReport

__all__ = ["CollapseDetector"]


@dataclass(frozen=True)
class _Sign:
    """A way to fail: what is seen at every step of it, and what is to be said."""

    measure: str
    above: bool
    limit: float
    what: str
    remedy: str

    def at(self, report: StepReport) -> bool:
        value = report.metrics[self.measure]
        return value > self.limit if self.above else value < self.limit


_SIGNS = (
    _Sign(
        "field/opacity",
        False,
        1e-3,
        "the views show nothing (mean opacity {value:.4f})",
        "lower sparsity_weight or learning_rate",
    ),
    _Sign(
        "field/semi_transparent_fraction",
        True,
        0.95,
        "the views are filled with haze ({value:.0%} of their pixels are neither empty nor solid)",
        "raise entropy_weight or sparsity_weight, or lower guidance_scale or learning_rate",
    ),
    _Sign(
        "field/opacity",
        True,
        0.98,
        "something solid fills the views (mean opacity {value:.2f})",
        "raise sparsity_weight, or lower learning_rate",
    ),
)


class CollapseDetector:
    """Counts for how many steps in a row the views have been empty, full of haze, or full.

    A single such view is nothing: cameras come close, and fields begin as soft balls. A run that
    stays so does not come back by itself, as score distillation of fog is content with fog.

    Args:
        patience: Steps in a row after which it is a collapse; None calls nothing one.
    """

    def __init__(self, patience: int | None) -> None:
        if patience is not None:
            whole("patience", patience)
        self.patience = patience
        self.counts = [0] * len(_SIGNS)

    @property
    def calm(self) -> bool:
        """Whether the last step showed no sign of failure."""
        return not any(self.counts)

    def look(self, report: StepReport) -> str | None:
        """Take note of a step.

        Args:
            report: What the step said.

        Returns:
            What has collapsed and what helps against it; None while all is well.
        """
        if self.patience is None:
            return None
        self.counts = [
            count + 1 if sign.at(report) else 0 for sign, count in zip(_SIGNS, self.counts)
        ]
        for sign, count in zip(_SIGNS, self.counts):
            if count >= self.patience:
                what = sign.what.format(value=report.metrics[sign.measure])
                return f"step {report.step}: {what}, for {count} steps now; {sign.remedy}"
        return None

    def state(self) -> Tensor:
        """The counts, for a checkpoint."""
        return torch.tensor(self.counts)

    def load_state(self, state: Tensor) -> None:
        """Continue from a `state`."""
        self.counts = state.tolist()
