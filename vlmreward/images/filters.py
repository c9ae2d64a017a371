"""Image filters."""

from __future__ import annotations

import math

import torch
from kornia.filters import filter2d_separable, get_gaussian_kernel1d

from vlmreward.images.layout import to_compute_dtype

__all__ = ["smooth"]


def _mirrored(length: int, radius: int, device: torch.device) -> torch.Tensor:
    """Indices that continue an axis by its mirror image, the edge pixel repeated: b a | a b c."""
    index = torch.arange(-radius, length + radius, device=device).remainder(2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


def smooth(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur as a symmetric, positive semidefinite matrix that keeps the sum of the values.

    Beyond the edges the image is continued by its mirror image with the edge pixel repeated. That
    makes the matrix symmetric, unlike the usual "reflect" (edge pixel not repeated). Two
    successive blurs make it positive semidefinite, which one blur with a truncated kernel is not.

    Args:
        x: ``(..., H, W)``, floating; half precision is computed in float32.
        sigma: standard deviation in pixels of both blurs together; each kernel is truncated at 3
            of its own standard deviations.

    Returns:
        Same shape and dtype; linear in ``x``.
    """
    each = sigma / math.sqrt(2)
    radius = max(1, math.ceil(3 * each))
    height, width = x.shape[-2:]
    rows, columns = _mirrored(height, radius, x.device), _mirrored(width, radius, x.device)
    planes = to_compute_dtype(x).reshape(-1, 1, height, width)
    kernel = get_gaussian_kernel1d(2 * radius + 1, each, device=x.device, dtype=planes.dtype)
    for _ in range(2):
        padded = planes[:, :, rows][..., columns]
        planes = filter2d_separable(padded, kernel, kernel, padding="valid")
    return planes.reshape(x.shape).to(x.dtype)
