"""Consistent flow distillation (Yan et al., 2025)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.guidance.cell_noise import noise_of_pixels
from vlmreward_3d.guidance.score_distillation import add_noise
from vlmreward_3d.guidance.teacher import Teacher
from vlmreward_3d.rendering.base import Surface

__all__ = ["ball", "surface_points", "transported_noise"]

CELLS = 4
"""Cells of noise along a pixel that is 2 / H world units wide, as where a picture shows [-1, 1]."""
RAYS = 8
"""Rays along each side of a pixel that look for cells, about two for each."""
SOLID = 0.1
"""Least opacity of a surface, as in the source's code."""
RADIUS = 0.5
"""Radius of the ball that stands in for an unknown surface, world units."""


def transported_noise(
    teacher: Teacher, latents: Tensor, t: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Noise that sticks to the surface of the object, and z_t with it.

    A view sees the noise of the points that it shows, so that two views of a point agree on its
    noise, and it stays the same throughout a run. With it and a noise level that falls, the
    gradient eps_hat - eps follows the flow of the clean image (z_t - s eps) / a in every view at
    once.

    The source transports white noise from a reference space to the pixels: the sum of the noise of
    all cells that a pixel covers there, divided by the root of their number. Its reference space is
    one of directions from the origin, in layers of distances from it; here it is space itself, in
    cubes (`CELLS`), a cube belongs to one pixel of a view alone, and a pixel's cubes are found by
    rays through it (`RAYS`) in place of rasterized triangles. Pixels of the background, and those
    that see no cube of their own, have fresh noise. The source may also refresh its noise slowly (a
    stochastic flow); here it stays.

    Args:
        teacher: The denoiser, with the cameras and the surface that they see; a ball stands in for
            a surface that is not known.
        latents: (N, C, H, W) z.
        t: (N,) timesteps.
        generator: CPU source of the background's noise.

    Returns:
        eps and z_t, both (N, C, H, W), in the dtype of z.
    """
    count, channels, height, width = latents.shape
    cameras = teacher.cameras.to(latents.device)
    points, solid = surface_points(cameras, teacher.surface, height * RAYS, width * RAYS)
    cells = (points * (CELLS * height / 2)).floor().long()
    pixels = torch.arange(height * width, device=cells.device).reshape(height, width)
    pixels = pixels.repeat_interleave(RAYS, 0).repeat_interleave(RAYS, 1)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    for view in range(count):
        seen = solid[view]
        found, size = noise_of_pixels(
            cells[view][seen],
            pixels[seen],
            height * width,
            seed=teacher.seed,
            channels=channels,
        )
        found, owns = (x.reshape(height, width, -1).movedim(-1, 0) for x in (found, size > 0))
        noise[view] = torch.where(owns, found.to(noise), noise[view])
    return noise, add_noise(latents, noise, teacher.alphas_cumprod.to(latents)[t])


def surface_points(
    cameras: Cameras, surface: Surface | None, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Points (N, height, width, 3) that rays meet, and True where there is a surface.

    Args:
        cameras: N cameras.
        surface: The surface at another resolution, interpolated between pixels; None for `ball`.
        height: Rows of rays.
        width: Columns of rays.
    """
    origins, directions = cameras.rays(height, width)
    if surface is None:
        surface = ball(cameras, height, width)
    opacity, depth = surface.opacity, surface.depth * surface.opacity
    opacity, depth = (
        F.interpolate(x, (height, width), mode="bilinear")[:, 0, ..., None]
        for x in (opacity, depth)
    )
    solid = opacity > SOLID
    depth = depth / torch.where(solid, opacity, 1.0)
    return origins + depth.to(origins) * directions, solid[..., 0]


def ball(cameras: Cameras, height: int, width: int) -> Surface:
    """The surface of a ball around the origin, of the radius `RADIUS`."""
    origins, directions = cameras.rays(height, width)
    along = -(origins * directions).sum(-1)
    under = RADIUS**2 - origins.square().sum(-1) + along.square()
    depth = along - under.clamp_min(0).sqrt()
    hit = ((under > 0) & (depth > 0)).to(depth)
    return Surface(depth[:, None], hit[:, None])
