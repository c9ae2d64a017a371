"""Colors from albedo, normals and a light (DreamFusion, Sec. 3.1), as functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmreward_3d.rendering.base import FieldSamples, Shader

__all__ = ["lambertian", "light_direction", "sample_lights", "sample_shader", "textureless"]


def lambertian(albedo: Tensor, normals: Tensor, light: Tensor, diffuse: float = 1.0) -> Tensor:
    """Diffuse shading: albedo * (u max(n . l, 0) + 1 - u).

    Args:
        albedo: (..., 3) in [0, 1].
        normals: (..., 3) unit vectors.
        light: (3,) or (..., 3) unit vectors towards the light.
        diffuse: u in [0, 1], the share of diffuse light; 0 returns the albedo, 1 has no ambient
            light.

    Returns:
        (..., 3) in [0, 1]; differentiable to albedo and normals.
    """
    facing = (normals * light).sum(dim=-1, keepdim=True).clamp_min(0)
    return albedo * (diffuse * facing + 1 - diffuse)


def textureless(normals: Tensor, light: Tensor, diffuse: float = 1.0) -> Tensor:
    """`lambertian` of a white object: shows geometry alone."""
    return lambertian(torch.ones_like(normals), normals, light, diffuse)


def light_direction(points: Tensor, light: Tensor) -> Tensor:
    """Unit vectors (..., 3) from points (..., 3) towards point lights at (3,) or (..., 3)."""
    return F.normalize(light - points, dim=-1)


def sample_lights(
    positions: Tensor, group_size: int, generator: torch.Generator | None = None
) -> Tensor:
    """One point light for each camera (DreamFusion, Appendix A.2; threestudio's default).

    A light lies in the direction of its camera's position plus noise from N(0, I), at a distance
    from U(0.8, 1.5) of the origin; the position is not normalized before the noise is added, so
    that lights follow distant cameras closely. As in MVDream, views of a group share noise and
    distance: their lights turn with the cameras.

    Args:
        positions: (N, 3) camera positions, world units, group by group; not differentiable.
        group_size: Views in a group; N is a multiple of it.
        generator: CPU source of noise and distances.

    Returns:
        (N, 3) positions, world units, in the dtype and on the device of `positions`.
    """
    groups = len(positions) // group_size
    noise = torch.randn(groups, 3, generator=generator)
    distance = 0.8 + 0.7 * torch.rand(groups, 1, generator=generator)
    noise, distance = (
        x.repeat_interleave(group_size, dim=0).to(positions) for x in (noise, distance)
    )
    return distance * F.normalize(positions + noise, dim=-1)


def sample_shader(
    positions: Tensor,
    probabilities: tuple[float, float, float],
    group_size: int,
    generator: torch.Generator | None = None,
) -> Shader:
    """One kind of shading for all views of a step, and a light for each view.

    As in threestudio, the kind and the strength of the light, from U(0, 1), are drawn once a step.

    Args:
        positions: (N, 3) camera positions, world units, group by group.
        probabilities: Probabilities of albedo, textureless and diffuse shading; their sum is 1.
        group_size: Views in a group; N is a multiple of it.
        generator: CPU source of the kind, the strength and the lights.

    Returns:
        A function of field samples with normals; differentiable to their colors and normals.
    """
    kind, strength = torch.rand(2, generator=generator).tolist()
    lights = sample_lights(positions, group_size, generator)
    albedo, plain, _ = probabilities

    def shade(field: FieldSamples, points: Tensor, views: Tensor) -> Tensor:
        if kind < albedo:
            return field.rgb
        assert field.normals is not None  # a field that is shaded is baked with them
        toward = light_direction(points, lights[views])
        if kind < albedo + plain:
            return textureless(field.normals, toward, strength)
        return lambertian(field.rgb, field.normals, toward, strength)

    return shade
