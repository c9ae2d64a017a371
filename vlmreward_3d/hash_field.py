"""A radiance field in hash tables (Instant-NGP, Mueller et al., 2022), in pure torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreward_3d.field import FieldSamples, blob

__all__ = ["BakedHash", "HashField"]

_PRIMES = (1, 2_654_435_761, 805_459_861)
_NETWORK_RATE = 0.1


class HashField(nn.Module):
    """Features in grids of growing resolution over the box [-bound, bound]^3, and a small network.

    A level whose nodes are more than its table has rows shares rows among them, by the spatial hash
    of Instant-NGP (Eq. 4); its trilinearly interpolated features, of all levels beside each other,
    go through one hidden layer to a density logit and three colour logits. Memory grows with the
    tables and not with the finest resolution, for detail that a dense grid has no room for.

    The density is softplus(logit + blob) with DreamFusion's blob, as in `PyramidField`.

    Args:
        levels: Number of grids.
        coarsest: Nodes per side of the first.
        finest: Nodes per side of the last; those in between grow geometrically (Eq. 2 and 3).
        size: Rows of a table at most, a power of two.
        features: Columns.
        width: Of the hidden layer.
        bound: Half the side of the box, world units. There is nothing outside.
        blob_density: Height of the initial blob, in logits.
        blob_radius: Distance from the origin at which the blob is zero, world units.
        density_scale: Multiplies the density.
        generator: Source of the initial features and weights; none draws from torch's own.
    """

    def __init__(
        self,
        levels: int = 16,
        coarsest: int = 16,
        finest: int = 1024,
        size: int = 2**19,
        *,
        features: int = 2,
        width: int = 64,
        bound: float = 1.0,
        blob_density: float = 10.0,
        blob_radius: float = 0.5,
        density_scale: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if levels < 2 or not 2 <= coarsest < finest or size < 2 or size & (size - 1):
            raise ValueError(
                f"received levels={levels}, coarsest={coarsest}, finest={finest}, size={size}; "
                "expected 2 levels or more, 2 <= coarsest < finest, and a power of two; pass for "
                "example (16, 16, 1024, 2**19)"
            )
        self.bound = bound
        self.blob_density = blob_density
        self.blob_radius = blob_radius
        self.density_scale = density_scale
        growth = (finest / coarsest) ** (1 / (levels - 1))
        self.resolutions = tuple(round(coarsest * growth**level) for level in range(levels))
        self.tables = nn.ParameterList(
            torch.empty(min(size, r**3), features).uniform_(-1e-4, 1e-4, generator=generator)
            for r in self.resolutions
        )
        layers = [nn.Linear(levels * features, width), nn.Linear(width, 4)]
        for layer in layers:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
        self.network = nn.Sequential(layers[0], nn.ReLU(), layers[1])

    @property
    def resolution(self) -> int:
        """Nodes per side of the finest level."""
        return self.resolutions[-1]

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters, and what multiplies the learning rate for them: a tenth for the network."""
        return [(list(self.tables), 1.0), (list(self.network.parameters()), _NETWORK_RATE)]

    def bake(self, *, normals: bool = False) -> BakedHash:
        """What answers queries; nothing is computed beforehand.

        Args:
            normals: Also answer with normals, from central differences, at six times the cost.

        Returns:
            The snapshot; differentiable to the parameters.
        """
        return BakedHash(self, normals)

    def encode(self, points: Tensor) -> Tensor:
        """Features (P, levels * features) at points (P, 3) in world units.

        Differentiable to the tables, not to the points.
        """
        unit = (points.detach() / self.bound + 1) / 2
        parts = [
            _interpolate(table, unit, resolution)
            for table, resolution in zip(self.tables, self.resolutions)
        ]
        return torch.cat(parts, dim=-1)

    def logits(self, points: Tensor) -> Tensor:
        """Density logit with the blob, and colour logits, (P, 4)."""
        out = self.network(self.encode(points))
        radius = points.detach().norm(dim=-1, keepdim=True)
        ball = blob(radius, self.blob_density, self.blob_radius)
        return torch.cat([out[:, :1] + ball, out[:, 1:]], dim=-1)


def _interpolate(table: Tensor, unit: Tensor, resolution: int) -> Tensor:
    """Trilinear features (P, F) of points (P, 3) in [0, 1]^3."""
    place = unit.clamp(0, 1) * (resolution - 1)
    low = place.floor().clamp_max(resolution - 2)
    part = place - low
    low = low.long()
    total = unit.new_zeros(len(unit), table.shape[1])
    for corner in range(8):
        offset = [corner >> axis & 1 for axis in range(3)]
        share = torch.ones_like(part[:, 0])
        for axis in range(3):
            share = share * (part[:, axis] if offset[axis] else 1 - part[:, axis])
        row = _row([low[:, axis] + offset[axis] for axis in range(3)], resolution, len(table))
        total = total + share[:, None] * F.embedding(row, table)
    return total


def _row(node: list[Tensor], resolution: int, rows: int) -> Tensor:
    """Rows (P,) of nodes: their own where the table has one for each, hashed otherwise."""
    x, y, z = node
    if resolution**3 <= rows:
        return (x * resolution + y) * resolution + z
    a, b, c = (axis * prime for axis, prime in zip(node, _PRIMES))
    return (a ^ b ^ c) & (rows - 1)


@dataclass(frozen=True)
class BakedHash:
    """A hash field that answers queries.

    Attributes:
        field: The field.
        normals: Whether it answers with normals.
    """

    field: HashField
    normals: bool

    @property
    def like(self) -> Tensor:
        """A tensor of the field's device and dtype."""
        return self.field.tables[0]

    def density(self, points: Tensor) -> Tensor:
        """Density (P,) at points (P, 3); differentiable to the field, not to the points."""
        return self.field.density_scale * F.softplus(self.field.logits(points)[:, 0])

    def __call__(self, points: Tensor) -> FieldSamples:
        """Density, colour and (if baked with them) normals at points (P, 3) in world units.

        Differentiable to the field's parameters, not to the points.
        """
        logits = self.field.logits(points)
        density = self.field.density_scale * F.softplus(logits[:, 0])
        return FieldSamples(density, logits[:, 1:].sigmoid(), self._normals(points))

    def _normals(self, points: Tensor) -> Tensor | None:
        if not self.normals:
            return None
        # a node of the finest grid: narrower differences see one cell's slope alone
        step = 2 * self.field.bound / (self.field.resolutions[-1] - 1)
        steps = step * torch.eye(3, dtype=points.dtype, device=points.device)
        around = torch.stack([points + steps[:, None], points - steps[:, None]])
        logit = self.field.logits(around.reshape(-1, 3))[:, 0].view(2, 3, -1)
        return F.normalize((logit[1] - logit[0]).T, dim=-1)

    def leaf(self) -> BakedHash:
        """Itself: queries begin at the parameters."""
        return self

    def carry(self, leaf: BakedHash) -> Tensor | None:
        """Nothing: what reached the leaf has reached the parameters."""
        return None
