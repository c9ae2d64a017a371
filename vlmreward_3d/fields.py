"""Which fields there are, and what differs between those that rays sample and those drawn."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

from vlmreward_3d.config import VLM3DConfig
from vlmreward_3d.field import PyramidField
from vlmreward_3d.hash_field import HashField
from vlmreward_3d.sampler import OccupancyGrid
from vlmreward_3d.splats.field import SplatField

__all__ = ["Field", "VolumeField", "build_field", "update_occupancy"]

VolumeField: TypeAlias = PyramidField | HashField
"""Fields that have a density everywhere, and are sampled along rays."""

Field: TypeAlias = VolumeField | SplatField


def build_field(config: VLM3DConfig, generator: torch.Generator | None = None) -> Field:
    """The field of a configuration, as it is at the start.

    Args:
        config: The run's settings.
        generator: Source of its initial values.
    """
    if config.field == "splats":
        return SplatField(config.splat_count, radius=config.blob_radius, generator=generator)
    shared: dict[str, Any] = {
        "bound": config.bound,
        "blob_density": config.blob_density,
        "blob_radius": config.blob_radius,
        "density_scale": config.density_scale,
        "generator": generator,
    }
    if config.field == "hash":
        coarsest, finest = config.hash_resolution
        return HashField(config.hash_levels, coarsest, finest, config.hash_size, **shared)
    return PyramidField(config.field_resolutions, **shared)


def update_occupancy(
    grid: OccupancyGrid, field: Field, generator: torch.Generator | None = None
) -> None:
    """Let a grid look at a field; for splats, which are drawn without one, it stays as it is.

    Args:
        grid: The occupancy; it is changed.
        field: The field.
        generator: See `OccupancyGrid.update`.
    """
    if not isinstance(field, SplatField):
        grid.update(field.bake().density, generator)
