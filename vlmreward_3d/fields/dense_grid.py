"""A radiance field in dense grids, in pure torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreward.utils.arguments import number
from vlmreward_3d.fields.base import VolumeRepresentation
from vlmreward_3d.fields.color_heads import ColorHead, Colors, RGBHead
from vlmreward_3d.losses import total_variation
from vlmreward_3d.rendering.base import FieldSamples

__all__ = ["BakedDenseGrid", "DenseGrid", "blob", "check_shape"]

# grid_sample on a CPU is parallel over the batch dimension only. A fixed number of slices (rather
# than the number of threads) keeps results independent of the machine's core count.
_SLICES = 2


class DenseGrid(VolumeRepresentation):
    """Sum of dense volumes of growing resolution over the box [-bound, bound]^3.

    Each level holds a density logit and the features of a color head, three color logits or four
    latents, per node. Coarse levels spread every gradient widely, fine levels represent detail.
    Because the levels are trilinear and nested, they are summed into a single volume once per
    step, so that a query costs one lookup.

    The density is softplus(gain * logit + blob + bias), with the linear blob of Magic3D (Lin et
    al., 2023): blob_density * (1 - |x| / blob_radius), so that the optimization starts from a soft
    ball at the origin. (DreamFusion's blob is a Gaussian bump.) The gain is 1, or learned. Colors
    are gray at the start.

    Args:
        resolutions: Nodes per side of each level, ascending.
        bound: Half the side of the box, world units. There is nothing outside.
        blob_density: Height of the initial blob, in logits.
        blob_radius: Distance from the origin at which the blob is zero, world units.
        density_bias: Constant added to the density logit.
        density_scale: Factor of the density, so that unit steps of a logit make sharp surfaces.
        learned_gain: Multiply the logits by the exponential of a parameter that begins at 0 (score
            Jacobian chaining; Wang et al., 2023).
        head: Color head; None for the head of RGB.
        generator: Source of the small initial noise in the colors; None for no noise.
    """

    def __init__(
        self,
        resolutions: Sequence[int] = (8, 16, 32, 64),
        *,
        bound: float = 1.0,
        blob_density: float = 10.0,
        blob_radius: float = 0.5,
        density_bias: float = 0.0,
        density_scale: float = 1.0,
        learned_gain: bool = False,
        head: ColorHead | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        whole_numbers = isinstance(resolutions, Sequence) and all(
            isinstance(side, int) and not isinstance(side, bool) for side in resolutions
        )
        ascending = whole_numbers and list(resolutions) == sorted(set(resolutions))
        if not ascending or not resolutions or resolutions[0] < 2:
            raise (ValueError if whole_numbers else TypeError)(
                f"received resolutions {resolutions!r}; expected ascending integers >= 2; pass for "
                "example (8, 16, 32, 64)"
            )
        check_shape(bound, blob_density, blob_radius, density_scale)
        number("density_bias", density_bias)
        self.bound = bound
        self.blob_density = blob_density
        self.blob_radius = blob_radius
        self.density_bias = density_bias
        self.density_scale = density_scale
        self.head = head or RGBHead()
        channels = 1 + self.head.channels
        self.levels = nn.ParameterList(torch.zeros(1, channels, r, r, r) for r in resolutions)
        self.log_gain = nn.Parameter(torch.zeros(())) if learned_gain else None
        if generator is not None:
            with torch.no_grad():
                self.levels[0][:, 1:].normal_(std=0.1, generator=generator)

    @property
    def resolution(self) -> int:
        """Nodes per side of the finest level."""
        return self.levels[-1].shape[-1]

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """All levels, the gain and the head, at the full learning rate."""
        gain = [] if self.log_gain is None else [self.log_gain]
        return [([*self.levels, *gain, *self.head.parameters()], 1.0)]

    def bake(self, *, normals: bool = False, rgb: bool = False) -> BakedDenseGrid:
        """Add the levels into one volume.

        Args:
            normals: Also prepare normals, from central differences between nodes.
            rgb: Answer with RGB in any case; see `VolumeRepresentation.bake`.

        Returns:
            The snapshot; differentiable to the parameters.
        """
        finest = self.levels[-1]
        resolution = finest.shape[-1]
        total = finest
        for level in self.levels[:-1]:
            total = total + F.interpolate(
                level, size=(resolution,) * 3, mode="trilinear", align_corners=True
            )
        logit = total[:, :1]
        if self.log_gain is not None:
            logit = self.log_gain.exp() * logit
        logit = logit + self._blob(resolution)
        parts = [logit, total[:, 1:]]
        if normals:
            parts.append(_downhill(logit))
        return BakedDenseGrid(
            torch.cat(parts, dim=1),
            self.bound,
            self.density_scale,
            self.head.channels,
            self.head.colors(rgb=rgb),
        )

    def _blob(self, resolution: int) -> Tensor:
        finest = self.levels[-1]
        axis = torch.linspace(
            -self.bound, self.bound, resolution, dtype=finest.dtype, device=finest.device
        )
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        radius = (x * x + y * y + z * z).sqrt()
        return blob(radius, self.blob_density, self.blob_radius) + self.density_bias


def check_shape(
    bound: float, blob_density: float, blob_radius: float, density_scale: float
) -> None:
    """Refuse invalid settings of the box, the blob or the density scale.

    Raises:
        TypeError, ValueError: A number is missing, not finite, or not positive where it has to be.
    """
    number("bound", bound, above=0)
    number("blob_density", blob_density)
    number("blob_radius", blob_radius, above=0)
    number("density_scale", density_scale, above=0)


def blob(radius: Tensor, density: float, zero: float) -> Tensor:
    """The linear blob of Magic3D (Lin et al., 2023) in logits, at distances from the origin.

    Args:
        radius: Distances of any shape, world units.
        density: Height at the origin.
        zero: Distance at which the blob is zero.
    """
    return density * (1 - radius / zero)


@dataclass(frozen=True)
class BakedDenseGrid:
    """Query interface of a volume of logits, by trilinear interpolation.

    Attributes:
        logits: (1, 1 + F or 4 + F, R, R, R), axes z, y, x: density, features of the color and, with
            4 + F, the direction of falling density.
        bound: Half the side of the box, world units.
        density_scale: Factor of the density.
        channels: F, number of features of the color.
        colors: Function from features to rendered values.
    """

    logits: Tensor
    bound: float
    density_scale: float
    channels: int = 3
    colors: Colors = torch.sigmoid

    @property
    def reference_tensor(self) -> Tensor:
        """A tensor with the field's device and dtype."""
        return self.logits

    def detached_leaf(self) -> BakedDenseGrid:
        """A copy whose graph begins at its own logits."""
        return replace(self, logits=self.logits.detach().requires_grad_())

    def pull_back(self, leaf: BakedDenseGrid) -> Tensor | None:
        """A scalar whose gradient at the parameters equals that accumulated by `leaf`."""
        if leaf.logits.grad is None:
            return None
        return (self.logits * leaf.logits.grad).sum()

    def density(self, points: Tensor) -> Tensor:
        """Density (P,) at points (P, 3); differentiable to the field, not to the points."""
        return self._density(self._lookup(points, self.logits[:, :1])[:, 0])

    def __call__(self, points: Tensor) -> FieldSamples:
        """Density, color and (if baked with them) normals at points (P, 3) in world units.

        Differentiable to the field's parameters, not to the points.
        """
        values = self._lookup(points, self.logits)
        density, features, slope = values.split(
            (1, self.channels, values.shape[1] - self.channels - 1), dim=1
        )
        normals = F.normalize(slope, dim=-1) if slope.shape[1] else None
        return FieldSamples(self._density(density[:, 0]), self.colors(features), normals)

    def total_variation(self) -> Tensor:
        """Scalar, the total variation of the density's logit and the features of the color."""
        return total_variation(self.logits[:, : 1 + self.channels])

    def _density(self, logit: Tensor) -> Tensor:
        return self.density_scale * F.softplus(logit)

    def _lookup(self, points: Tensor, volume: Tensor) -> Tensor:
        count = len(points)
        if count == 0:
            return volume.new_zeros(0, volume.shape[1])
        grid = points.detach() / self.bound
        grid = F.pad(grid, (0, 0, 0, -count % _SLICES)).view(_SLICES, 1, 1, -1, 3)
        values = F.grid_sample(
            volume.expand(_SLICES, -1, -1, -1, -1), grid, padding_mode="border", align_corners=True
        )
        values = values.reshape(_SLICES, volume.shape[1], -1).transpose(1, 2)
        return values.reshape(-1, volume.shape[1])[:count]


def _downhill(volume: Tensor) -> Tensor:
    """Negative central differences (1, 3, R, R, R) of (1, 1, R, R, R), in the order x, y, z."""
    padded = F.pad(volume, (1,) * 6, mode="replicate")
    middle = slice(1, -1)
    x = padded[..., middle, middle, :-2] - padded[..., middle, middle, 2:]
    y = padded[..., middle, :-2, middle] - padded[..., middle, 2:, middle]
    z = padded[..., :-2, middle, middle] - padded[..., 2:, middle, middle]
    return torch.cat([x, y, z], dim=1)
