"""3D Gaussian splats (Kerbl et al., 2023): a radiance field made of soft ellipsoids."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreward.utils.arguments import number, whole

__all__ = ["MOST_OPAQUE", "GaussianField", "Gaussians", "rotations"]

MOST_OPAQUE = 0.99
"""Upper limit of alpha (Kerbl et al., 2023, Appendix C): gradients must reach what lies behind."""

_NEIGHBOURS = 3
_OPACITY = 0.1
_MEANS_RATE = 0.04
_SHAPE_RATE = 0.2
_ROWS = 1024


@dataclass(frozen=True)
class Gaussians:
    """N soft ellipsoids; differentiable to the parameters of the field they are from.

    Attributes:
        means: (N, 3) centres, world units.
        scales: (N, 3) standard deviations along their own axes, world units, positive.
        quaternions: (N, 4) rotations w, x, y, z of these axes into the world, unit length.
        opacity: (N,) in (0, 1), at the centre; those of a `GaussianField` do not exceed
            `MOST_OPAQUE`.
        rgb: (N, 3) in (0, 1).
    """

    means: Tensor
    scales: Tensor
    quaternions: Tensor
    opacity: Tensor
    rgb: Tensor


class GaussianField(nn.Module):
    """Gaussians that are drawn instead of sampled along rays.

    As in Kerbl et al. (2023), scales are optimised as logarithms and opacities as logits; colours
    are logits too, the same from every side (spherical harmonics of degree 0). Opacities are
    `MOST_OPAQUE` times a sigmoid, so that no alpha is cut off: gsplat cuts off at 0.999 up to
    version 1.5 and at 0.99 after it, which then makes no difference. The number of Gaussians is
    fixed: none is split, cloned or removed, so that the optimiser's state keeps its shape and a run
    resumes exactly. They begin as a gray ball of uniformly drawn points, each round and as wide as
    the root of the mean squared distance to its three nearest neighbours (Sec. 5), with an opacity
    of 0.1. Nothing keeps them within a box.

    Args:
        count: How many, 4 or more.
        radius: Of the initial ball, world units.
        generator: CPU source of the initial places and the small noise in the colours; none draws
            from torch's own.

    Raises:
        TypeError: The count is not whole, or the radius no number.
        ValueError: The count or the radius is too small.
    """

    def __init__(
        self,
        count: int = 2000,
        *,
        radius: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if whole("count", count) <= _NEIGHBOURS:
            raise ValueError(
                f"count is {count}; expected at least {_NEIGHBOURS + 1} Gaussians; pass for "
                "example 2000"
            )
        number("radius", radius, above=0)
        directions = F.normalize(torch.randn(count, 3, generator=generator), dim=-1)
        means = radius * torch.rand(count, 1, generator=generator) ** (1 / 3) * directions
        sizes = _spacing(means).clamp_min(1e-4 * radius)
        self.means = nn.Parameter(means)
        self.log_scales = nn.Parameter(sizes.log()[:, None].repeat(1, 3))
        self.quaternions = nn.Parameter(torch.tensor([1.0, 0, 0, 0]).repeat(count, 1))
        self.opacity_logits = nn.Parameter(torch.full((count,), _OPACITY / MOST_OPAQUE).logit())
        self.color_logits = nn.Parameter(0.1 * torch.randn(count, 3, generator=generator))

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters, and what multiplies the learning rate for them.

        Opacities and colours learn at the full rate, as logits do in the other fields; scales and
        rotations at a fifth and centres at a 25th of it, in the proportions of Kerbl et al.
        """
        return [
            ([self.means], _MEANS_RATE),
            ([self.log_scales, self.quaternions], _SHAPE_RATE),
            ([self.opacity_logits, self.color_logits], 1.0),
        ]

    def gaussians(self) -> Gaussians:
        """The Gaussians as they are now; differentiable to the parameters."""
        return Gaussians(
            means=self.means,
            scales=self.log_scales.exp(),
            quaternions=F.normalize(self.quaternions, dim=-1),
            opacity=MOST_OPAQUE * self.opacity_logits.sigmoid(),
            rgb=self.color_logits.sigmoid(),
        )


def rotations(quaternions: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4) w, x, y, z; differentiable."""
    w, x, y, z = quaternions.unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def _spacing(points: Tensor) -> Tensor:
    """Root of the mean squared distance (N,) from points (N, 3) to their nearest neighbours."""
    parts = []
    for part in points.split(_ROWS):  # all distances at once would be N^2 numbers
        near = torch.cdist(part, points).topk(_NEIGHBOURS + 1, largest=False).values
        parts.append(near[:, 1:].square().mean(dim=-1).sqrt())  # the first is the point itself
    return torch.cat(parts)
