"""Clamped score distillation (Debiased-SDS; Hong et al., 2023)."""

from __future__ import annotations

from torch import Tensor

from vlmreward_3d.guidance.rules.base import Prediction
from vlmreward_3d.guidance.rules.sds import sds

__all__ = ["clamped_sds"]

FIRST, LAST = 2.0, 8.0
"""Largest element of the gradient at the start and at the end, as in the source for latents."""


def clamped_sds(prediction: Prediction) -> Tensor:
    """`sds` with each element of N times the gradient clamped, less and less during the run.

    Few elements of a score are very large, and those are where a denoiser insists on what it has
    seen most often, such as a face on every side.
    """
    most = (FIRST + (LAST - FIRST) * prediction.progress) / len(prediction.latents)
    return sds(prediction).clamp(-most, most)
