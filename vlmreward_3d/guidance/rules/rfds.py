"""Rectified flow distillation sampling (Yang et al., 2025)."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmreward_3d.guidance.rules.base import Prediction
from vlmreward_3d.guidance.rules.noising import fresh_noise
from vlmreward_3d.guidance.rules.sds import sds_gradient
from vlmreward_3d.guidance.score_distillation import add_noise
from vlmreward_3d.guidance.teacher import Teacher

__all__ = ["reversed_noise", "rfds"]


def rfds(prediction: Prediction) -> Tensor:
    """(v_hat - (eps - z)) / N (N, C, H, W), with the velocity v_hat of a flow from data to noise.

    A flow's z_sigma = (1 - sigma) z + sigma eps is a multiple of z_t, and its velocity differs from
    eps - z by 1 / (1 - sigma) = 1 + sqrt(1 / abar - 1) times eps_hat - eps: the rule equals "sds"
    with this weight.
    """
    weight = 1 + (1 / prediction.alpha_bar - 1).sqrt()
    return sds_gradient(prediction.guided, prediction.noise, weight)


def reversed_noise(
    teacher: Teacher, latents: Tensor, t: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Noise to which the flow maps z, estimated by one step from fresh noise, and z_t with it.

    The paper moves the noise by (1 - sigma) (v + z - eps). The result equals the noise that is
    predicted for the prompt without guidance (RFDS-Rev).
    """
    _, noisy = fresh_noise(teacher, latents, t, generator)
    (noise,) = teacher.predict(noisy, t, ("prompt",))
    return noise, add_noise(latents, noise, teacher.alphas_cumprod.to(latents)[t])
