"""Flow score distillation (Yan et al., 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmreward_3d.guidance.score_distillation import add_noise
from vlmreward_3d.guidance.teacher import Teacher

__all__ = ["view_of_map", "world_map_noise"]


def world_map_noise(
    teacher: Teacher, latents: Tensor, t: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Noise that is fixed for each camera direction during a run, and z_t with this noise.

    With this noise and a falling noise level, "sds" follows the trajectory of a sampler from the
    noise of each view, and different seeds of a run lead to different objects. The noise of a view
    is a part of a map of normal noise around the object, so that neighboring views share noise,
    which moves with the camera. The generator is not used.

    The paper uses separate noise where a view shows the background; here the map is used there
    too, because a guidance has no access to opacities.
    """
    channels, height, width = latents.shape[1:]
    draws = torch.Generator().manual_seed(teacher.seed)
    world = torch.randn((channels, 2 * height, 2 * width), generator=draws).to(latents)
    noise = torch.stack(
        [
            view_of_map(world, azimuth, elevation, height, width)
            for azimuth, elevation in teacher.cameras.angles().tolist()
        ]
    )
    return noise, add_noise(latents, noise, teacher.alphas_cumprod.to(latents)[t])


def view_of_map(world: Tensor, azimuth: float, elevation: float, height: int, width: int) -> Tensor:
    """The part (C, H, W) of a map (C, 2 H, 2 W) that a camera sees.

    The map's 2 W columns go around the object once, and H rows are 180 degrees of elevation.

    Args:
        world: The map.
        azimuth: Azimuth of the camera in degrees.
        elevation: Elevation of the camera in degrees, in [-90, 90].
        height: Height H of the part.
        width: Width W of the part.
    """
    rows, columns = world.shape[1] // 2, world.shape[2]
    row = int(-elevation * rows / 180 % rows)
    column = int(azimuth * columns / 360 % columns)
    across = (column + torch.arange(width, device=world.device)) % columns
    return world[:, row : row + height, across]
