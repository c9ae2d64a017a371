"""Interval score matching (LucidDreamer; Liang et al., 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmreward_3d.guidance.rules.base import Prediction
from vlmreward_3d.guidance.rules.noising import ddim_inversion, invert
from vlmreward_3d.guidance.rules.sds import sds_gradient
from vlmreward_3d.guidance.teacher import Teacher

__all__ = ["interval_noise", "ism"]

INTERVAL = 0.08
"""Distance of the two timesteps, as a share of all."""
STEP = 0.2
"""Largest step of the inversion, as a share of the timesteps."""


def interval_noise(
    teacher: Teacher, latents: Tensor, t: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """z_t by inversion over s = t - `INTERVAL`, and the noise predicted at s for the empty prompt.

    Deterministic: the generator is not used.
    """
    interval = round(INTERVAL * len(teacher.alphas_cumprod))
    before = (t - interval).clamp_min(0)
    at_s, _ = ddim_inversion(teacher, latents, before, step=STEP)
    noisy, noise = invert(teacher, at_s, before, t)
    return noise, noisy


def ism(prediction: Prediction) -> Tensor:
    """sqrt(1 / abar - 1) (eps_hat(z_t, t) - eps_empty(z_s, s)) / N (N, C, H, W).

    `interval_noise` makes z_t of z_s with the second of these predictions, which therefore is the
    noise of the `Prediction`.
    """
    weight = (1 / prediction.alpha_bar - 1).sqrt()
    return sds_gradient(prediction.guided, prediction.noise, weight)
