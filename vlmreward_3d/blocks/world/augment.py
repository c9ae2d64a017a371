"""Random backgrounds and damage of views, like the renders of a half-optimized radiance field."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor


def _uniform(shape: tuple[int, ...], low: float, high: float, g: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=g)


def _backgrounds(scenes: int, views: int, size: int, g: torch.Generator) -> Tensor:
    """(scenes, views, 3, size, size): solid, gray, different per view, or smoothly textured."""
    kind = torch.rand(scenes, 1, 1, 1, 1, generator=g)
    solid = torch.rand(scenes, 1, 3, 1, 1, generator=g)
    gray = _uniform((scenes, 1, 1, 1, 1), 0.0, 1.0, g).expand(-1, -1, 3, -1, -1)
    each = torch.rand(scenes, views, 3, 1, 1, generator=g)
    rough = torch.rand(scenes * views, 3, 4, 4, generator=g)
    smooth = F.interpolate(rough, (size, size), mode="bilinear", align_corners=True)
    smooth = smooth.reshape(scenes, views, 3, size, size)
    out = torch.where(kind < 0.45, solid, gray).expand(scenes, views, 3, size, size)
    out = torch.where(kind > 0.80, each.expand_as(out), out)
    return torch.where(kind > 0.90, smooth, out)


def _sometimes(images: Tensor, changed: Tensor, share: float, g: torch.Generator) -> Tensor:
    """Per scene, the changed version with probability ``share``."""
    chosen = torch.rand(len(images), 1, 1, 1, 1, generator=g) < share
    return torch.where(chosen, changed, images)


def augment_and_composite(
    rgba: Tensor, generator: torch.Generator, *, strength: float = 1.0, fade: Tensor | None = None
) -> Tensor:
    """Put views over random backgrounds and damage them at random.

    Args:
        rgba: (N, V, 64, 64, 4) uint8, premultiplied.
        generator: CPU source of everything random.
        strength: share of the usual damage, in [0, 1]; 0 leaves clean views.
        fade: (N,) opacity that is left of the objects; 1 by default.

    Returns:
        (N, V, 3, 64, 64) float32 in [0, 1].
    """
    g = generator
    n, v, size = rgba.shape[:3]
    image = rgba.permute(0, 1, 4, 2, 3).float() / 255
    if strength > 0:
        # other distances and centers than the cameras of the set
        zoom = torch.where(
            torch.rand(n, 1, generator=g) < 0.5 * strength,
            _uniform((n, 1), 0.85, 1.2, g),
            torch.ones(n, 1),
        )
        shift = _uniform((n, v, 2), -0.12, 0.12, g) * (zoom != 1)[..., None]
        theta = torch.zeros(n, v, 2, 3)
        theta[..., 0, 0] = theta[..., 1, 1] = zoom
        theta[..., 2] = shift
        grid = F.affine_grid(theta.reshape(-1, 2, 3), [n * v, 4, size, size], align_corners=False)
        moved = F.grid_sample(image.reshape(-1, 4, size, size), grid, align_corners=False)
        image = moved.reshape(n, v, 4, size, size)
        thin = _uniform((n, 1, 1, 1, 1), 0.55, 1.0, g)
        image = _sometimes(image, image * thin, 0.25 * strength, g)
    if fade is not None:
        image = image * fade[:, None, None, None, None]
    back = _backgrounds(n, v, size, g)
    image = image[:, :, :3] + (1 - image[:, :, 3:]) * back
    if strength == 0:
        return image
    gain = _uniform((n, 1, 1, 1, 1), 0.75, 1.25, g)
    image = _sometimes(image, (image * gain).clamp(0, 1), 0.4 * strength, g)
    flat = image.reshape(-1, 3, size, size)
    sigma = _uniform((n * v, 1), 0.4, 1.6, g).expand(-1, 2)
    blurred = gaussian_blur2d(flat, (9, 9), sigma).reshape(image.shape)
    image = _sometimes(image, blurred, 0.4 * strength, g)
    small = F.interpolate(
        F.avg_pool2d(image.reshape(-1, 3, size, size), 2), scale_factor=2, mode="bilinear"
    ).reshape(image.shape)
    image = _sometimes(image, small, 0.2 * strength, g)
    noise = torch.randn(image.shape, generator=g) * _uniform((n, 1, 1, 1, 1), 0.0, 0.1, g)
    image = _sometimes(image, image + noise, 0.35 * strength, g)
    haze = F.interpolate(
        torch.rand(n * v, 1, 5, 5, generator=g), (size, size), mode="bilinear", align_corners=True
    ).reshape(n, v, 1, size, size) * _uniform((n, 1, 1, 1, 1), 0.0, 0.6, g)
    tint = torch.rand(n, 1, 3, 1, 1, generator=g)
    image = _sometimes(image, image * (1 - haze) + tint * haze, 0.25 * strength, g)
    return image.clamp(0, 1)
