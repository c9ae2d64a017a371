"""Reconstruction of the predicted original (MVDream; Shi et al., 2023)."""

from __future__ import annotations

from torch import Tensor

from vlmreward_3d.guidance.rules.base import Prediction

__all__ = ["x0", "x0_reconstruction_gradient"]


def x0(prediction: Prediction) -> Tensor:
    """`x0_reconstruction_gradient` (N, C, H, W) to the rescaled guided original."""
    return x0_reconstruction_gradient(prediction.latents, prediction.original)


def x0_reconstruction_gradient(latents: Tensor, original: Tensor) -> Tensor:
    """Gradient (N, C, H, W) of 0.5 ||z - sg(x0)||^2 / N to z (MVDream's loss)."""
    return (latents - original.detach()) / len(latents)
