"""Rendering without gradients, for previews, exports and evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras
from vlmreward_3d.rendering.base import BakedField
from vlmreward_3d.rendering.occupancy import OccupancyGrid
from vlmreward_3d.rendering.volume import render_rays

if TYPE_CHECKING:
    from vlmreward_3d.config import CameraConfig

__all__ = ["evaluation_cameras", "image_bytes", "normals_as_colors", "render_volume_images"]


def evaluation_cameras(config: CameraConfig, n: int) -> Cameras:
    """`n` cameras around the object at 15 degrees elevation, as far away as in training."""
    fov = sum(config.fov_deg) / 2
    distance = sum(config.object_radius) / 2 / math.tan(math.radians(fov) / 2)
    return Cameras.turntable(n, elevation=15.0, distance=distance, fov=fov)


@torch.no_grad()
def render_volume_images(
    baked: BakedField,
    occupancy: OccupancyGrid,
    cameras: Cameras,
    size: int,
    *,
    n_samples: int = 64,
    chunk: int = 32768,
) -> Iterator[Tensor]:
    """Render a baked field on white without gradients, one camera at a time.

    Args:
        baked: The field; if baked with normals, they are added as colors below the image.
        occupancy: Grid of the cells in which the field is not empty.
        cameras: N cameras, on the field's device.
        size: Height and width in pixels.
        n_samples: Samples on each ray that meets occupied space.
        chunk: Rays rendered together; bounds the memory.

    Yields:
        For each camera an image (3, size or 2 * size, size) in [0, 1].
    """
    white = baked.reference_tensor.new_ones(3)
    # occupied space is at least three cells thick: as many bins as cells do not step over it
    n_bins = min(64, occupancy.occupied.shape[0])
    for index in range(len(cameras)):
        rows: list[list[Tensor]] = [[], []]
        origins, directions = cameras[index : index + 1].rays(size, size)
        for part in zip(origins.view(-1, 3).split(chunk), directions.view(-1, 3).split(chunk)):
            seen = render_rays(
                baked, occupancy, *part, n_samples=n_samples, background=white, n_bins=n_bins
            )
            rows[0].append(seen.rgb.clamp(0, 1))
            if seen.normals is not None:
                rows[1].append(normals_as_colors(seen.normals, seen.opacity))
        yield torch.cat([*rows[0], *rows[1]]).view(-1, size, 3).permute(2, 0, 1)


def normals_as_colors(normals: Tensor, opacity: Tensor) -> Tensor:
    """Colors in [0, 1] of normals in [-1, 1], composited on white by their opacity."""
    return (normals + 1) / 2 * opacity + (1 - opacity)


def image_bytes(image: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 from (3, H, W) in [0, 1]."""
    return (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
