"""Samples along rays through occupied space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlmreward_3d.rendering.occupancy import OccupancyGrid

__all__ = ["RaySamples", "intersect_box", "sample_rays"]


@dataclass(frozen=True)
class RaySamples:
    """Samples on those rays that meet occupied space.

    Attributes:
        rays: (L,) indices of these rays among all that were given.
        middles: (L, S) distances of the samples from the origins, ascending.
        lengths: (L, 1) length of occupied ray that each of a ray's samples stands for.
    """

    rays: Tensor
    middles: Tensor
    lengths: Tensor


def intersect_box(
    origins: Tensor, directions: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Distances at which rays enter and leave an axis-aligned box.

    Args:
        origins: (N, 3).
        directions: (N, 3).
        low: (3,) lower corner.
        high: (3,) upper corner.

    Returns:
        near and far, both (N,), near >= 0; the ray misses where near >= far.
    """
    tiny = torch.finfo(directions.dtype).tiny ** 0.5
    safe = torch.where(directions.abs() < tiny, torch.full_like(directions, tiny), directions)
    one, two = (low - origins) / safe, (high - origins) / safe
    near = torch.minimum(one, two).amax(dim=-1).clamp_min(0)
    return near, torch.maximum(one, two).amin(dim=-1)


@torch.no_grad()
def sample_rays(
    grid: OccupancyGrid,
    origins: Tensor,
    directions: Tensor,
    n_samples: int,
    *,
    n_bins: int = 64,
    generator: torch.Generator | None = None,
) -> RaySamples:
    """Place a fixed number of samples in the occupied part of each ray.

    The segment of a ray inside the bounding box of the occupied cells is divided into `n_bins`
    bins. The bins in occupied cells, joined end to end, are divided into `n_samples` equal lengths
    with one sample in each. Empty space thus gets no samples, and the quadrature stays unbiased.

    Args:
        grid: Occupancy grid.
        origins: (N, 3).
        directions: (N, 3) unit vectors.
        n_samples: Samples per ray.
        n_bins: Resolution of the empty-space test along the ray.
        generator: CPU source of the random position within each length; None takes the middle.

    Returns:
        Samples of the rays that meet an occupied cell; not differentiable.
    """
    low, high = grid.extent()
    near, far = intersect_box(origins, directions, low.to(origins), high.to(origins))
    rays = (near < far).nonzero()[:, 0]
    near, width = near[rays], (far - near)[rays] / n_bins
    bins = torch.arange(n_bins, dtype=origins.dtype, device=origins.device)
    distance = near[:, None] + width[:, None] * (bins + 0.5)
    hit = grid.at(origins[rays, None] + distance[..., None] * directions[rays, None])
    live = hit.any(dim=1)
    rays, near, width, hit = rays[live], near[live], width[live], hit[live]

    reached = hit.to(origins.dtype).cumsum(dim=1)
    total = reached[:, -1:]
    shape = (len(rays), n_samples)
    within = (
        torch.full(shape, 0.5) if generator is None else torch.rand(shape, generator=generator)
    ).to(origins)
    samples = torch.arange(n_samples, dtype=origins.dtype, device=origins.device)
    target = (samples + within) * (total / n_samples)
    index = torch.searchsorted(reached, target).clamp_max(n_bins - 1)
    past = target - (reached.gather(1, index) - 1)
    middles = near[:, None] + width[:, None] * (index + past.clamp(0, 1))
    return RaySamples(rays, middles, width[:, None] * total / n_samples)
