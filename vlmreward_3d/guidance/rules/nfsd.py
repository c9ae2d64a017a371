"""Noise-free score distillation (Katzir et al., 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmreward_3d.guidance.rules.base import Prediction
from vlmreward_3d.guidance.score_distillation import per_image

__all__ = ["nfsd"]

_FAINT = 0.2
"""Noise level below which the unconditional prediction is used with its noise."""


def nfsd(prediction: Prediction) -> Tensor:
    """w(t) (s (eps_c - eps_empty) + delta) / N (N, C, H, W), with w(t) = 1 - abar.

    delta is the direction towards real images, without the noise that an unconditional prediction
    also contains: eps_empty itself where there is little noise (below a fifth of the timesteps),
    and eps_empty - eps_negative above, in whose difference the noise cancels. The negative prompt
    should describe images of low quality; with an empty negative prompt delta is 0 there.
    """
    if prediction.level is None or prediction.empty is None:
        raise ValueError(
            "received a prediction without a level or without the noise for the empty prompt; "
            "expected both: nfsd asks for them"
        )
    faint = per_image(prediction.level < _FAINT, prediction.latents).bool()
    domain = prediction.empty - torch.where(faint, 0.0, 1.0) * prediction.unconditional
    guided = prediction.guidance_scale * (prediction.conditional - prediction.empty)
    weight = per_image(1 - prediction.alpha_bar, prediction.latents)
    return weight * (guided + domain) / len(prediction.latents)
