"""Detection of runs that have failed though their numbers are finite."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlmreward.utils.arguments import whole
from vlmreward_3d.vlm3d import StepReport

__all__ = ["CollapseDetector"]


@dataclass(frozen=True, kw_only=True)
class FailureMode:
    """A kind of failure, defined by limits of one metric of a step.

    Attributes:
        metric: Name of the metric.
        below: A value under this is a failure; None for no lower limit.
        above: A value over this is a failure; None for no upper limit.
        message: Description of the failure, with the placeholder {value}.
        remedy: Settings that help against it.
    """

    metric: str
    below: float | None = None
    above: float | None = None
    message: str
    remedy: str

    def shows(self, report: StepReport) -> bool:
        """True if the metric of a step is beyond a limit."""
        value = report.metrics[self.metric]
        too_low = self.below is not None and value < self.below
        return too_low or (self.above is not None and value > self.above)


FAILURE_MODES = (
    FailureMode(
        metric="field/opacity",
        below=1e-3,
        message="the views show nothing (mean opacity {value:.4f})",
        remedy="lower sparsity_weight or learning_rate",
    ),
    FailureMode(
        metric="field/semi_transparent_fraction",
        above=0.95,
        message="the views are filled with haze "
        "({value:.0%} of their pixels are neither empty nor solid)",
        remedy="raise entropy_weight or sparsity_weight, or lower guidance_scale or learning_rate",
    ),
    FailureMode(
        metric="field/opacity",
        above=0.98,
        message="something solid fills the views (mean opacity {value:.2f})",
        remedy="raise sparsity_weight, or lower learning_rate",
    ),
)


class CollapseDetector:
    """Counter of consecutive steps whose views are empty, full of haze, or full.

    A single such step is no failure: cameras come close, and fields begin as soft balls. A run that
    stays in this state does not recover by itself, because score distillation gives fog no
    gradient away from fog.

    Args:
        patience: Number of consecutive such steps that counts as a collapse; None disables the
            detection.
    """

    def __init__(self, patience: int | None) -> None:
        if patience is not None:
            whole("patience", patience)
        self.patience = patience
        self.counts = [0] * len(FAILURE_MODES)

    @property
    def healthy(self) -> bool:
        """True if the last step showed no failure mode."""
        return not any(self.counts)

    def update(self, report: StepReport) -> str | None:
        """Update the counts by the metrics of a step.

        Args:
            report: The numbers of the step.

        Returns:
            The collapse and a remedy, in words; None while there is no collapse.
        """
        if self.patience is None:
            return None
        self.counts = [
            count + 1 if mode.shows(report) else 0
            for mode, count in zip(FAILURE_MODES, self.counts)
        ]
        for mode, count in zip(FAILURE_MODES, self.counts):
            if count >= self.patience:
                what = mode.message.format(value=report.metrics[mode.metric])
                return f"step {report.step}: {what}, for {count} steps now; {mode.remedy}"
        return None

    def state(self) -> Tensor:
        """The counts, for a checkpoint."""
        return torch.tensor(self.counts)

    def load_state(self, state: Tensor) -> None:
        """Continue from a `state`."""
        self.counts = state.tolist()
