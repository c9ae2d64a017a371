"""Regularizing losses on rendered opacities, weights and normals, as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "emptiness_loss",
    "opacity_entropy",
    "orientation_loss",
    "sparsity_loss",
    "total_variation",
]


def orientation_loss(
    weights: Tensor,
    normals: Tensor,
    directions: Tensor,
    visible: Tensor,
    *,
    rays: int | None = None,
) -> Tensor:
    """Penalty on visible surfaces that face away (Ref-NeRF, Eq. 11; stop-gradient on weights).

    sum sg(w) max(n . d, 0)^2 over the visible samples, divided by the number of rays that have one
    (threestudio, where the other samples have been dropped and these rays have an opacity > 0).

    Args:
        weights: (L, S) contributions; no gradient flows to them.
        normals: (L, S, 3) unit normals, outward.
        directions: (L, 3) unit ray directions, away from the camera.
        visible: (L, S) bool, the samples that count.
        rays: Divisor in place of the number of these rays, where they are a part of more rays;
            None for their number.

    Returns:
        Scalar, 0 without visible samples; differentiable to the normals.
    """
    away = (normals * directions[:, None]).sum(dim=-1).clamp_min(0)
    if rays is None:
        rays = int(visible.any(dim=1).sum())
    return (weights.detach() * visible * away.square()).sum() / max(rays, 1)


def opacity_entropy(opacity: Tensor) -> Tensor:
    """Mean binary entropy of opacities in [0, 1], in nats; pushes opacities towards 0 or 1.

    The gradient is finite everywhere: opacities are kept 1e-3 away from 0 and 1.
    """
    p = opacity.clamp(1e-3, 1 - 1e-3)
    return -(p * p.log() + (1 - p) * (1 - p).log()).mean()


def sparsity_loss(opacity: Tensor) -> Tensor:
    """Mean of sqrt(opacity^2 + 0.01) (scalar); favors images with a smaller opaque area."""
    return (opacity.square() + 0.01).sqrt().mean()


def emptiness_loss(weights: Tensor, scale: float, *, rays: int | None = None) -> Tensor:
    """Mean of log(1 + scale * weight) over samples (score Jacobian chaining; Wang et al., 2023).

    The loss is nearly linear in small weights and flat in large ones, so that it removes haze and
    keeps surfaces: many faint samples cost more than one opaque sample. Its value depends on the
    number of samples, into which the same light is divided.

    Args:
        weights: (L, S) contributions in [0, 1] of the samples on rays.
        scale: Factor of the weights, above 0; 10 in the source. The larger, the more the loss
            favors few large weights over many small ones.
        rays: Number of rays that the mean is taken over, where these are a part of them and the
            others have weights of 0; L if not given.

    Returns:
        Scalar, 0 without rays; differentiable to the weights.
    """
    count = (len(weights) if rays is None else rays) * weights.shape[1]
    return (scale * weights).log1p().sum() / max(count, 1)


def total_variation(volume: Tensor) -> Tensor:
    """Mean squared difference of neighbors in a volume (N, C, D, H, W), summed over the axes."""
    return sum(
        (volume.diff(dim=axis).square().mean() for axis in (2, 3, 4)),
        start=torch.zeros((), dtype=volume.dtype, device=volume.device),
    )
