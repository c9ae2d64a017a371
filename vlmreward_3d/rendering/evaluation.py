"""Render a finished field without gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.fields.factory import Field
from vlmreward_3d.fields.gaussians import GaussianField
from vlmreward_3d.rendering.gaussians.render import render_gaussians
from vlmreward_3d.rendering.occupancy import OccupancyGrid
from vlmreward_3d.rendering.volume import render_rays

__all__ = ["evaluation_cameras", "image_bytes", "look"]


def evaluation_cameras(config: VLM3DConfig, n: int) -> Cameras:
    """`n` cameras around the object at 15 degrees elevation, as far away as in training."""
    fov = sum(config.fov_deg) / 2
    distance = sum(config.scale) / 2 / math.tan(math.radians(fov) / 2)
    return Cameras.turntable(n, elevation=15.0, distance=distance, fov=fov)


@torch.no_grad()
def look(
    field: Field,
    grid: OccupancyGrid,
    cameras: Cameras,
    size: int,
    *,
    normals: bool = False,
    n_samples: int = 64,
    chunk: int = 32768,
) -> Iterator[Tensor]:
    """Render without gradients on white, `chunk` rays at a time.

    Args:
        field: What to look at.
        grid: Its occupancy; splats are drawn without it.
        cameras: N cameras, on the field's device.
        size: Height and width in pixels.
        normals: Put the world-space normals, as colours, below the picture.
        n_samples: Samples per ray; of no meaning to splats, like `chunk`.
        chunk: Rays that are rendered together; bounds the memory.

    Yields:
        For each camera a picture (3, size or 2 * size, size) in [0, 1].
    """
    if isinstance(field, GaussianField):
        yield from _look_at_splats(field, cameras, size, normals)
        return
    baked = field.bake(normals=normals)
    white = baked.like.new_ones(3)
    # what is occupied is three cells thick at least: as many bins as cells do not step over it
    n_bins = min(64, grid.occupied.shape[0])
    for index in range(len(cameras)):
        rows: list[list[Tensor]] = [[], []]
        origins, directions = cameras[index : index + 1].rays(size, size)
        for part in zip(origins.view(-1, 3).split(chunk), directions.view(-1, 3).split(chunk)):
            seen = render_rays(
                baked, grid, *part, n_samples=n_samples, background=white, n_bins=n_bins
            )
            rows[0].append(seen.rgb.clamp(0, 1))
            if seen.normals is not None:
                rows[1].append(_as_colors(seen.normals, seen.opacity))
        yield torch.cat([*rows[0], *rows[1]]).view(-1, size, 3).permute(2, 0, 1)


def _look_at_splats(
    field: GaussianField, cameras: Cameras, size: int, normals: bool
) -> Iterator[Tensor]:
    gaussians = field.gaussians()
    for index in range(len(cameras)):
        view = cameras[index : index + 1]
        seen = render_gaussians(gaussians, view, size, size, normals=normals)
        rows = [seen.rgb[0].clamp(0, 1)]
        if seen.normals is not None:
            rows.append(_as_colors(seen.normals, seen.opacity)[0])
        yield torch.cat(rows, dim=1)


def _as_colors(normals: Tensor, opacity: Tensor) -> Tensor:
    """Normals as colours in [0, 1], on white."""
    return (normals + 1) / 2 * opacity + (1 - opacity)


def image_bytes(image: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 from (3, H, W) in [0, 1]."""
    return (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
