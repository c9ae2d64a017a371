"""Differentiable volume rendering by nerfacc's batched compositing. The only user of nerfacc."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from nerfacc import accumulate_along_rays, render_weight_from_density
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.field import FieldSamples
from vlmreward_3d.sampler import OccupancyGrid, RaySamples, sample_rays

__all__ = ["Composite", "Rendering", "composite", "render"]

Query = Callable[[Tensor], FieldSamples]
Shader = Callable[[FieldSamples, Tensor], Tensor]


@dataclass(frozen=True)
class Composite:
    """Sums along L rays of S samples; differentiable to densities, colours and normals.

    Attributes:
        rgb: (L, 3) colour on black.
        opacity: (L, 1) in [0, 1].
        depth: (L, 1) opacity-weighted mean distance from the camera; 0 on empty rays.
        normals: (L, 3) opacity-weighted mean normal, or None without normals.
        weights: (L, S) what each sample contributes.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    normals: Tensor | None
    weights: Tensor


@dataclass(frozen=True)
class Rendering:
    """N images, channels first.

    Attributes:
        rgb: (N, 3, H, W) in [0, 1], on the background.
        opacity: (N, 1, H, W) in [0, 1].
        depth: (N, 1, H, W) distance from the camera, world units; 0 where nothing is.
        normals: (N, 3, H, W) world-space mean normals, length <= 1, or None without normals.
        samples: The samples that were used.
        composite: The same per ray that met occupied space, with the weights of its samples.
        field: What the field said at the samples, P = L * S.
        directions: (L, 3) directions of these rays.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    normals: Tensor | None
    samples: RaySamples
    composite: Composite
    field: FieldSamples
    directions: Tensor


def composite(
    middles: Tensor,
    lengths: Tensor,
    density: Tensor,
    rgb: Tensor,
    normals: Tensor | None = None,
) -> Composite:
    """Emission-absorption quadrature along rays (NeRF, Eq. 3).

    Args:
        middles: (L, S) distances of the samples; not differentiable.
        lengths: (L, S) or (L, 1) length each sample stands for; not differentiable.
        density: (L, S) densities per world unit.
        rgb: (L, S, 3) colours.
        normals: (L, S, 3) unit normals, optional.

    Returns:
        The sums per ray, in the dtype of `density`.
    """
    starts, ends = middles - lengths / 2, middles + lengths / 2
    weights, _, _ = render_weight_from_density(starts, ends, density)
    opacity = accumulate_along_rays(weights)
    share = weights / opacity.clamp_min(torch.finfo(weights.dtype).eps)
    return Composite(
        rgb=accumulate_along_rays(weights, rgb),
        opacity=opacity,
        depth=accumulate_along_rays(share, middles[..., None]),
        normals=None if normals is None else accumulate_along_rays(share, normals),
        weights=weights,
    )


def render(
    query: Query,
    grid: OccupancyGrid,
    cameras: Cameras,
    height: int,
    width: int,
    *,
    n_samples: int,
    background: Tensor | None = None,
    shader: Shader | None = None,
    generator: torch.Generator | None = None,
) -> Rendering:
    """Render a field from N cameras.

    Args:
        query: The field: points (P, 3) to `FieldSamples`, such as a baked field.
        grid: Where there is something to see.
        cameras: N cameras.
        height: Rows.
        width: Columns.
        n_samples: Samples on each ray that meets occupied space.
        background: (N, 3) or (3,) colours in [0, 1]; white if not given.
        shader: Turns field samples and their positions (P, 3) into colours (P, 3); the field's own
            colours without it.
        generator: CPU source of the samples' places; without it they are regular.

    Returns:
        The images; differentiable to whatever `query` is differentiable to, and to `background`.
    """
    origins, directions = (x.reshape(-1, 3) for x in cameras.rays(height, width))
    samples = sample_rays(grid, origins, directions, n_samples, generator=generator)
    seen = directions[samples.rays]
    points = origins[samples.rays, None] + samples.middles[..., None] * seen[:, None]
    points = points.reshape(-1, 3)
    field = query(points)
    colors = field.rgb if shader is None else shader(field, points)
    layout = samples.middles.shape
    result = composite(
        samples.middles,
        samples.lengths,
        field.density.view(layout),
        colors.view(*layout, 3),
        None if field.normals is None else field.normals.view(*layout, 3),
    )

    def image(values: Tensor) -> Tensor:
        everywhere = values.new_zeros(len(origins), values.shape[1])
        everywhere = everywhere.index_copy(0, samples.rays, values)
        return everywhere.view(len(cameras), height, width, -1).permute(0, 3, 1, 2)

    opacity = image(result.opacity)
    if background is None:
        background = origins.new_ones(3)
    behind = background.expand(len(cameras), 3)[:, :, None, None]
    return Rendering(
        rgb=image(result.rgb) + behind * (1 - opacity),
        opacity=opacity,
        depth=image(result.depth),
        normals=None if result.normals is None else image(result.normals),
        samples=samples,
        composite=result,
        field=field,
        directions=seen,
    )
