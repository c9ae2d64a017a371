"""Differentiable volume rendering by nerfacc's batched compositing. The only user of nerfacc."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from nerfacc import accumulate_along_rays, render_weight_from_density
from torch import Tensor

from vlmreward.utils.arguments import whole
from vlmreward_3d.cameras import Cameras
from vlmreward_3d.rendering.base import FieldSamples, Shader
from vlmreward_3d.rendering.occupancy import OccupancyGrid
from vlmreward_3d.rendering.ray_sampling import RaySamples, sample_rays

__all__ = ["Composite", "RenderedRays", "Rendering", "composite", "render", "render_rays"]

Query = Callable[[Tensor], FieldSamples]


@dataclass(frozen=True)
class Composite:
    """Sums along L rays of S samples; differentiable to densities, colors and normals.

    Attributes:
        rgb: (L, C) color on black; C is 3, or 4 of latents.
        opacity: (L, 1) in [0, 1].
        depth: (L, 1) opacity-weighted mean distance from the camera; 0 on empty rays.
        normals: (L, 3) opacity-weighted mean normal, or None without normals.
        weights: (L, S) weight of each sample in the sums.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    normals: Tensor | None
    weights: Tensor


@dataclass(frozen=True)
class RenderedRays:
    """N rays, of which L met occupied space.

    Attributes:
        rgb: (N, C) on the background; C is 3, or 4 of latents.
        opacity: (N, 1) in [0, 1].
        depth: (N, 1) distance from the origin, world units; 0 where nothing is.
        normals: (N, 3) world-space mean normals, length <= 1, or None without normals.
        samples: The samples that were used, S on each of the L rays.
        composite: The sums along the L rays, with their samples' weights.
        field: Values of the field at the samples, P = L * S.
        directions: (L, 3) directions of the L rays.
        visible: (L, S) bool, samples that are dense enough to be seen; see
            `OccupancyGrid.faintest`.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    normals: Tensor | None
    samples: RaySamples
    composite: Composite
    field: FieldSamples
    directions: Tensor
    visible: Tensor


@dataclass(frozen=True)
class Rendering:
    """N images, channels first; the attributes of `RenderedRays` in the shape of images.

    Attributes:
        rgb: (N, C, H, W) on the background; colors in [0, 1] up to rounding, or latents.
        opacity: (N, 1, H, W).
        depth: (N, 1, H, W).
        normals: (N, 3, H, W), or None.
        rays: The same ray by ray, images one after the other, rows first.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    normals: Tensor | None
    rays: RenderedRays


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
        lengths: (L, S) or (L, 1) length of each sample's interval; not differentiable.
        density: (L, S) densities per world unit.
        rgb: (L, S, C) colors, or other values to composite.
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


def check_background(background: Tensor, count: int, channels: int = 3) -> None:
    """Refuse backgrounds of another shape than one color for all or one for each.

    Raises:
        ValueError: The shape is neither (`channels`,) nor (`count`, `channels`).
    """
    if background.shape not in ((channels,), (count, channels)):
        raise ValueError(
            f"received background of shape {tuple(background.shape)}; expected ({channels},) or "
            f"({count}, {channels})"
        )


def render_rays(
    query: Query,
    grid: OccupancyGrid,
    origins: Tensor,
    directions: Tensor,
    *,
    n_samples: int,
    background: Tensor,
    n_bins: int = 64,
    shader: Shader | None = None,
    views: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> RenderedRays:
    """Render a field along rays.

    Args:
        query: The field: points (P, 3) to `FieldSamples`, such as a baked field.
        grid: Occupancy grid of the field.
        origins: (N, 3); not differentiable.
        directions: (N, 3) unit vectors; not differentiable.
        n_samples: Samples on each ray that meets occupied space.
        background: (N, C) or (C,) colors in [0, 1], or latents if the field has those.
        n_bins: Resolution of the empty-space test along the ray.
        shader: Function from field samples, their positions (P, 3) and the indices (P,) of their
            views to colors (P, 3); None for the field's own colors.
        views: (N,) integers, the index of each ray's view, for the shader; 0 if not given.
        generator: CPU source of the samples' positions; None for regular positions.

    Returns:
        The rendered rays; differentiable to the tensors that `query` depends on, and to
        `background`.

    Raises:
        TypeError, ValueError: A number of samples or bins is no whole number >= 1, or `background`
            of another shape.
    """
    whole("n_samples", n_samples)
    whole("n_bins", n_bins)
    samples = sample_rays(grid, origins, directions, n_samples, n_bins=n_bins, generator=generator)
    seen = directions[samples.rays]
    points = origins[samples.rays, None] + samples.middles[..., None] * seen[:, None]
    points = points.reshape(-1, 3)
    field = query(points)
    check_background(background, len(origins), field.rgb.shape[1])
    layout = samples.middles.shape
    density = field.density.view(layout)
    colors = field.rgb
    if shader is not None:
        numbers = torch.zeros_like(samples.rays) if views is None else views[samples.rays]
        colors = shader(field, points, numbers.repeat_interleave(n_samples))
    result = composite(
        samples.middles,
        samples.lengths,
        density,
        colors.view(*layout, colors.shape[1]),
        None if field.normals is None else field.normals.view(*layout, 3),
    )

    def everywhere(values: Tensor) -> Tensor:
        empty = values.new_zeros(len(origins), values.shape[1])
        return empty.index_copy(0, samples.rays, values)

    opacity = everywhere(result.opacity)
    return RenderedRays(
        rgb=everywhere(result.rgb) + background * (1 - opacity),
        opacity=opacity,
        depth=everywhere(result.depth),
        normals=None if result.normals is None else everywhere(result.normals),
        samples=samples,
        composite=result,
        field=field,
        directions=seen,
        visible=density.detach() >= grid.faintest(),
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
    """Render a field from N cameras; see `render_rays`.

    Args:
        query: The field.
        grid: Occupancy grid of the field.
        cameras: N cameras.
        height: Rows.
        width: Columns.
        n_samples: Samples on each ray that meets occupied space.
        background: (N, C) or (C,) colors in [0, 1], or latents; white if not given, which only a
            field with colors can do without.
        shader: Function from field samples, their positions and the indices of their cameras to
            colors; None for the field's own colors.
        generator: CPU source of the samples' positions; None for regular positions.

    Returns:
        The images.
    """
    origins, directions = (x.reshape(-1, 3) for x in cameras.rays(height, width))
    if background is None:
        background = origins.new_ones(3)
    check_background(background, len(cameras), background.shape[-1] if background.ndim else 3)
    if background.ndim == 2:
        background = background.repeat_interleave(height * width, dim=0)
    views = torch.arange(len(cameras), device=origins.device)
    rays = render_rays(
        query,
        grid,
        origins,
        directions,
        n_samples=n_samples,
        background=background,
        shader=shader,
        views=views.repeat_interleave(height * width),
        generator=generator,
    )

    def image(values: Tensor) -> Tensor:
        return values.view(len(cameras), height, width, -1).permute(0, 3, 1, 2)

    return Rendering(
        rgb=image(rays.rgb),
        opacity=image(rays.opacity),
        depth=image(rays.depth),
        normals=None if rays.normals is None else image(rays.normals),
        rays=rays,
    )
