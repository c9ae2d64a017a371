"""Score distillation via inversion (Lukoianov et al., 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmreward_3d.guidance.rules.noising import ddim_inversion
from vlmreward_3d.guidance.score_distillation import add_noise, per_image
from vlmreward_3d.guidance.teacher import Teacher

__all__ = ["inverted_noise"]

STEP = 0.1
"""Length of the inversion's steps, as a share of the timesteps."""
SCALE = -6.5
"""Scale of the inversion's guidance: -7.5 in the source, which counts from the prompt."""
ETA = 0.3
"""Factor of fresh noise in each step."""


def inverted_noise(
    teacher: Teacher, latents: Tensor, t: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Noise from DDIM inversion of z, and z_t with this noise.

    The inversion ends up to a tenth of the timesteps later than t, at a random one, so that it does
    not always take the same steps. With its noise, the predicted original of z_t is the next point
    of a DDIM trajectory that leads through z, and the gradient that follows is that of `x0`.
    """
    total = len(teacher.alphas_cumprod)
    later = torch.rand(1, generator=generator).item() * STEP * total
    end = (t + int(later)).clamp_max(total - 1)
    inverted, _ = ddim_inversion(
        teacher, latents, end, step=STEP, scale=SCALE, eta=ETA, generator=generator
    )
    alphas = teacher.alphas_cumprod.to(latents)
    noise = inverted - per_image(alphas[end].sqrt(), latents) * latents
    noise = noise / per_image((1 - alphas[end]).sqrt(), latents)
    return noise, add_noise(latents, noise, alphas[t])
