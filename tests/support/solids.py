"""An exact ray caster of one sphere on one cube, as a target that the renderer did not make."""

import torch
from torch import Tensor

from vlmreward_3d.cameras import Cameras

SPHERE_CENTER, SPHERE_RADIUS = (0.0, 0.0, 0.3), 0.3
CUBE_LOW, CUBE_HIGH = (-0.35, -0.35, -0.55), (0.35, 0.35, 0.0)
BLUE, RED = (0.1, 0.2, 0.85), (0.85, 0.15, 0.1)


def cast(cameras: Cameras, size: int, background: Tensor) -> Tensor:
    """(N, 3, size, size) pictures of a blue sphere on a red cube whose top and x sides differ."""
    fine = 2 * size
    origins, directions = (x.reshape(-1, 3) for x in cameras.rays(fine, fine))
    kind = {"dtype": origins.dtype, "device": origins.device}
    toward = origins - torch.tensor(SPHERE_CENTER, **kind)
    half = (toward * directions).sum(-1)
    inside = half**2 - (toward.square().sum(-1) - SPHERE_RADIUS**2)
    t_sphere = torch.where(inside > 0, -half - inside.clamp_min(0).sqrt(), torch.inf)
    one = (torch.tensor(CUBE_LOW, **kind) - origins) / directions
    two = (torch.tensor(CUBE_HIGH, **kind) - origins) / directions
    near, axis = torch.minimum(one, two).max(dim=-1)
    t_cube = torch.where(near < torch.maximum(one, two).amin(dim=-1), near, torch.inf)

    shade = torch.tensor([0.75, 1.0, 1.1], **kind)[axis, None]
    rgb = background.repeat_interleave(fine * fine, dim=0).to(origins)
    red = (torch.tensor(RED, **kind) * shade).clamp_max(1)
    rgb = torch.where((t_cube < torch.inf)[:, None], red, rgb)
    rgb = torch.where((t_sphere < t_cube)[:, None], torch.tensor(BLUE, **kind), rgb)
    image = rgb.view(len(cameras), fine, fine, 3).permute(0, 3, 1, 2)
    return torch.nn.functional.avg_pool2d(image, 2)
