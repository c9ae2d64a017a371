"""Classifier score distillation (Yu et al., 2023)."""

from __future__ import annotations

from torch import Tensor

from vlmreward_3d.guidance.rules.base import Prediction
from vlmreward_3d.guidance.score_distillation import per_image

__all__ = ["csd"]


def csd(prediction: Prediction) -> Tensor:
    """w(t) s (eps_c - eps_u) / N (N, C, H, W), with w(t) = 1 - abar and the guidance scale s.

    This is the part of the rule "sds" that is proportional to s, the gradient of the implicit
    classifier p(prompt | z_t) / p(negative prompt | z_t), without the noise residual eps_u - eps.
    """
    weight = per_image((1 - prediction.alpha_bar) * prediction.guidance_scale, prediction.latents)
    return weight * (prediction.conditional - prediction.unconditional) / len(prediction.latents)
