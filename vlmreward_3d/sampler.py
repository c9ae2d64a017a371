"""Where along each ray to look: a torch occupancy grid and stratified samples in occupied space.

nerfacc's own traversal needs its CUDA extension; this runs on every device and returns the batched
(n_rays, n_samples) layout that nerfacc composites without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreward.arguments import number, whole

__all__ = ["OccupancyGrid", "RaySamples", "intersect_box", "sample_rays"]

_LEAST_ALPHA = 0.01
_STEPS = 512


class OccupancyGrid(nn.Module):
    """Running maximum of the density in cells of the box [-bound, bound]^3.

    A new grid is occupied everywhere. Neighbours of occupied cells count as occupied too, so that
    things can grow.

    Args:
        resolution: Cells per side.
        bound: Half the side of the box, world units.
        threshold: A cell is empty when a ray crossing it is dimmed by less than this share.
        decay: What each update keeps of a cell's former maximum.

    Raises:
        TypeError, ValueError: A number is of another type, or out of range.
    """

    peak: Tensor
    occupied: Tensor

    def __init__(
        self,
        resolution: int = 32,
        *,
        bound: float = 1.0,
        threshold: float = 0.01,
        decay: float = 0.8,
    ) -> None:
        super().__init__()
        whole("resolution", resolution)
        number("bound", bound, above=0)
        number("threshold", threshold, least=0, most=1)
        number("decay", decay, least=0, most=1)
        self.bound = bound
        self.threshold = threshold
        self.decay = decay
        self.register_buffer("peak", torch.zeros(resolution, resolution, resolution))
        self.register_buffer("occupied", torch.ones_like(self.peak, dtype=torch.bool))

    @property
    def cell(self) -> float:
        """Side of a cell in world units."""
        return 2 * self.bound / self.peak.shape[0]

    @torch.no_grad()
    def update(
        self, density: Callable[[Tensor], Tensor], generator: torch.Generator | None = None
    ) -> None:
        """Look at one random point in every cell.

        Args:
            density: Maps points (P, 3) to densities (P,).
            generator: CPU source of the points; without it the cells' centres are used.
        """
        resolution = self.peak.shape[0]
        index = torch.stack(
            torch.meshgrid(*[torch.arange(resolution)] * 3, indexing="ij"), dim=-1
        ).reshape(-1, 3)
        offset = (
            torch.full(index.shape, 0.5)
            if generator is None
            else torch.rand(index.shape, generator=generator)
        )
        points = ((index + offset) * self.cell - self.bound).to(self.peak)
        seen = density(points).reshape(self.peak.shape).to(self.peak)
        self.peak.copy_(torch.maximum(self.peak * self.decay, seen))
        full = (self.peak * self.cell > self.threshold).float()
        self.occupied.copy_(F.max_pool3d(full[None, None], 3, stride=1, padding=1)[0, 0] > 0)

    def faintest(self) -> Tensor:
        """Density (scalar) below which threestudio's volume renderer drops a sample.

        That renderer cuts the diagonal of the box into 512 steps and drops samples whose alpha over
        one step is less than 0.01, or less than that of the mean peak of all cells where this is
        lower (nerfacc's `alpha_thre`), so that a thin field keeps its densest samples.
        """
        step = 2 * math.sqrt(3) * self.bound / _STEPS
        return self.peak.mean().clamp_max(-math.log1p(-_LEAST_ALPHA) / step)

    def extent(self) -> tuple[Tensor, Tensor]:
        """Corners (3,) of the smallest box around the occupied cells; empty means low > high."""
        first, last = [], []
        for axis in range(3):
            other = [a for a in range(3) if a != axis]
            hit = self.occupied.any(dim=other[1]).any(dim=other[0]).nonzero()[:, 0]
            first.append(hit[0] if len(hit) else torch.tensor(1, device=hit.device))
            last.append(hit[-1] + 1 if len(hit) else torch.tensor(0, device=hit.device))
        return (
            torch.stack(first) * self.cell - self.bound,
            torch.stack(last) * self.cell - self.bound,
        )

    def at(self, points: Tensor) -> Tensor:
        """Whether points (..., 3) lie in occupied cells; those outside the box take the nearest."""
        resolution = self.peak.shape[0]
        index = ((points + self.bound) * (1 / self.cell)).long().clamp_(0, resolution - 1)
        flat = (index[..., 0] * resolution + index[..., 1]) * resolution + index[..., 2]
        return self.occupied.flatten()[flat]


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

    The stretch inside the occupied cells' bounding box is cut into `n_bins` bins. The bins in
    occupied cells, laid end to end, are cut into `n_samples` equal lengths with one sample in each.
    Empty space thus costs nothing, and the quadrature stays unbiased.

    Args:
        grid: What is occupied.
        origins: (N, 3).
        directions: (N, 3) unit vectors.
        n_samples: Samples per ray.
        n_bins: Resolution of the empty-space test along the ray.
        generator: CPU source of the place within each length; without it, the middle.

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
