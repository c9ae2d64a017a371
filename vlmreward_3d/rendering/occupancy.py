"""Occupancy grid in torch, the record of the space in which a field is not empty.

nerfacc's own grid traversal needs its CUDA extension; this grid runs on every device, and the
samples from it have the batched layout (n_rays, n_samples) that nerfacc composites without the
extension.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreward.utils.arguments import number, whole

__all__ = ["OccupancyGrid"]

_LEAST_ALPHA = 0.01
_STEPS = 512


class OccupancyGrid(nn.Module):
    """Running maximum of the density in cells of the box [-bound, bound]^3.

    A new grid is occupied everywhere. Neighbors of occupied cells count as occupied too, so that
    objects can grow.

    Args:
        resolution: Cells per side.
        bound: Half the side of the box, world units.
        threshold: Opacity of a ray's path through a cell under which the cell is empty, in [0, 1].
        decay: Factor of a cell's former maximum at each update, in [0, 1].

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
        """Update the running maximum by the density at one random point in every cell.

        Args:
            density: Maps points (P, 3) to densities (P,).
            generator: CPU source of the points; None takes the centers of the cells.
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
        """Corners (3,) of the smallest box around the occupied cells; low > high without any."""
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
        """Bool (...): True if the cell of each point (..., 3), or the nearest cell, is occupied."""
        resolution = self.peak.shape[0]
        index = ((points + self.bound) * (1 / self.cell)).long().clamp_(0, resolution - 1)
        flat = (index[..., 0] * resolution + index[..., 1]) * resolution + index[..., 2]
        return self.occupied.flatten()[flat]
