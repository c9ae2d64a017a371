"""The interfaces between fields, renderers and guidances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "BakedField",
    "FieldSamples",
    "RegularizerWeights",
    "Shader",
    "Surface",
    "Views",
    "part_of",
]


@dataclass(frozen=True)
class FieldSamples:
    """Values of a field at P points.

    Attributes:
        density: (P,) non-negative, per world unit.
        rgb: (P, 3) in (0, 1); or (P, 4) latents of any size, of a field that renders those.
        normals: (P, 3) unit vectors towards falling density (zero where it is flat); None if the
            field was not baked with normals.
    """

    density: Tensor
    rgb: Tensor
    normals: Tensor | None = None


class BakedField(Protocol):
    """A field with everything precomputed that does not depend on the query points.

    A renderer queries it many times in one step. Every result is differentiable to the field's
    parameters.
    """

    @property
    def reference_tensor(self) -> Tensor:
        """A tensor with the field's device and dtype."""
        ...

    def density(self, points: Tensor) -> Tensor:
        """Density (P,) at points (P, 3)."""
        ...

    def __call__(self, points: Tensor) -> FieldSamples:
        """Density, colors and, if baked with them, normals at points (P, 3)."""
        ...

    def detached_leaf(self) -> Self:
        """A copy whose graph may begin at its own tensors instead of at the parameters."""
        ...

    def pull_back(self, leaf: Self) -> Tensor | None:
        """A scalar whose gradient at the parameters equals that accumulated by `leaf`.

        None if queries of `leaf` reach the parameters themselves.
        """
        ...

    def total_variation(self) -> Tensor:
        """Scalar, the total variation of density and colors.

        Raises:
            NotImplementedError: The field has no volume whose variation could be taken.
        """
        ...


Shader: TypeAlias = Callable[[FieldSamples, Tensor, Tensor], Tensor]
"""Colors (P, 3) from field samples, their positions (P, 3) and the index (P,) of their views."""


@dataclass(frozen=True)
class RegularizerWeights:
    """Weights of the regularizers; a regularizer of weight 0 is not computed.

    `emptiness_scale` is no weight; see `vlmreward_3d.losses.emptiness_loss`.
    """

    orientation: float = 0.0
    entropy: float = 0.0
    sparsity: float = 0.0
    variation: float = 0.0
    emptiness: float = 0.0
    emptiness_scale: float = 10.0


class Backward(Protocol):
    """Back-propagation from the pixels of `Views` to the parameters of a field."""

    def __call__(
        self, gradient: Tensor, regularizers: RegularizerWeights, *, retain_graph: bool = False
    ) -> None:
        """Add the gradient of pixels and regularizers to the field's parameters.

        Args:
            gradient: (N, 3, H, W) gradient at the images' colors, or (N, 4, H, W) at latents.
            regularizers: Weights of the regularizers.
            retain_graph: True if `backward` will be called again for these views.
        """
        ...


@dataclass(frozen=True)
class Surface:
    """The points at which N views meet a field, without a graph.

    Attributes:
        depth: (N, 1, H, W) opacity-weighted mean distance from the ray's origin, world units.
        opacity: (N, 1, H, W) in [0, 1]; where it is 0 the depth means nothing.
    """

    depth: Tensor
    opacity: Tensor

    def __getitem__(self, index: Tensor) -> Surface:
        return Surface(self.depth[index], self.opacity[index])


def part_of(surface: Callable[[], Surface] | None, index: Tensor) -> Callable[[], Surface] | None:
    """The surface that some of the views see, computed when it is called; None without one."""
    return None if surface is None else lambda: surface()[index]


@dataclass(frozen=True)
class Views:
    """Rendered views without their graph.

    Attributes:
        rgb: (N, 3, H, W), detached, in [0, 1] up to rounding, or beyond it where RGB is decoded
            from latents; or (N, 4, H, W) latents of any size.
        opacity: (N, 1, H, W) in [0, 1], detached.
        n_active_rays: Number of rays that met something.
        backward: Carries a gradient at `rgb` back to the field; see `Backward`.
        surface: Function that computes the points at which the views meet the field; it must be
            called before the field's parameters change. None for fields without such points.
    """

    rgb: Tensor
    opacity: Tensor
    n_active_rays: int
    backward: Backward
    surface: Callable[[], Surface] | None = None

    @property
    def images(self) -> Tensor:
        """Input images of guidances: (N, 3, H, W) in [0, 1], or (N, 4, H, W) latents.

        The gradient at these images is applied to the unclamped `rgb`, so that values beyond
        [0, 1] can return into the range.
        """
        return self.rgb.clamp(0, 1) if self.rgb.shape[1] == 3 else self.rgb
