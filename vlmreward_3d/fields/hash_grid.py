"""A radiance field in hash tables (Instant-NGP, Mueller et al., 2022), in pure torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreward.utils.arguments import number, whole
from vlmreward_3d.fields.base import VolumeRepresentation
from vlmreward_3d.fields.color_heads import ColorHead, Colors, RGBHead
from vlmreward_3d.fields.dense_grid import blob, check_shape
from vlmreward_3d.rendering.base import FieldSamples

__all__ = ["BakedHashGrid", "HashGrid"]

_PRIMES = (1, 2_654_435_761, 805_459_861)
_NETWORK_RATE = 0.1


class HashGrid(VolumeRepresentation):
    """Features in grids of growing resolution over the box [-bound, bound]^3, and a small network.

    If a level has more nodes than its table has rows, the spatial hash of Instant-NGP (Eq. 4) lets
    nodes share rows. The trilinearly interpolated features of all levels are concatenated and go
    through one hidden layer to a density logit and the features of a color head, three color
    logits or four latents. Memory grows with the tables and not with the finest resolution, so
    that finer detail fits than in a dense grid.

    The density is softplus(logit + blob + bias) with Magic3D's linear blob, as in `DenseGrid`.

    Args:
        levels: Number of grids.
        coarsest: Nodes per side of the first grid.
        finest: Nodes per side of the last grid; the sizes in between grow geometrically (Eq. 2
            and 3).
        size: Largest number of rows of a table, a power of two.
        features: Number of features per level, the columns of a table.
        width: Width of the hidden layer.
        bound: Half the side of the box, world units. There is nothing outside.
        blob_density: Height of the initial blob, in logits.
        blob_radius: Distance from the origin at which the blob is zero, world units.
        density_bias: Constant added to the density logit.
        density_scale: Factor of the density.
        head: Color head; None for the head of RGB.
        generator: Source of the initial features and weights; None draws from torch's own
            generator.
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
        density_bias: float = 0.0,
        density_scale: float = 1.0,
        head: ColorHead | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value in (
            ("levels", levels),
            ("coarsest", coarsest),
            ("finest", finest),
            ("size", size),
            ("features", features),
            ("width", width),
        ):
            whole(name, value)
        check_shape(bound, blob_density, blob_radius, density_scale)
        number("density_bias", density_bias)
        if levels < 2 or not 2 <= coarsest < finest or size < 2 or size & (size - 1):
            raise ValueError(
                f"received levels={levels}, coarsest={coarsest}, finest={finest}, size={size}; "
                "expected 2 levels or more, 2 <= coarsest < finest, and a power of two; pass for "
                "example (16, 16, 1024, 2**19)"
            )
        self.bound = bound
        self.blob_density = blob_density
        self.blob_radius = blob_radius
        self.density_bias = density_bias
        self.density_scale = density_scale
        self.head = head or RGBHead()
        growth = (finest / coarsest) ** (1 / (levels - 1))
        self.resolutions = tuple(round(coarsest * growth**level) for level in range(levels))
        self.tables = nn.ParameterList(
            torch.empty(min(size, r**3), features).uniform_(-1e-4, 1e-4, generator=generator)
            for r in self.resolutions
        )
        layers = [nn.Linear(levels * features, width), nn.Linear(width, 1 + self.head.channels)]
        for layer in layers:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
        self.network = nn.Sequential(layers[0], nn.ReLU(), layers[1])

    @property
    def resolution(self) -> int:
        """Nodes per side of the finest level."""
        return self.resolutions[-1]

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """The tables at the full learning rate, the network and the head at a tenth of it."""
        network = [*self.network.parameters(), *self.head.parameters()]
        return [(list(self.tables), 1.0), (network, _NETWORK_RATE)]

    def bake(self, *, normals: bool = False, rgb: bool = False) -> BakedHashGrid:
        """The query interface of the field; nothing is precomputed.

        Args:
            normals: Also answer with normals, from the exact slope of the density logit.
            rgb: Answer with RGB in any case; see `VolumeRepresentation.bake`.

        Returns:
            The snapshot; differentiable to the parameters.
        """
        return BakedHashGrid(self, normals, self.head.colors(rgb=rgb))

    def encode(self, points: Tensor, *, slopes: bool = False) -> Tensor:
        """Features, differentiable to the tables and not to the points.

        Args:
            points: (P, 3), world units.
            slopes: Also their derivatives along x, y and z, per world unit.

        Returns:
            (P, levels * features), or with slopes (P, 4, levels * features), the value first.
        """
        unit = (points.detach() / self.bound + 1) / 2
        parts = [
            _interpolate(table, unit, resolution, 1 / (2 * self.bound) if slopes else None)
            for table, resolution in zip(self.tables, self.resolutions)
        ]
        return torch.cat(parts, dim=-1)

    def logits(self, points: Tensor) -> Tensor:
        """Density logit with the blob, and features of the color, (P, 1 + F)."""
        out = self.network(self.encode(points))
        return torch.cat([out[:, :1] + self._blob(points), out[:, 1:]], dim=-1)

    def logits_and_slope(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """`logits`, and the derivative (P, 3) of the density logit along x, y and z.

        The derivative is exact and written out, so that it costs one lookup and is itself
        differentiable to tables and network. Where a ReLU switches, or a point crosses
        into the next cell, it jumps.
        """
        first, last = (cast(nn.Linear, self.network[i]) for i in (0, 2))
        features = self.encode(points, slopes=True)
        before = first(features[:, 0])
        out = last(before.relu())
        # from the output towards the features: a third of the work of carrying three slopes through
        at_features = ((before > 0) * last.weight[0]) @ first.weight
        slope = (features[:, 1:] @ at_features[..., None])[..., 0]
        ball = -self.blob_density / self.blob_radius * F.normalize(points.detach(), dim=-1)
        logits = torch.cat([out[:, :1] + self._blob(points), out[:, 1:]], dim=-1)
        return logits, slope + ball

    def _blob(self, points: Tensor) -> Tensor:
        radius = points.detach().norm(dim=-1, keepdim=True)
        return blob(radius, self.blob_density, self.blob_radius) + self.density_bias


def _interpolate(table: Tensor, unit: Tensor, resolution: int, scale: float | None) -> Tensor:
    """Trilinear features (P, F) of points (P, 3) in [0, 1]^3, or (P, 4, F) with their slopes.

    `scale` is what a unit's derivative is multiplied by; None asks for no slopes.
    """
    place = unit.clamp(0, 1) * (resolution - 1)
    low = place.floor().clamp_max(resolution - 2)
    upper = place - low
    # along each axis the lower and the upper node: (P, 3, 2)
    along = torch.stack([1 - upper, upper], dim=-1)
    row = _rows(torch.stack([low, low + 1], dim=-1).long(), resolution, len(table))
    x, y, z = along.unbind(dim=1)
    shares = [_each_corner(torch.mul, x, y, z)]
    if scale is not None:
        slope = scale * (resolution - 1)
        rising = along.new_tensor([-slope, slope]).expand_as(x)
        for axes in ((rising, y, z), (x, rising, z), (x, y, rising)):
            shares.append(_each_corner(torch.mul, *axes))
    # one product a point: an embedding's backward pass on a CPU takes three times as long
    corners = table.index_select(0, row.flatten()).view(*row.shape, table.shape[1])
    features = torch.stack(shares, dim=1).to(table) @ corners
    return features[:, 0] if scale is None else features


def _at_once(points: Tensor) -> int:
    """Number of points that are evaluated together.

    A CPU would spend a third of its time on memory access for the corners of more points.
    """
    return 2**15 if points.device.type == "cpu" else max(len(points), 1)


def _rows(nodes: Tensor, resolution: int, count: int) -> Tensor:
    """Rows (P, 8) of a cell's corners: their own where the table has one for each, else hashed.

    Args:
        nodes: (P, 3, 2) lower and upper node along x, y and z.
        resolution: Nodes per side.
        count: Rows of the table.
    """
    dense = resolution**3 <= count
    factors = (resolution**2, resolution, 1) if dense else _PRIMES
    x, y, z = (axis * factor for axis, factor in zip(nodes.unbind(dim=1), factors))
    if dense:
        return _each_corner(torch.add, x, y, z)
    return _each_corner(torch.bitwise_xor, x, y, z) & (count - 1)


def _each_corner(of: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """(P, 8): `of` each combination of the values (P, 2) for the two sides of a cell."""
    return of(of(z[:, :, None, None], y[:, None, :, None]), x[:, None, None]).flatten(1)


@dataclass(frozen=True)
class BakedHashGrid:
    """Query interface of a hash field.

    Attributes:
        field: The field.
        normals: True if queries return normals.
        colors: Function from features to rendered values.
    """

    field: HashGrid
    normals: bool
    colors: Colors = torch.sigmoid

    @property
    def reference_tensor(self) -> Tensor:
        """A tensor with the field's device and dtype."""
        return self.field.tables[0]

    def density(self, points: Tensor) -> Tensor:
        """Density (P,) at points (P, 3); differentiable to the field, not to the points."""
        return self.field.density_scale * F.softplus(self.field.logits(points)[:, 0])

    def __call__(self, points: Tensor) -> FieldSamples:
        """Density, color and (if baked with them) normals at points (P, 3) in world units.

        Differentiable to the field's parameters, not to the points.
        """
        parts = [self._ask(some) for some in points.split(_at_once(points))]
        density, rgb, slope = (torch.cat(x) for x in zip(*parts))
        normals = -F.normalize(slope, dim=-1) if self.normals else None
        return FieldSamples(density, rgb, normals)

    def _ask(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Density (P,), color (P, C) and slope of the density logit (P, 3), or (P, 0) without."""
        if self.normals:
            logits, slope = self.field.logits_and_slope(points)
        else:
            logits = self.field.logits(points)
            slope = logits[:, :0]
        density = self.field.density_scale * F.softplus(logits[:, 0])
        return density, self.colors(logits[:, 1:]), slope

    def detached_leaf(self) -> BakedHashGrid:
        """This object: queries reach the parameters themselves."""
        return self

    def pull_back(self, leaf: BakedHashGrid) -> Tensor | None:
        """None: the gradient of queries has already reached the parameters."""
        return None

    def total_variation(self) -> Tensor:
        """Not supported: rows of a hash table have no spatial neighbors.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "received a total variation weight for a hash grid; expected 0; use a dense grid"
        )
