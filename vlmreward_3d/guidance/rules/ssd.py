"""Stable score distillation (Tang et al., 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmreward_3d.guidance.rules.base import Prediction
from vlmreward_3d.guidance.rules.csd import csd
from vlmreward_3d.guidance.score_distillation import per_image

__all__ = ["ssd"]

_SEEKING = 0.3
"""Noise level up to which the prediction for the prompt is followed, as a share of timesteps."""
_RESOLVED = 1e-3
"""Least norm of the mode-seeking term that is scaled up, as a share of that of eps_c."""


def ssd(prediction: Prediction) -> Tensor:
    """`csd` at high noise levels; at low ones a gradient (N, C, H, W) of its norm along eps_c.

    Above a share of 0.3 of the timesteps it is w(t) s (eps_c - eps_u) / N, the mode-disengaging
    term. Below, the mode-seeking term eps_c, less its projection on the added noise eps,

        eps_c - (<eps_c, eps> / <eps, eps>) eps,

    is scaled to the norm of the mode-disengaging term in each image; to less if the difference is
    under a thousandth of eps_c, and so within rounding errors.
    """
    if prediction.level is None:
        raise ValueError(
            "received a prediction without a level; expected one: ssd asks for the noise level"
        )
    away = csd(prediction)
    noise, said = prediction.noise.flatten(1), prediction.conditional.flatten(1)
    tiny = torch.finfo(noise.dtype).tiny
    share = (said * noise).sum(1) / noise.square().sum(1).clamp_min(tiny)
    towards = prediction.conditional - per_image(share, away) * prediction.noise
    least = (_RESOLVED * said.norm(dim=1)).clamp_min(tiny)
    norm = torch.maximum(towards.flatten(1).norm(dim=1), least)
    scale = away.flatten(1).norm(dim=1) / norm
    towards = per_image(scale, away) * towards
    seeking = per_image(prediction.level <= _SEEKING, towards).bool()
    return torch.where(seeking, towards, away)
