"""Interfaces of radiance fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BakedField", "FieldSamples"]


@dataclass(frozen=True)
class FieldSamples:
    """What a field says at P points.

    Attributes:
        density: (P,) non-negative, per world unit.
        rgb: (P, 3) in (0, 1).
        normals: (P, 3) unit vectors towards falling density (zero where it is flat), or None if
            they were not asked for.
    """

    density: Tensor
    rgb: Tensor
    normals: Tensor | None = None


class BakedField(Protocol):
    """A field at one moment, to be asked many times; all of it differentiable to the parameters."""

    @property
    def like(self) -> Tensor:
        """A tensor of the field's device and dtype."""
        ...

    def density(self, points: Tensor) -> Tensor:
        """Density (P,) at points (P, 3)."""
        ...

    def __call__(self, points: Tensor) -> FieldSamples:
        """What the field says at points (P, 3)."""
        ...

    def leaf(self) -> Self:
        """The same, for graphs that may end before the parameters."""
        ...

    def carry(self, leaf: Self) -> Tensor | None:
        """A scalar whose gradient is, at the parameters, what ended at a leaf of this; or None."""
        ...
