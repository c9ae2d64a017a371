"""Extraction of a closed mesh from the depths of rendered views, by space carving."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vlmreward_3d.cameras import Cameras, orbit
from vlmreward_3d.fields.volume import VolumeField
from vlmreward_3d.rendering.volume import Rendering, render

__all__ = ["NoSurfaceError", "Surface", "carve", "colors_at", "extract_surface"]

_ELEVATIONS = (0.0, 20.0, 45.0, 75.0)


class NoSurfaceError(ValueError):
    """Error: the field has no visible surface."""


@dataclass(frozen=True)
class Surface:
    """A closed triangle mesh with colors, in the world's frame: z up.

    Attributes:
        vertices: (V, 3) float, world units.
        faces: (F, 3) int, counter-clockwise seen from outside.
        rgb: (V, 3) float, sRGB in [0, 1].
    """

    vertices: np.ndarray
    faces: np.ndarray
    rgb: np.ndarray


@torch.no_grad()
def carve(
    field: VolumeField,
    *,
    resolution: int = 96,
    n_views: int = 8,
    size: int = 128,
) -> Tensor:
    """Truncated signed distance to free space on a lattice over the field's box.

    A point is free if at least one of many cameras above the horizon sees past it. Space that no
    camera sees (hollow insides, the underside, enclosed cavities) counts as solid; the density
    itself is arbitrary there, because score distillation does not constrain it.

    Args:
        field: The field to mesh, with an up-to-date occupancy.
        resolution: Points per side.
        n_views: Number of cameras on each ring; the rings differ in elevation.
        size: Height and width of the cameras' pictures in pixels.

    Returns:
        (R, R, R), axes x, y, z: 1 in free space, -1 in the solid, linear over three spacings on
        either side of the surface.
    """
    baked = field.representation.bake(rgb=True)
    bound, device = field.representation.bound, baked.reference_tensor.device
    fov = 30.0
    distance = math.sqrt(3) * bound / math.sin(math.radians(fov) / 2)
    rings = [_ring(n_views, elevation, distance, fov) for elevation in _ELEVATIONS]
    axis = torch.linspace(-bound, bound, resolution, device=device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
    reach = 3 * 2 * bound / (resolution - 1)
    free = torch.full((len(points),), -1.0, device=device)
    views = [(ring[i : i + 1].to(device)) for ring in rings for i in range(len(ring))]
    seen = [render(baked, field.occupancy, view, size, size, n_samples=96) for view in views]
    solid = min(0.5, 0.5 * max(float(x.opacity.max()) for x in seen))
    for view, image in zip(views, seen):
        depth = torch.where(image.opacity > solid, _front(image), 2 * distance)
        local = (points - view.positions) @ view.c2w[0, :3, :3]
        pixel = local[:, :2] / -local[:, 2:] / torch.tan(view.fov / 2) * local.new_tensor((1, -1))
        at = F.grid_sample(
            depth, pixel[None, None], mode="nearest", padding_mode="border", align_corners=False
        )
        past = (at.flatten() - local.norm(dim=1)) / reach
        free = torch.maximum(free, past.clamp(-1, 1))
    return free.view(resolution, resolution, resolution)


def _front(image: Rendering) -> Tensor:
    """(1, 1, H, W) distance at which a quarter of a ray's opacity has been met.

    The mean depth lies inside soft surfaces; the deepest of many views would eat them away.
    """
    rays = image.rays
    reached = rays.composite.weights.cumsum(dim=1) >= 0.25 * rays.composite.opacity
    first = reached.to(torch.uint8).argmax(dim=1, keepdim=True)
    front = image.depth.new_zeros(image.depth.numel())
    front[rays.samples.rays] = rays.samples.middles.gather(1, first)[:, 0]
    return front.view(image.depth.shape)


def _ring(n: int, elevation: float, distance: float, fov: float) -> Cameras:
    return orbit(torch.arange(n) * (360.0 / n), elevation, distance, fov)


@torch.no_grad()
def extract_surface(field: VolumeField, *, resolution: int = 96) -> Surface:
    """The field's closed surface, by marching cubes on the distances of `carve`.

    Args:
        field: The field to mesh, with an up-to-date occupancy.
        resolution: Points per side of the lattice.

    Returns:
        The surface, with the field's colors at its vertices; not differentiable.

    Raises:
        NoSurface: There is nothing to see.
    """
    from scipy.ndimage import gaussian_filter
    from skimage.measure import marching_cubes

    free = carve(field, resolution=resolution).cpu().numpy()
    if free.min() >= 0:
        raise NoSurfaceError(
            "received a field without a surface; expected an opaque one; train longer"
        )
    free = gaussian_filter(np.pad(free, 1, constant_values=1.0), 0.7, mode="nearest")
    # never exactly at the level, where marching cubes would make triangles without area
    free[np.abs(free) < 1e-4] = 1e-4
    bound = field.representation.bound
    spacing = 2 * bound / (resolution - 1)
    vertices, faces, _, _ = marching_cubes(free, 0.0, gradient_direction="descent")
    vertices = (vertices - 1) * spacing - bound
    return Surface(vertices, faces, colors_at(field, vertices))


@torch.no_grad()
def colors_at(field: VolumeField, points: np.ndarray) -> np.ndarray:
    """The field's colors (P, 3), sRGB in [0, 1], at points (P, 3) in world units."""
    baked = field.representation.bake(rgb=True)
    rgb = baked(torch.from_numpy(points).to(baked.reference_tensor)).rgb
    return rgb.clamp(0, 1).cpu().numpy()
