"""Clamped score distillation (Debiased-SDS; Hong et al., 2023)."""

from __future__ import annotations

from torch import Tensor

from vlmreward_3d.guidance.rules.base import Prediction
from vlmreward_3d.guidance.rules.sds import sds

__all__ = ["clamped_sds"]

FIRST, LAST = 2.0, 8.0
"""Largest element of the gradient at the start and at the end, as in the source for latents."""


def clamped_sds(prediction: Prediction) -> Tensor:
    """`sds` with each element of N times the gradient clamped to a limit that grows during the run.

    Only few elements of a score are very large, and they reflect the most frequent content of the
    denoiser's training, such as a face on every side.
    """
    most = (FIRST + (LAST - FIRST) * prediction.progress) / len(prediction.latents)
    return sds(prediction).clamp(-most, most)
