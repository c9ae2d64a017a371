"""Noising of latents in distillation rules: fresh noise, or inversion by the denoiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from vlmreward_3d.guidance.score_distillation import (
    add_noise,
    classifier_free_guidance,
    per_image,
    predicted_original,
)
from vlmreward_3d.guidance.teacher import Teacher

__all__ = ["Noising", "ddim_inversion", "fresh_noise", "invert"]


Noising: TypeAlias = Callable[
    [Teacher, Tensor, Tensor, torch.Generator | None], tuple[Tensor, Tensor]
]
"""noising(teacher, latents (N, C, H, W), t (N,), generator) -> (eps, z_t), both (N, C, H, W)."""


def fresh_noise(
    teacher: Teacher, latents: Tensor, t: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Normal noise, drawn anew at every step (DreamFusion)."""
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    return noise, add_noise(latents, noise, teacher.alphas_cumprod.to(latents)[t])


def ddim_inversion(
    teacher: Teacher,
    latents: Tensor,
    t: Tensor,
    *,
    step: float,
    scale: float | None = None,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """DDIM inversion: noisy latents at timesteps t, computed by the denoiser (Song et al., 2021).

    `invert` makes one step. Steps have equal lengths; the last step of an image ends at its t.

    Args:
        teacher: The denoiser.
        latents: (N, C, H, W) z, the latents at timestep 0.
        t: (N,) last timesteps of the inversion.
        step: Length of the steps, as a share of the timesteps.
        scale: Scale of the guidance, from the empty prompt towards the prompt; None predicts for
            the empty prompt alone.
        eta: Factor of fresh noise in each step.
        generator: CPU source of that noise.

    Returns:
        z_t, and the noise of the last step, both (N, C, H, W).
    """
    length = max(1, round(step * len(teacher.alphas_cumprod)))
    noisy, at = latents, torch.zeros_like(t)
    noise = torch.zeros_like(latents)
    for k in range(-(-int(t.max()) // length)):
        ahead = t.clamp_max((k + 1) * length)
        moves = per_image(ahead > at, latents) > 0
        there, added = invert(teacher, noisy, at, ahead, scale=scale, eta=eta, generator=generator)
        noisy, noise = torch.where(moves, there, noisy), torch.where(moves, added, noise)
        at = ahead
    return noisy, noise


def invert(
    teacher: Teacher,
    latents: Tensor,
    at: Tensor,
    ahead: Tensor,
    *,
    scale: float | None = None,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of `ddim_inversion`, from the timesteps `at` to `ahead`, both (N,).

    z_ahead = sqrt(abar_ahead) x0(z_at) + sqrt(1 - abar_ahead) eps(z_at), and eta times the noise
    that DDPM would add on the way back.

    Returns:
        z_ahead and eps(z_at), both (N, C, H, W).
    """
    if scale is None:
        (noise,) = teacher.predict(latents, at, ("empty",))
    else:
        empty, conditional = teacher.predict(latents, at, ("empty", "prompt"))
        noise = classifier_free_guidance(empty, conditional, scale)
    alphas = teacher.alphas_cumprod.to(latents)
    original = predicted_original(latents, noise, alphas[at])
    there = add_noise(original, noise, alphas[ahead])
    if eta > 0:
        variance = (1 - alphas[at]) / (1 - alphas[ahead]) * (1 - alphas[ahead] / alphas[at])
        fresh = torch.randn(latents.shape, generator=generator).to(latents)
        there = there + eta * per_image(variance.clamp_min(0).sqrt(), latents) * fresh
    return there, noise
