"""3D Gaussians in the form that the rasterizers take."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["MOST_OPAQUE", "Gaussians", "rotations"]

MOST_OPAQUE = 0.99
"""Upper limit of alpha (Kerbl et al., 2023, Appendix C): gradients must reach what lies behind."""


@dataclass(frozen=True)
class Gaussians:
    """N soft ellipsoids; differentiable to the parameters of the field they are from.

    Attributes:
        means: (N, 3) centers, world units.
        scales: (N, 3) standard deviations along their own axes, world units, positive.
        quaternions: (N, 4) rotations w, x, y, z of these axes into the world, unit length.
        opacity: (N,) in (0, 1), at the center; those of a `GaussianField` do not exceed
            `MOST_OPAQUE`.
        rgb: (N, 3) in (0, 1).
    """

    means: Tensor
    scales: Tensor
    quaternions: Tensor
    opacity: Tensor
    rgb: Tensor


def rotations(quaternions: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4) w, x, y, z; differentiable."""
    w, x, y, z = quaternions.unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)
