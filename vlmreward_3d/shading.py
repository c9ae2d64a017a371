"""Colours from albedo, normals and a light (DreamFusion, Sec. 3.1), as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["lambertian", "light_direction", "textureless"]


def lambertian(albedo: Tensor, normals: Tensor, light: Tensor, diffuse: float = 1.0) -> Tensor:
    """Diffuse shading: albedo * (u max(n . l, 0) + 1 - u).

    Args:
        albedo: (..., 3) in [0, 1].
        normals: (..., 3) unit vectors.
        light: (3,) or (..., 3) unit vectors towards the light.
        diffuse: u in [0, 1]; 0 leaves the albedo as it is, 1 has no ambient light.

    Returns:
        (..., 3) in [0, 1]; differentiable to albedo and normals.
    """
    facing = (normals * light).sum(dim=-1, keepdim=True).clamp_min(0)
    return albedo * (diffuse * facing + 1 - diffuse)


def textureless(normals: Tensor, light: Tensor, diffuse: float = 1.0) -> Tensor:
    """`lambertian` of a white object: shows geometry alone."""
    return lambertian(torch.ones_like(normals), normals, light, diffuse)


def light_direction(points: Tensor, light: Tensor) -> Tensor:
    """Unit vectors (..., 3) from points (..., 3) towards a point light at (3,)."""
    return F.normalize(light - points, dim=-1)
